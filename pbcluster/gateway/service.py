"""A gateway as a Twisted service: starts its parts in order, drains before it ends.

It listens at once, and says that it is ready after its first contact with the control plane, or
after ``CONTACT_WAIT_S`` without one: it serves what it can. At its end it takes no new connections,
lets requests under way finish within ``DRAIN_S``, cuts what is left (event streams never end by
themselves) and only then lets go of the control plane: held requests need it.
"""

from __future__ import annotations

import secrets
import sys
import time
from random import SystemRandom
from typing import Any, cast

import attrs
from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from pbcluster import descriptors, ready_file
from pbcluster.config import GatewayConfig, Secrets
from pbcluster.errors import ConfigError, PBClusterError, RemoteProtocolError
from pbcluster.gateway import local_pages
from pbcluster.gateway.admission import Admission, LoadWatch
from pbcluster.gateway.health import ask_health
from pbcluster.gateway.limits import AddressLimits, AddressQuota
from pbcluster.gateway.listening import LimitedFactory
from pbcluster.gateway.lookups import Lookups
from pbcluster.gateway.metrics import Metrics
from pbcluster.gateway.nodes import Nodes
from pbcluster.gateway.proxy import Proxy
from pbcluster.gateway.routes import RouteCache
from pbcluster.gateway.shedding import Overload, Shedding
from pbcluster.gateway.updates import Updates
from pbcluster.transport.following import Follower
from pbcluster.transport.interfaces import Asked, ControlPlaneClient, Subscriber
from pbcluster.web.limits import Limits
from pbcluster.web.pool import UpstreamPool, tcp_endpoints
from pbcluster.wire import Body, SnapshotRequest

#: Without contact for so long the gateway says that it is ready all the same.
CONTACT_WAIT_S = 5.0
CONTACT_TIMEOUT_S = 1.0
CONTACT_AGAIN_S = 0.1
#: Requests under way may finish within this time.
DRAIN_S = 10.0
#: Connections that the kernel keeps for us while the loop is busy.
BACKLOG = 4096

log = Logger()


@attrs.frozen
class ControlPlane:
    """How a gateway reaches the control plane.

    :ivar follower: keeps the sessions of the first two in step with who the members are.
    :ivar close: lets go of all sockets.
    """

    client: ControlPlaneClient
    subscriber: Subscriber
    follower: Follower
    close: Any


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

    :ivar public: the public listener's port. :ivar local: the metrics listener's.
    """

    name = "pbcluster gateway"

    def __init__(
        self, reactor: Any, config: GatewayConfig, own: Secrets, control_plane: ControlPlane
    ) -> None:
        """
        :param reactor: provides IReactorTCP and IReactorTime; what the tap obtained.
        :param own: secrets of this gateway.
        :raises ConfigError: no HMAC key.
        """
        self.public: IListeningPort | None = None
        self.local: IListeningPort | None = None
        self._reactor = reactor
        self._config = config
        self._control_plane = control_plane
        self._contact = False
        self._starting: Deferred[None] | None = None
        client = control_plane.client
        endpoints = tcp_endpoints(reactor)
        random = SystemRandom()
        self._routes = RouteCache(config.route_ttl_s)
        self._lookups = Lookups(reactor, client, self._routes)
        self._nodes = Nodes(reactor, client, self._routes, ask_health(reactor, endpoints), random)
        self._metrics = Metrics()
        self._shedding = Shedding(
            max_lag_s=config.shed_loop_lag_s, max_share=config.shed_descriptors
        )
        self._watching = LoadWatch(reactor, self._shedding)
        self._admission = Admission(
            limits=_address_limits(config),
            shedding=self._shedding,
            max_requests=config.max_requests,
            clock=reactor,
            new_id=_new_id,
        )
        self._proxy = Proxy(
            gateway_id=config.id,
            key=gateway_key(config, own),
            base_domains=config.base_domains,
            hold_s=config.hold_s,
            clock=reactor,
            random=random,
            unix_ms=lambda: time.time_ns() // 1_000_000,
            new_id=_new_id,
            routes=self._routes,
            lookups=self._lookups,
            nodes=self._nodes,
            told=self._metrics.over,
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
        )
        self._pool = UpstreamPool(reactor, endpoints)
        self._factory = LimitedFactory(
            self._proxy.handle,
            Limits(
                max_body_bytes=config.max_body_bytes,
                max_connections=descriptors.fit_connections(config.max_connections),
            ),
            reactor,
            pool=self._pool,
            admission=self._admission,
        )
        self._watch()

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
        watch("suspicions", "Nodes reported as unreachable", lambda: self._nodes.suspected)
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

    # -- start ------------------------------------------------------------------------------------

    def startService(self) -> None:
        """Start.

        :raises SystemExit: it cannot; one sentence on stderr says why.
        """
        super().startService()
        ready_file.remove(self._config.data_dir)
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
        config = self._config
        self.public = self._listen(config.listen, cast(Any, self._factory), "listen")
        pages = local_pages.site(
            registry=self._metrics.registry,
            breakers=self._nodes.breakers,
            routes=self._routes,
            now=self._reactor.seconds,
            not_ready=self._not_ready,
            limits=self._admission.show,
        )
        self.local = self._listen(config.metrics_listen, pages, "metrics-listen")
        self._control_plane.client.start(_not_for_gateways)
        self._updates.start()
        self._control_plane.follower.start()
        self._nodes.start()
        self._watching.start()

    async def _tell_ready(self) -> None:
        await self._first_contact()
        assert self.public is not None
        assert self.local is not None
        gateway, metrics = _url(self.public), _url(self.local)
        ready_file.write(self._config.data_dir, gateway=gateway, metrics=metrics)
        log.info("gateway {id} serves at {url}", id=self._config.id, url=gateway)

    def _listen(self, address: tuple[str, int], factory: Any, option: str) -> IListeningPort:
        host, port = address
        try:
            listening: IListeningPort = self._reactor.listenTCP(
                port, factory, backlog=BACKLOG, interface=host
            )
        except CannotListenError as error:
            raise ConfigError(
                f"cannot listen at {host}:{port} (--{option}): {error.socketError.strerror}"
            ) from None
        return listening

    async def _first_contact(self) -> None:
        until = self._reactor.seconds() + CONTACT_WAIT_S
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
        """Drain, then close; fires when all is closed, within ``DRAIN_S`` and a little."""
        super().stopService()
        ready_file.remove(self._config.data_dir)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
        if self.public is not None:
            await maybeDeferred(self.public.stopListening)
        await self._factory.drain(DRAIN_S)
        self._watching.stop()
        self._nodes.stop()
        self._control_plane.follower.stop()
        self._updates.stop()
        self._control_plane.client.stop()
        self._pool.close()
        if self.local is not None:
            await maybeDeferred(self.local.stopListening)
        self._control_plane.close()


def _new_id() -> str:
    return secrets.token_hex(16)


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


def _url(port: IListeningPort) -> str:
    where = cast(IPv4Address | IPv6Address, port.getHost())
    host = f"[{where.host}]" if ":" in where.host else where.host
    return f"http://{host}:{where.port}"
