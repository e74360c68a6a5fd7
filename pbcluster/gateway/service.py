"""A gateway as a Twisted service: starts its parts in order, drains before it ends.

It listens at once, and says that it is ready after its first contact with the control plane, or
after ``CONTACT_WAIT_S`` without one: it serves what it can, from routes that it saved before.

Its end: at once ``/readyz`` answers 503 and answers end their connections; after ``drain_ready_s``,
when load balancers know, no connection is accepted any more; requests under way get ``drain_s``,
then what is left is cut (event streams never end by themselves). Only then it lets go of the
control plane: held requests need it. If a successor has its sockets, the first step is left out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from pbcluster import compiled
from pbcluster.config import GatewayConfig, Secrets
from pbcluster.errors import PBClusterError
from pbcluster.gateway import local_pages
from pbcluster.gateway.assembly import Assembly, ControlPlane
from pbcluster.gateway.doors import METRICS, Doors, door_name
from pbcluster.gateway.entrance import Entrance, as_worker
from pbcluster.gateway.proxy_settings import ProxySettings
from pbcluster.gateway.reloading import Reloading
from pbcluster.gateway.remembered import Remembered
from pbcluster.gateway.worker import Place
from pbcluster.options import Parsed
from pbcluster.web import endpoint_strings
from pbcluster.web.endpoint_strings import Where, url_of
from pbcluster.web.listening import Listener
from pbcluster.web.streams import streams_of
from pbcluster.wire import SnapshotRequest

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
        :raises ConfigError: no signing key.
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
        made = self._made = Assembly(reactor, config, own, control_plane, place)
        self._listen = listen if listen is not None else streams_of(reactor).listen
        self._doors: Doors | None = None
        #: Those of endpoint strings: they are nobody's to hand over.
        self._undelivered: list[IListeningPort] = []
        self._remembered = Remembered(
            reactor, config.data_dir, place.number, config.cluster_id, made.routes
        )
        self._entrance = Entrance(reactor, config, place, save=self._remembered.save, end=end)
        self._reloading = reloading
        if reloading is not None:
            self._reload_with(reloading)

    def _reload_with(self, reloading: Reloading) -> None:
        """What of our settings can change while we run."""
        drains = ("drain_ready_s", "drain_s")
        reloading.register(ProxySettings(self._config.id, self._made.proxy, self._made.tokens))
        routes, access = self._made.routes, self._made.access
        reloading.apply(("route_ttl_s",), lambda new: routes.set_ttl(new.config.route_ttl_s))
        reloading.apply(("max_body_bytes", "header_timeout_s", "body_idle_s"), self._use_limits)
        reloading.apply(drains, self._use_drains)
        reloading.register(self._made.tls)
        if access is not None:
            # Whoever rotates logs moves the file and sends SIGHUP.
            reloading.apply((), lambda _: access.reopen())
        if self._control_plane.reload is not None:
            reloading.register(self._control_plane.reload)
        watch = self._made.metrics.watch
        watch("config_reloads", "Times the configuration was read again", lambda: reloading.done)
        watch("config_reload_failed", "1: the last time it was not used", lambda: reloading.failed)

    def _use_limits(self, new: Parsed[GatewayConfig]) -> None:
        config = new.config
        limits = attrs.evolve(
            self._made.factory.limits,
            max_body_bytes=config.max_body_bytes,
            header_timeout_s=config.header_timeout_s,
            body_idle_s=config.body_idle_s,
        )
        self._made.factory.use_limits(limits)

    def _use_drains(self, new: Parsed[GatewayConfig]) -> None:
        drain_ready_s, drain_s = new.config.drain_ready_s, new.config.drain_s
        self._config = attrs.evolve(self._config, drain_ready_s=drain_ready_s, drain_s=drain_s)

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
        self.public = self._listen_at(doors, "listen", 0, self._config.listen, self._made.factory)
        self.secure = self._made.tls.open(
            self._made.factory, lambda *door: self._listen_at(doors, "tls_listen", *door)
        )
        pages = local_pages.site(
            registry=self._made.metrics.registry,
            breakers=self._made.breakers,
            routes=self._made.routes,
            now=self._reactor.seconds,
            not_ready=self._not_ready,
            limits=self._made.admission.show,
        )
        self.local = doors.open(METRICS, pages)
        self._remembered.start()
        self._control_plane.client.start(self._made.proxy.asked)
        self._made.updates.start()
        self._control_plane.follower.start()
        self._made.token_keys.start()
        self._made.nodes.start()
        self._made.watching.start()

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
        log.info(
            "gateway {id} serves at {urls} (pbcluster {version})",
            id=self._config.id,
            urls=urls,
            version=compiled.version(),
        )

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
        wait_s = WARM_CONTACT_WAIT_S if len(self._made.routes) else CONTACT_WAIT_S
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
        never = not (self._contact or self._made.updates.received or self._made.lookups.asked)
        if never and not len(self._made.routes):
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
        self._made.factory.begin_drain(QUIET_S)
        doors = self._doors
        if doors is not None:
            if not self._entrance.handed_over:
                await deferLater(self._reactor, self._config.drain_ready_s)
            await doors.close_public()
        for port in self._undelivered:
            await maybeDeferred(port.stopListening)
        self._made.tls.stop()
        self._entrance.closes()
        await self._made.factory.drain(self._config.drain_s)
        self._made.watching.stop()
        self._made.nodes.stop()
        self._made.token_keys.stop()
        self._control_plane.follower.stop()
        self._made.updates.stop()
        self._control_plane.client.stop()
        self._made.pool.close()
        if doors is not None:
            await doors.close()
        self._control_plane.close()
        if self._made.access is not None:
            self._made.access.close()
