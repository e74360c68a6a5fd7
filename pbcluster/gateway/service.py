"""A gateway as a Twisted service: starts its parts in order, drains before it ends.

It listens at once, and says that it is ready after its first contact with the control plane, or
after ``CONTACT_WAIT_S`` without one: it serves what it can, from routes that it saved before.

Its end: at once ``/readyz`` answers 503 and answers end their connections; after ``drain_ready_s``,
when load balancers know, no connection is accepted any more; requests under way get ``drain_s``,
then what is left is cut (event streams never end by themselves). Only then it lets go of the
control plane: held requests need it. If a successor has its sockets, the first step is left out.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from random import SystemRandom
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from pbcluster import descriptors
from pbcluster.config import GatewayConfig, Secrets
from pbcluster.errors import ConfigError, PBClusterError, RemoteProtocolError
from pbcluster.gateway import local_pages
from pbcluster.gateway.access_log import AccessLog
from pbcluster.gateway.admission import Admission, LoadWatch
from pbcluster.gateway.doors import METRICS, Doors, door_name
from pbcluster.gateway.entrance import Entrance, as_worker
from pbcluster.gateway.figures import Figures
from pbcluster.gateway.health import ask_health
from pbcluster.gateway.holds import MAX_PER_TENANT, MAX_TOTAL, Holds
from pbcluster.gateway.limited_factory import LimitedFactory
from pbcluster.gateway.limits import AddressLimits, AddressQuota
from pbcluster.gateway.lookups import Lookups
from pbcluster.gateway.metrics import Metrics
from pbcluster.gateway.nodes import Nodes
from pbcluster.gateway.parts import Record
from pbcluster.gateway.proxy import Proxy
from pbcluster.gateway.redirects import OFF
from pbcluster.gateway.reloading import Reloadable, Reloading
from pbcluster.gateway.remembered import Remembered
from pbcluster.gateway.request_ids import RequestIds
from pbcluster.gateway.routes import RouteCache
from pbcluster.gateway.shedding import Overload, Shedding
from pbcluster.gateway.tenant_id import TenantFinder
from pbcluster.gateway.tls import GatewayTLS
from pbcluster.gateway.token_keys import TokenKeyQuestions
from pbcluster.gateway.tokens import Tokens
from pbcluster.gateway.trusted import TrustedNetworks
from pbcluster.gateway.updates import Updates
from pbcluster.gateway.worker import Place
from pbcluster.options import Parsed
from pbcluster.transport.following import Follower
from pbcluster.transport.interfaces import Asked, ControlPlaneClient, Subscriber
from pbcluster.web import endpoint_strings
from pbcluster.web.endpoint_strings import Where, url_of
from pbcluster.web.interfaces import Exchange
from pbcluster.web.limits import Limits
from pbcluster.web.listening import Listener
from pbcluster.web.pool import UpstreamPool, tcp_endpoints
from pbcluster.web.streams import streams_of
from pbcluster.wire import Body, SnapshotRequest

#: Without contact for so long the gateway says that it is ready all the same.
CONTACT_WAIT_S = 5.0
#: With routes of an earlier run it can serve at once; today's are a little better.
WARM_CONTACT_WAIT_S = 1.0
CONTACT_TIMEOUT_S = 1.0
CONTACT_AGAIN_S = 0.1
#: While draining, an idle connection is closed after so much silence: a request that is on its way
#: is still answered.
QUIET_S = 1.0

log = Logger()


@attrs.frozen
class ControlPlane:
    """How a gateway reaches the control plane.

    :ivar follower: keeps the sessions of the first two in step with who the members are.
    :ivar close: lets go of all sockets.
    :ivar reload: takes over settings that were read again: who its members are.
    """

    client: ControlPlaneClient
    subscriber: Subscriber
    follower: Follower
    close: Any
    reload: Reloadable | None = None


def gateway_key(config: GatewayConfig, own: Secrets) -> bytes:
    """This gateway's HMAC key.

    :raises ConfigError: its secrets hold none.
    """
    key = own.gateway_keys.get(config.id, "")
    if not key:
        raise ConfigError(
            f"{config.secrets_file} has no key for {config.id!r} under gateway_keys: nodes would "
            "refuse every request"
        )
    return key.encode()


class GatewayService(Service):
    """One gateway.

    :ivar public: the public listener's port. :ivar secure: those with TLS.
    :ivar local: the metrics listener's.
    """

    name = "pbcluster gateway"

    def __init__(
        self,
        reactor: Any,
        config: GatewayConfig,
        own: Secrets,
        control_plane: ControlPlane,
        *,
        place: Place | None = None,
        reloading: Reloading | None = None,
        listen: Listener | None = None,
        end: Callable[[], None] = lambda: None,
    ) -> None:
        """
        :param reactor: provides IReactorTCP and IReactorTime; what the tap obtained.
        :param own: secrets of this gateway.
        :param place: which of the gateway's workers this is; None: it has none.
        :param reloading: where to register for settings that are read again.
        :param listen: accepts from a bound socket; None: by the reactor's fastest.
        :param end: stops this process; called when a successor serves.
        :raises ConfigError: no HMAC key.
        """
        place = place if place is not None else Place()
        config = as_worker(config, place)
        self.public: IListeningPort | None = None
        self.secure: list[IListeningPort] = []
        self.local: IListeningPort | None = None
        self._reactor = reactor
        self._config = config
        self._control_plane = control_plane
        self._contact = False
        self._starting: Deferred[None] | None = None
        client = control_plane.client
        endpoints = tcp_endpoints(reactor)
        tls = self._tls = GatewayTLS(reactor, config)
        random = SystemRandom()
        self._routes = RouteCache(config.route_ttl_s)
        self._lookups = Lookups(reactor, client, self._routes)
        self._nodes = Nodes(
            reactor,
            client,
            self._routes,
            ask_health(reactor, endpoints, tls.secure, tls.node_tls),
            random,
        )
        self._figures = Figures()
        self._metrics = Metrics(self._figures)
        self._access: AccessLog | None = None
        if config.access_log:
            self._access = AccessLog(reactor, config.data_dir / "access.log")
        self._tokens = Tokens(config.cluster_id, time.time)
        self._token_keys = TokenKeyQuestions(reactor, client, self._tokens)
        self._shedding = Shedding(
            max_lag_s=config.shed_loop_lag_s, max_share=config.shed_descriptors
        )
        self._watching = LoadWatch(reactor, self._shedding)
        new_id = RequestIds(os.urandom).new
        self._admission = Admission(
            limits=_address_limits(config),
            shedding=self._shedding,
            max_requests=config.max_requests,
            clock=reactor,
            new_id=new_id,
        )
        self._proxy = Proxy(
            gateway_id=config.id,
            key=gateway_key(config, own),
            tenants=_finder(config, self._tokens),
            token_keys=self._token_keys,
            hold_s=config.hold_s,
            clock=reactor,
            random=random,
            unix_ms=lambda: time.time_ns() // 1_000_000,
            new_id=new_id,
            routes=self._routes,
            lookups=self._lookups,
            nodes=self._nodes,
            told=self._told,
            holds=Holds(
                max_per_tenant=place.share(MAX_PER_TENANT), max_total=place.share(MAX_TOTAL)
            ),
            node_tls=tls.node_tls,
            hsts=tls.hsts,
            admission=self._admission,
        )
        self._updates = Updates(
            reactor,
            control_plane.subscriber,
            client,
            self._routes,
            self._nodes,
            self._proxy.moved,
            control_plane.follower.changed,
            self._token_keys.changed,
        )
        self._pool = UpstreamPool(reactor, endpoints, secure=tls.secure)
        limits = Limits(
            max_body_bytes=config.max_body_bytes,
            header_timeout_s=config.header_timeout_s,
            body_idle_s=config.body_idle_s,
            max_connections=descriptors.fit_connections(config.max_connections),
        )
        handler = self._proxy.handle if config.http_redirect == OFF else self._handle
        self._factory = LimitedFactory(
            handler, limits, reactor, pool=self._pool, admission=self._admission
        )
        self._listen = listen if listen is not None else streams_of(reactor).listen
        self._doors: Doors | None = None
        #: Those of endpoint strings: they are nobody's to hand over.
        self._undelivered: list[IListeningPort] = []
        self._remembered = Remembered(
            reactor, config.data_dir, place.number, config.cluster_id, self._routes
        )
        self._entrance = Entrance(reactor, config, place, save=self._remembered.save, end=end)
        self._reloading = reloading
        if reloading is not None:
            self._reload_with(reloading)
        self._watch()

    def _handle(self, exchange: Exchange) -> None:
        location = self._tls.redirects.location(exchange.head)
        if location is None:
            self._proxy.handle(exchange)
        else:
            exchange.respond(308, b"", headers=[(b"Location", location)])

    def _reload_with(self, reloading: Reloading) -> None:
        """What of our settings can change while we run."""
        drains = ("drain_ready_s", "drain_s")
        reloading.register(_Proxied(self._config.id, self._proxy, self._tokens))
        reloading.apply(("route_ttl_s",), lambda new: self._routes.set_ttl(new.config.route_ttl_s))
        reloading.apply(("max_body_bytes", "header_timeout_s", "body_idle_s"), self._use_limits)
        reloading.apply(drains, self._use_drains)
        reloading.register(self._tls)
        if self._control_plane.reload is not None:
            reloading.register(self._control_plane.reload)
        watch = self._metrics.watch
        watch("config_reloads", "Times the configuration was read again", lambda: reloading.done)
        watch("config_reload_failed", "1: the last time it was not used", lambda: reloading.failed)

    def _use_limits(self, new: Parsed[GatewayConfig]) -> None:
        config = new.config
        limits = attrs.evolve(
            self._factory.limits,
            max_body_bytes=config.max_body_bytes,
            header_timeout_s=config.header_timeout_s,
            body_idle_s=config.body_idle_s,
        )
        self._factory.use_limits(limits)

    def _use_drains(self, new: Parsed[GatewayConfig]) -> None:
        drain_ready_s, drain_s = new.config.drain_ready_s, new.config.drain_s
        self._config = attrs.evolve(self._config, drain_ready_s=drain_ready_s, drain_s=drain_s)

    def _watch(self) -> None:
        watch, routes, lookups = self._metrics.watch, self._routes, self._lookups
        watch("active_requests", "Requests under way", lambda: self._proxy.active)
        watch("held_requests", "Requests that wait", lambda: self._proxy.holds.total)
        watch("refused_holds", "Requests refused: too many wait", lambda: self._proxy.holds.refused)
        watch("repeats", "Repeated attempts under way", lambda: self._proxy.budget.taken)
        watch("client_connections", "Open connections", lambda: self._factory.connection_count)
        watch("rejected", "Requests refused unread", lambda: sum(self._factory.rejected.values()))
        watch("pool_idle", "Idle connections to nodes", lambda: self._pool.idle_count)
        watch("pool_made", "Connections made to nodes", lambda: self._pool.made)
        watch("pool_reused", "Requests on an idle connection", lambda: self._pool.reused)
        watch("routes", "Remembered routes", lambda: len(routes))
        watch("route_hits", "Requests that found a route", lambda: routes.hits)
        watch("route_misses", "Requests that found none", lambda: routes.misses)
        watch("lookups", "Questions for routes", lambda: lookups.asked)
        watch("lookups_failed", "Questions without an answer", lambda: lookups.failed)
        watch("routes_stale", "Uses of stale routes", lambda: lookups.stale)
        watch("broadcast_gaps", "Gaps in the broadcasts", lambda: self._updates.gaps)
        if self._access is not None:
            access = self._access
            watch("access_lines_dropped", "Lines that the access log lost", lambda: access.dropped)
        watch("tokens_verified", "Signatures checked", lambda: self._tokens.verified)
        watch("token_key_questions", "Questions for keys", lambda: self._token_keys.asked)
        watch("suspicions", "Nodes reported as unreachable", lambda: self._nodes.suspected)
        watch("redirects", "Requests sent to https", lambda: self._tls.redirects.made)
        self._metrics.registry.register(self._tls)
        shedding = self._shedding
        watch("shedding", "1: new work is refused", lambda: shedding.state is not Overload.NONE)
        watch("loop_lag_seconds", "How late the loop is, smoothed", lambda: shedding.lag_s)
        watch("descriptor_share", "Descriptors in use, 0 to 1", lambda: shedding.share)
        self._metrics.watch_counts(
            "limited",
            "Requests and connections turned away at a limit",
            "reason",
            lambda: self._admission.refused,
        )
        self._metrics.watch_breakers(lambda: self._nodes.breakers.show(self._reactor.seconds()))

    def _told(self, record: Record) -> None:
        """A request is over."""
        self._figures.over(record)
        if self._access is not None:
            self._access.add(record)

    # -- start ------------------------------------------------------------------------------------

    def startService(self) -> None:
        """Start.

        :raises SystemExit: it cannot; one sentence on stderr says why.
        """
        super().startService()
        try:
            self._open()
        except PBClusterError as error:
            log.critical("gateway {id} ends: {reason}", id=self._config.id, reason=error.message)
            # Not sys.stderr: twistd made that a part of the log. Stopping the reactor would not do
            # either: it does not run yet.
            print(f"pbgateway: {error.message}", file=sys.__stderr__, flush=True)
            raise SystemExit(1) from None
        self._starting = Deferred.fromCoroutine(self._tell_ready())
        self._starting.addErrback(self._never_ready)

    def _never_ready(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            log.failure("the gateway serves, but cannot tell that it does", failure=failure)

    def _open(self) -> None:
        """Listen and connect.

        :raises ConfigError: a port cannot be had, or a member's address cannot be used.
        """
        doors = self._doors = self._entrance.doors(self._listen)
        self._remembered.load()
        self.public = self._listen_at(doors, "listen", 0, self._config.listen, self._factory)
        self.secure = self._tls.open(
            self._factory, lambda *door: self._listen_at(doors, "tls_listen", *door)
        )
        pages = local_pages.site(
            registry=self._metrics.registry,
            breakers=self._nodes.breakers,
            routes=self._routes,
            now=self._reactor.seconds,
            not_ready=self._not_ready,
            limits=self._admission.show,
        )
        self.local = doors.open(METRICS, pages)
        self._remembered.start()
        self._control_plane.client.start(_not_for_gateways)
        self._updates.start()
        self._control_plane.follower.start()
        self._token_keys.start()
        self._nodes.start()
        self._watching.start()

    async def _tell_ready(self) -> None:
        await self._first_contact()
        assert self.public is not None
        assert self.local is not None
        where = self._config.listen
        with_tls = isinstance(where, str) and where.startswith("pbtls:")
        gateway = url_of(self.public, "https" if with_tls else "http")
        metrics = url_of(self.local, "http")
        secure = [url_of(port, "https") for port in self.secure]
        self._entrance.serves(self._doors, gateway=gateway, tls=secure, metrics=metrics)
        urls = ", ".join([gateway, *secure])
        log.info("gateway {id} serves at {urls}", id=self._config.id, urls=urls)

    def _listen_at(
        self, doors: Doors, option: str, number: int, where: Where, factory: Any
    ) -> IListeningPort:
        """Listen at one address of a setting. :raises ConfigError: it cannot be had."""
        if not isinstance(where, str):
            return doors.open(door_name(option, number), factory)
        port = endpoint_strings.listen(self._reactor, where, factory, option.replace("_", "-"))
        self._undelivered.append(port)
        return port

    async def _first_contact(self) -> None:
        wait_s = WARM_CONTACT_WAIT_S if len(self._routes) else CONTACT_WAIT_S
        until = self._reactor.seconds() + wait_s
        while not self._contact and self._reactor.seconds() < until:
            try:
                await self._control_plane.client.ask(
                    SnapshotRequest(()), timeout_s=CONTACT_TIMEOUT_S, any_member=True
                )
                self._contact = True
            except PBClusterError as error:
                log.info("no contact with the control plane yet: {error}", error=error.message)
                await deferLater(self._reactor, CONTACT_AGAIN_S)

    def _not_ready(self) -> list[str]:
        reasons = []
        if not self.running:
            reasons.append("it is being stopped")
        never = not (self._contact or self._updates.received or self._lookups.asked)
        if never and not len(self._routes):
            reasons.append("no contact with the control plane yet")
        return reasons

    # -- end --------------------------------------------------------------------------------------

    def stopService(self) -> Deferred[None]:
        """Drain, then close; fires when all is closed, within both drains' time and a little."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
        self._entrance.leaves()
        self._remembered.stop()
        self._factory.begin_drain(QUIET_S)
        doors = self._doors
        if doors is not None:
            if not self._entrance.handed_over:
                await deferLater(self._reactor, self._config.drain_ready_s)
            await doors.close_public()
        for port in self._undelivered:
            await maybeDeferred(port.stopListening)
        self._tls.stop()
        self._entrance.closes()
        await self._factory.drain(self._config.drain_s)
        self._watching.stop()
        self._nodes.stop()
        self._token_keys.stop()
        self._control_plane.follower.stop()
        self._updates.stop()
        self._control_plane.client.stop()
        self._pool.close()
        if doors is not None:
            await doors.close()
        self._control_plane.close()
        if self._access is not None:
            self._access.close()


