"""What a gateway is made of: every part, made once from its settings, and joined to the others.

Making them opens nothing and starts nothing; ``service`` does that, in order, and ends them. What
they count and hold is shown by the metrics, which are joined here too.
"""

from __future__ import annotations

import os
import time
from random import SystemRandom
from typing import Any

import attrs

from pbcluster import descriptors
from pbcluster.config import GatewayConfig, Secrets
from pbcluster.gateway.access_log import AccessLog
from pbcluster.gateway.admission import Admission, LoadWatch
from pbcluster.gateway.breakers import Shown
from pbcluster.gateway.figures import Figures
from pbcluster.gateway.health import ask_health
from pbcluster.gateway.holds import MAX_PER_TENANT, MAX_TOTAL, Holds
from pbcluster.gateway.limited_factory import LimitedFactory
from pbcluster.gateway.limits import AddressLimits, AddressQuota
from pbcluster.gateway.lookups import Lookups
from pbcluster.gateway.metrics import Metrics
from pbcluster.gateway.nodes import Nodes
from pbcluster.gateway.proxy import Proxy
from pbcluster.gateway.proxy_settings import gateway_key, tenant_finder
from pbcluster.gateway.redirects import OFF
from pbcluster.gateway.reloading import Reloadable
from pbcluster.gateway.request_ids import RequestIds
from pbcluster.gateway.routes import RouteCache
from pbcluster.gateway.shedding import Overload, Shedding
from pbcluster.gateway.telling import Telling
from pbcluster.gateway.tls import GatewayTLS
from pbcluster.gateway.token_keys import TokenKeyQuestions
from pbcluster.gateway.tokens import Tokens
from pbcluster.gateway.updates import Updates
from pbcluster.gateway.worker import Place
from pbcluster.transport.following import Follower
from pbcluster.transport.interfaces import ControlPlaneClient, Subscriber
from pbcluster.wall_clock import unix_ms
from pbcluster.web.interfaces import Exchange
from pbcluster.web.limits import Limits
from pbcluster.web.pool import UpstreamPool, tcp_endpoints


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


