"""A node as a Twisted service: starts its parts in order, ends them in the reverse.

Start: listen (answering "starting"), check the binaries, end orphans of a former life, wait for S3,
test what ownership rests on and whose the bucket is, start Litestream, register, serve. A node
whose S3 is away stays up, says so, and serves when it comes. End: let running tenants go to other
nodes within a bound (``leaving``), then take nothing new, let requests finish within a bound, stop
every tenant that is left with a last sync, then Litestream. Of those nothing is reported at an end:
the assignments stay, and a restart resumes the copies. A node whose cluster is not the bucket's any
more answers nothing from that moment on, and ends.

What it is made of stands in ``assembly``, what it says of itself in ``figures``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from pbcluster import compiled, ready_file
from pbcluster.config import NodeConfig, Secrets
from pbcluster.ending import end_process
from pbcluster.errors import PBClusterError, S3Unavailable
from pbcluster.generations import ForeignBucket
from pbcluster.node.assembly import Assembly
from pbcluster.node.figures import Figures
from pbcluster.node.heartbeat import Standing
from pbcluster.node.leaving import leave, running
from pbcluster.node.loop_lag import LoopLag
from pbcluster.node.machine import boottime
from pbcluster.node.parts import pause
from pbcluster.node.ports import Ports
from pbcluster.node.shells import MakeShells
from pbcluster.node.status_page import StatusPage
from pbcluster.options import Parsed
from pbcluster.rereading import Rereading
from pbcluster.transport.sockets import Sockets

#: After SIGTERM open requests may finish within this time.
DRAIN_S = 10.0
#: While S3 is away it is asked again after so long.
S3_RETRY_S = 1.0
#: … and the log says so again after so many tries.
S3_TELL_EVERY = 30

log = Logger()


class NodeService(Service):
    """One node."""

    name = "pbcluster node"

    def __init__(
        self,
        reactor: Any,
        config: NodeConfig,
        secrets_: Secrets,
        sockets: Sockets,
        make_shells: MakeShells,
        again: Callable[[], Parsed[NodeConfig]] | None = None,
    ) -> None:
        """
        :param reactor: TCP, time, threads, processes and descriptors; what the tap obtained.
        :param again: reads the secrets again; None: they stay.
        :raises ConfigError: a secret is missing.
        """
        self._reactor = reactor
        self._config = config
        self._sockets = sockets
        self._made = Assembly(
            reactor,
            config,
            secrets_,
            sockets,
            make_shells,
            incarnation=self._incarnation,
            superseded=self._superseded,
        )
        self._lag = LoopLag(reactor, boottime)
        self._rereading = None if again is None else Rereading(again, self._use)
        self._figures = Figures(
            self._made,
            self._lag,
            self._gaps,
            dict if self._rereading is None else self._rereading.figures,
        )
        self._ports = Ports(reactor)
        self._phase = "starting"
        self._stopping = False
        self._fenced = False
        self._standing: Standing | None = None

    def _incarnation(self) -> int:
        return self._standing.incarnation if self._standing is not None else 0

    def _gaps(self) -> int:
        return self._standing.gaps if self._standing is not None else 0

    # -- start --

    def startService(self) -> None:
        """Start; what cannot be started ends the process with one sentence."""
        super().startService()
        ready_file.remove(self._config.data_dir)
        started = Deferred.fromCoroutine(self._start())
        started.addErrback(self._cannot_start)

    def _cannot_start(self, failure: Any) -> None:
        if failure.check(PBClusterError):
            reason = str(failure.value)
        else:
            log.failure("the node cannot start", failure)
            reason = f"internal error: {failure.value}"
        end_process(self._reactor, "pbnode", reason)

    async def _start(self) -> None:
        made, config = self._made, self._config
        made.durations.check()
        metrics_url = self._ports.listen(
            self._status_page().handle, config.metrics_listen, "metrics-listen"
        )
        url = self._ports.listen(made.front.handle, config.listen, "listen", made.tls)
        self._lag.start()
        await made.shells.prepare()
        if made.shells.isolation is not None:
            made.metrics.isolated(made.shells.isolation.report())
        made.warming.clear()
        await self._wait_for_s3()
        if self._stopping:
            return
        made.generation.start()
        if made.shells.files is not None:
            made.shells.files.start()
        self._phase = "starting Litestream"
        await made.shells.replication.start()
        if self._stopping or self._fenced:
            return
        self._phase = "waiting for the control plane"
        await self._register(config.advertise or url)
        if self._stopping or self._fenced:
            return
        made.front.starting = False
        self._phase = ""
        ready_file.write(config.data_dir, node=url, metrics=metrics_url)
        log.info(
            "node {id} serves at {url} (pbcluster {version})",
            id=config.id,
            url=url,
            version=compiled.version(),
        )

    def _status_page(self) -> StatusPage:
        isolation = self._made.shells.isolation
        return StatusPage(
            not_ready=self.not_ready,
            metrics=self._figures.metrics,
            isolation=isolation.report if isolation is not None else dict,
        )

    async def _register(self, address: str) -> None:
        """Begin to hear and obey the control plane; returns once it knows this node."""
        made = self._made
        standing = self._standing = made.make_standing(
            address,
            condition=self._figures.condition,
            found=self._figures.found,
            removed=self._removed,
        )
        made.client.start(standing.handle)
        made.follower.start()
        made.tenants.start()
        made.storage.start()
        made.housekeeping.start()
        await standing.start()

    async def _wait_for_s3(self) -> None:
        tries = 0
        while not self._stopping:
            try:
                await self._made.shells.claims.check()
                await self._made.generation.enter()
                return
            except S3Unavailable as error:
                self._phase = f"waiting for S3 at {self._config.s3_endpoint}: {error}"
                if tries % S3_TELL_EVERY == 0:
                    log.warn("node {id} is {phase}", id=self._config.id, phase=self._phase)
            tries += 1
            await pause(self._reactor, S3_RETRY_S)

    def _removed(self, why: str) -> None:
        """An operator removed this node: what it has is synced as at any end, then it is gone."""
        self._fenced = True
        log.critical("the control plane does not let this node in: {why}", why=why)
        end_process(self._reactor, "pbnode", why)

    def _superseded(self, error: ForeignBucket) -> None:
        """The bucket belongs to another cluster now: answer nothing from here on, then end.

        Connections are cut, since what PocketBase was asked before may come back after this.
        Nobody is told anything: the control plane that this node knows is not to be obeyed.
        """
        self._fenced = self._made.front.draining = True
        self._made.parts.proofs.give_up()
        try:
            self._ports.abort_all()
            self._made.reports.stop()
            if self._standing is not None:
                self._standing.stop()
                self._made.client.stop()
            for tenant in self._made.tenants:
                tenant.fence("the bucket belongs to another cluster", None)
        finally:
            end_process(self._reactor, "pbnode", str(error))

    def reload(self) -> None:
        """Read again what may change while it runs: the node's certificate, gateways' keys."""
        if self._made.tls is not None:
            self._made.tls.mutual.reload()
        if self._rereading is not None:
            self._rereading.reload()

    def _use(self, new: Parsed[NodeConfig]) -> None:
        self._made.gateway_keys.use(new.secrets)

    # -- what it says of itself --

    def not_ready(self) -> list[str]:
        """Why requests are not served now; empty if they are."""
        reasons = [self._phase] if self._phase else []
        if self._made.front.draining:
            reasons.append("being stopped")
        if not self._made.tenants.replication_up:
            reasons.append("Litestream does not run")
        return reasons

    # -- end --

    def stopService(self) -> Deferred[None]:
        """Stop; fires when everything ended."""
        super().stopService()
        ready_file.leave(self._config.data_dir)
        return Deferred.fromCoroutine(self._stop())

    async def _leave(self) -> None:
        """Serve on while the tenants go elsewhere, within the bound of ``drain_on_stop_s``."""
        standing, tenants = self._standing, self._made.tenants
        if standing is None or not standing.incarnation or self._fenced:
            return
        limit_s = self._config.drain_on_stop_s
        await leave(self._reactor, standing.announce_leaving, lambda: running(tenants), limit_s)

    async def _stop(self) -> None:
        await self._leave()
        self._stopping = self._made.front.draining = True
        self._lag.stop()
        self._made.generation.stop()
        self._made.storage.stop()
        self._made.housekeeping.stop()
        standing = self._standing
        if standing is not None and not self._fenced:
            await standing.announce_draining()
        await self._made.tenants.stop(drain_s=0.0 if self._fenced else DRAIN_S)
        try:
            await self._made.shells.replication.stop()
        except PBClusterError as error:
            log.error("Litestream did not end well: {error}", error=error)
        if self._made.shells.files is not None:
            await self._made.shells.files.stop()
        self._made.reports.stop()
        if standing is not None:
            standing.stop()
            self._made.follower.stop()
            self._made.client.stop()
        if self._made.tls is not None:
            self._made.tls.stop()
        await self._ports.close()
        self._made.shells.close()
        self._sockets.close()