class _Proxied:
    """The settings that concern how requests are passed on; the HMAC key comes with them."""

    live = frozenset(("base_domains", "trusted_networks", "hold_s"))

    def __init__(self, gateway_id: str, proxy: Proxy, tokens: Tokens) -> None:
        self._id = gateway_id
        self._tokens = tokens
        self._proxy = proxy

    def prepare(self, parsed: Parsed[GatewayConfig]) -> Callable[[], None]:
        """As ``reloading.Reloadable``. :raises ConfigError: the secrets hold no key of ours."""
        config = attrs.evolve(parsed.config, id=self._id)
        key = gateway_key(config, parsed.secrets)
        return lambda: self._proxy.use(
            tenants=_finder(config, self._tokens), hold_s=config.hold_s, key=key
        )


def _finder(config: GatewayConfig, tokens: Tokens) -> TenantFinder:
    return TenantFinder(config.base_domains, tokens, TrustedNetworks(config.trusted_networks))


def _address_limits(config: GatewayConfig) -> AddressLimits:
    quota = AddressQuota(
        requests_per_second=config.requests_per_second_per_address,
        burst=config.burst_per_address,
        requests=config.requests_per_address,
        connections=config.connections_per_address,
    )
    return AddressLimits(quota, exempt=config.limit_exempt_networks)


async def _not_for_gateways(asked: Asked, body: Body) -> Body:
    """Nothing is asked of gateways so far."""
    raise RemoteProtocolError(f"{type(body).__name__} is not asked of a gateway")