class Assembly:
    """The parts of one process of a gateway; each is documented where its class is."""

    def __init__(
        self,
        reactor: Any,
        config: GatewayConfig,
        own: Secrets,
        control_plane: ControlPlane,
        place: Place,
    ) -> None:
        """
        :param reactor: provides IReactorTCP and IReactorTime.
        :param own: secrets of this gateway. :param place: which of its processes this is.
        :raises ConfigError: no signing key, or files that the settings name cannot be used.
        """
        self._reactor = reactor
        self._random = SystemRandom()
        self._new_id = RequestIds(os.urandom).new
        self.tls = GatewayTLS(reactor, config)
        client = control_plane.client
        endpoints = tcp_endpoints(reactor)
        self.routes = RouteCache(config.route_ttl_s)
        self.lookups = Lookups(reactor, client, self.routes)
        health = ask_health(reactor, endpoints, self.tls.secure, self.tls.node_tls)
        self.nodes = Nodes(reactor, client, self.routes, health, self._random)
        self.tokens = Tokens(config.cluster_id, time.time)
        self.token_keys = TokenKeyQuestions(reactor, client, self.tokens)
        self.figures = Figures()
        self.metrics = Metrics(self.figures)
        self.access: AccessLog | None = None
        if config.access_log:
            # Workers write files of their own: each puts its full ones aside by itself.
            name = f"access-{place.number}.log" if place.is_worker else "access.log"
            self.access = AccessLog(reactor, config.data_dir / name)
        self.shedding = Shedding(
            max_lag_s=config.shed_loop_lag_s, max_share=config.shed_descriptors
        )
        self.watching = LoadWatch(reactor, self.shedding)
        self.admission = self._make_admission(config)
        self.proxy = self._make_proxy(config, own, place)
        self.updates = Updates(
            reactor,
            control_plane.subscriber,
            client,
            self.routes,
            self.nodes,
            self.proxy.moved,
            control_plane.follower.changed,
            self.token_keys.changed,
            self.proxy.confirmed,
        )
        self.pool = UpstreamPool(reactor, endpoints, secure=self.tls.secure)
        self.factory = self._make_factory(config)
        self._watch()

    def _make_admission(self, config: GatewayConfig) -> Admission:
        quota = AddressQuota(
            requests_per_second=config.requests_per_second_per_address,
            burst=config.burst_per_address,
            requests=config.requests_per_address,
            connections=config.connections_per_address,
        )
        return Admission(
            limits=AddressLimits(quota, exempt=config.limit_exempt_networks),
            shedding=self.shedding,
            max_requests=config.max_requests,
            clock=self._reactor,
            new_id=self._new_id,
        )

    def _make_proxy(self, config: GatewayConfig, own: Secrets, place: Place) -> Proxy:
        return Proxy(
            gateway_id=config.id,
            key=gateway_key(config, own),
            tenants=tenant_finder(config, self.tokens),
            token_keys=self.token_keys,
            hold_s=config.hold_s,
            clock=self._reactor,
            random=self._random,
            unix_ms=unix_ms,
            new_id=self._new_id,
            routes=self.routes,
            lookups=self.lookups,
            nodes=self.nodes,
            told=Telling(self.figures, self.access).over,
            holds=Holds(
                max_per_tenant=place.share(MAX_PER_TENANT), max_total=place.share(MAX_TOTAL)
            ),
            node_tls=self.tls.node_tls,
            hsts=self.tls.hsts,
            admission=self.admission,
        )

    def _make_factory(self, config: GatewayConfig) -> LimitedFactory:
        limits = Limits(
            max_body_bytes=config.max_body_bytes,
            header_timeout_s=config.header_timeout_s,
            body_idle_s=config.body_idle_s,
            max_connections=descriptors.fit_connections(config.max_connections),
        )
        handler = self.proxy.handle if config.http_redirect == OFF else self._handle
        return LimitedFactory(
            handler, limits, self._reactor, pool=self.pool, admission=self.admission
        )

    # -- requests ---------------------------------------------------------------------------------

    def _handle(self, exchange: Exchange) -> None:
        location = self.tls.redirects.location(exchange.head)
        if location is None:
            self.proxy.handle(exchange)
        else:
            exchange.respond(308, b"", headers=[(b"Location", location)])

    def breakers(self, now: float) -> list[Shown]:
        """All breakers, of nodes and of tenants, as operators see them."""
        return self.nodes.breakers.show(now) + self.proxy.tenant_breakers.show(now)

    # -- figures ----------------------------------------------------------------------------------

    def _watch(self) -> None:
        watch, routes, lookups = self.metrics.watch, self.routes, self.lookups
        watch("active_requests", "Requests under way", lambda: self.proxy.active)
        watch("held_requests", "Requests that wait", lambda: self.proxy.holds.total)
        watch("moving_tenants", "Tenants held while they move", lambda: len(self.proxy.moving))
        watch("refused_holds", "Requests refused: too many wait", lambda: self.proxy.holds.refused)
        watch("repeats", "Repeated attempts under way", lambda: self.proxy.budget.taken)
        watch("client_connections", "Open connections", lambda: self.factory.connection_count)
        watch("rejected", "Requests refused unread", lambda: sum(self.factory.rejected.values()))
        watch("pool_idle", "Idle connections to nodes", lambda: self.pool.idle_count)
        watch("pool_made", "Connections made to nodes", lambda: self.pool.made)
        watch("pool_reused", "Requests on an idle connection", lambda: self.pool.reused)
        watch("routes", "Remembered routes", lambda: len(routes))
        watch("route_hits", "Requests that found a route", lambda: routes.hits)
        watch("route_misses", "Requests that found none", lambda: routes.misses)
        watch("lookups", "Questions for routes", lambda: lookups.asked)
        watch("lookups_failed", "Questions without an answer", lambda: lookups.failed)
        watch("routes_stale", "Uses of stale routes", lambda: lookups.stale)
        watch("broadcast_gaps", "Gaps in the broadcasts", lambda: self.updates.gaps)
        self._watch_edges()

    def _watch_edges(self) -> None:
        watch = self.metrics.watch
        if self.access is not None:
            access = self.access
            watch("access_lines_dropped", "Lines that the access log lost", lambda: access.dropped)
        watch("tokens_verified", "Signatures checked", lambda: self.tokens.verified)
        watch("token_key_questions", "Questions for keys", lambda: self.token_keys.asked)
        watch("suspicions", "Nodes reported as unreachable", lambda: self.nodes.suspected)
        watch("redirects", "Requests sent to https", lambda: self.tls.redirects.made)
        self.metrics.registry.register(self.tls)
        shedding = self.shedding
        watch("shedding", "1: new work is refused", lambda: shedding.state is not Overload.NONE)
        watch("loop_lag_seconds", "How late the loop is, smoothed", lambda: shedding.lag_s)
        watch("descriptor_share", "Descriptors in use, 0 to 1", lambda: shedding.share)
        self.metrics.watch_counts(
            "limited",
            "Requests and connections turned away at a limit",
            "reason",
            lambda: self.admission.refused,
        )
        watch(
            "tenant_breakers_open",
            "Tenants to which no request is sent, or a probe, since they did not answer",
            lambda: self.proxy.tenant_breakers.not_closed,
        )
        self.metrics.watch_breakers(lambda: self.nodes.breakers.show(self._reactor.seconds()))
