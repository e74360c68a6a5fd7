"""A node as a Twisted service: starts its parts in order, ends them in the reverse.

Start: listen (answering "starting"), check the binaries, end orphans of a former life, wait for S3,
test what ownership rests on and whose the bucket is, start Litestream, register, serve. A node
whose S3 is away stays up, says so, and serves when it comes. End: take nothing new, let requests
finish within a bound, stop every tenant with a last sync, then Litestream. Nothing is reported at
an end: the assignments stay, and a restart resumes the copies. A node whose cluster is not the
bucket's any more answers nothing from that moment on, and ends.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from random import SystemRandom
from typing import Any, cast

import attrs
from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from pbcluster import descriptors, ready_file, signing
from pbcluster.config import NodeConfig, Secrets
from pbcluster.durations import Durations
from pbcluster.ending import end_process
from pbcluster.errors import ConfigError, PBClusterError, S3Unavailable
from pbcluster.generations import ForeignBucket
from pbcluster.node.front import Front
from pbcluster.node.front_tls import FrontTLS
from pbcluster.node.gates import Gates
from pbcluster.node.gateway_keys import GatewayKeys
from pbcluster.node.generations import GenerationWatch
from pbcluster.node.handing_over import HandingOver
from pbcluster.node.heartbeat import Condition, NodeFacts, Standing
from pbcluster.node.housekeeping import Housekeeping, Keeping
from pbcluster.node.lifecycle import PRESENT, State
from pbcluster.node.machine import boottime, encryption_key, random_word, utc_now
from pbcluster.node.operators import Operators
from pbcluster.node.orders import Orders
from pbcluster.node.outages import NodeOutages
from pbcluster.node.parts import NodeParts, pause, spawn
from pbcluster.node.proofs import Proofs
from pbcluster.node.quotas import Defaults, Quotas
from pbcluster.node.reports import Reports
from pbcluster.node.resources import Resources, is_short
from pbcluster.node.shells import MakeShells
from pbcluster.node.status_page import Metrics, StatusPage
from pbcluster.node.storage import Storage
from pbcluster.node.streams import Streams
from pbcluster.node.tenants import Tenants
from pbcluster.node.warming import WarmFiles, Warming
from pbcluster.records import NodeStatus
from pbcluster.transport.addresses import member_addresses
from pbcluster.transport.control_plane_client import ZmqControlPlaneClient
from pbcluster.transport.following import MemberFollower
from pbcluster.transport.sockets import Sockets
from pbcluster.web.interfaces import RequestHandler
from pbcluster.web.limits import HeadLimits, Limits
from pbcluster.web.pool import UpstreamPool, tcp_endpoints
from pbcluster.web.server import HTTPServerFactory
from pbcluster.web.streams import listen_alone, streams_of

#: After SIGTERM open requests may finish within this time.
DRAIN_S = 10.0
#: While S3 is away it is asked again after so long.
S3_RETRY_S = 1.0
#: … and the log says so again after so many tries.
S3_TELL_EVERY = 30
#: The gateway bounds heads and bodies; what it lets through, with what it adds, is let in here. It
#: closes idle connections before the node does, so that no request meets a closing one.
LIMITS = Limits(
    head=HeadLimits(fields_bytes=24 * 1024, fields=128), max_body_bytes=2**40, keep_alive_s=90.0
)
#: A loop that runs so late makes a node degraded.
MAX_LOOP_LAG_S = 0.25
LAG_INTERVAL_S = 0.5

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
    ) -> None:
        """
        :param reactor: TCP, time, threads, processes and descriptors; what the tap obtained.
        :raises ConfigError: a secret is missing.
        """
        for name in ("s3_access_key", "s3_secret_key", "tenant_key", "gateway_keys"):
            joined = name == "gateway_keys" and secrets_.gateway_seed
            if not getattr(secrets_, name) and not joined:
                raise ConfigError(f"{config.secrets_file} has no {name}; a node needs it")
        self._reactor = reactor
        self._config = config
        self._sockets = sockets
        self._durations = Durations()
        members = member_addresses(config.members)
        self._client = ZmqControlPlaneClient(sockets, members)
        self._gateway_keys = GatewayKeys(secrets_.gateway_keys, secrets_.gateway_seed)
        self._follower = MemberFollower(
            reactor,
            sockets,
            self._client,
            SystemRandom(),
            first=members,
            heard=self._gateway_keys.heard,
        )
        self._shells = make_shells(reactor, config, secrets_)
        self._metrics = Metrics()
        self._resources = Resources(config.data_dir)
        self._reports = Reports(reactor, self._client, self._incarnation, random_word)
        self._warming = Warming(
            node_id=config.id,
            files=WarmFiles(config.data_dir),
            claims=self._shells.claims,
            replication=self._shells.replication,
            report=self._reports.send,
        )
        parts = NodeParts(
            node_id=config.id,
            clock=reactor,
            boottime=boottime,
            utc_now=utc_now,
            new_nonce=random_word,
            encryption_key=lambda tenant_id: encryption_key(secrets_.tenant_key, tenant_id),
            claims=self._shells.claims,
            replication=self._shells.replication,
            workloads=self._shells.workloads,
            directories=self._shells.directories,
            proofs=Proofs(self._durations),
            report=self._reports.send,
            observer=self._metrics,
            files=self._shells.files,
            warm=self._warming,
            auxiliary=config.auxiliary == "on",
            outages=NodeOutages(
                reactor, self._shells.claims, self._client, config.id, self._incarnation
            ),
        )
        self._parts = parts
        self._tenants = Tenants(parts, capacity=config.capacity, idle_stop_s=config.idle_stop_s)
        files = self._shells.files
        self._storage = Storage(
            self._tenants,
            clock=reactor,
            database_bytes=self._shells.directories.database_bytes,
            max_db_bytes=config.tenant_max_db_bytes,
            file_bytes=lambda tenant: (files.used_bytes(tenant) if files else None) or 0,
        )
        self._housekeeping = Housekeeping(
            parts,
            self._tenants,
            lambda call: deferToThreadPool(reactor, reactor.getThreadPool(), call),
            Keeping(warm_bytes=config.warm_bytes, point_in_time_s=config.point_in_time_s),
        )
        self._streams = Streams(reactor, boottime, self._durations.stream_grace_s)
        self._front = Front(
            tenants=self._tenants,
            streams=self._streams,
            gateway_keys=self._gateway_keys,
            clock=reactor,
            unix_ms=lambda: time.time_ns() // 1_000_000,
            answered=self._metrics.answered,
            quotas=Quotas(_default_quotas(config)),
            limited=self._metrics.limited,
            gates=Gates(
                self._storage,
                self._metrics.limited,
                check_upload=files.check_upload if files is not None else None,
            ),
        )
        self._generation = GenerationWatch(
            self._shells.generations,
            cluster_id=config.cluster_id,
            bucket=config.s3_bucket,
            clock=reactor,
            utc_now=utc_now,
            random=random.random,
            superseded=self._superseded,
        )
        self._pool = UpstreamPool(reactor, tcp_endpoints(reactor))
        self._tls = FrontTLS.of(reactor, config)
        fit = descriptors.fit_connections(LIMITS.max_connections)
        self._limits = attrs.evolve(LIMITS, max_connections=fit)
        self._ports: list[IListeningPort] = []
        self._factories: list[HTTPServerFactory] = []
        self._phase = "starting"
        self._lag_s = 0.0
        self._stopping = False
        self._fenced = False
        self._watching: Deferred[None] | None = None
        self._standing: Standing | None = None

    def _incarnation(self) -> int:
        return self._standing.incarnation if self._standing is not None else 0

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
        self._durations.check()
        config = self._config
        isolation = self._shells.isolation
        status = StatusPage(
            not_ready=self.not_ready,
            metrics=self._show_metrics,
            isolation=isolation.report if isolation is not None else dict,
        )
        metrics_url = self._listen(status.handle, config.metrics_listen, "metrics-listen")
        url = self._listen(self._front.handle, config.listen, "listen", self._tls)
        self._watching = spawn(self._watch_lag(), "loop watch")
        await self._shells.prepare()
        if isolation is not None:
            self._metrics.isolated(isolation.report())
        self._warming.clear()
        await self._wait_for_s3()
        if self._stopping:
            return
        self._generation.start()
        if self._shells.files is not None:
            self._shells.files.start()
        self._phase = "starting Litestream"
        await self._shells.replication.start()
        if self._stopping or self._fenced:
            return
        self._phase = "waiting for the control plane"
        address = config.advertise or url
        standing = self._standing = Standing(
            NodeFacts(
                node_id=config.id,
                start_id=random_word(),
                address=address,
                capacity=config.capacity,
                region=config.region,
                zone=config.zone,
            ),
            clock=self._reactor,
            boottime=boottime,
            utc_now=utc_now,
            client=self._client,
            proofs=self._parts.proofs,
            owned=Orders(self._tenants, HandingOver(self._parts, self._tenants), self._warming),
            found=self._found,
            members_changed=self._follower.changed,
            condition=self._condition,
            new_key=random_word,
            handlers=Operators(self._tenants, self._shells.logs, self._reactor).handlers(),
        )
        self._client.start(standing.handle)
        self._follower.start()
        self._tenants.start()
        self._storage.start()
        self._housekeeping.start()
        await standing.start()
        if self._stopping or self._fenced:
            return
        self._front.starting = False
        self._phase = ""
        ready_file.write(config.data_dir, node=url, metrics=metrics_url)
        log.info("node {id} serves at {url}", id=config.id, url=url)

    def _listen(
        self,
        handler: RequestHandler,
        where: tuple[str, int],
        option: str,
        tls: FrontTLS | None = None,
    ) -> str:
        """Serve ``handler``; its URL. :raises ConfigError: the port cannot be had."""
        host, port = where
        factory = HTTPServerFactory(
            handler, self._limits, self._reactor, pool=self._pool, apart=signing.SIGNED
        )
        outer = factory if tls is None else tls.before(factory)
        try:
            listening = listen_alone(streams_of(self._reactor), host, port, outer)
        except CannotListenError as error:
            raise ConfigError(
                f"cannot listen at {host}:{port} (--{option}): {error.socketError.strerror}"
            ) from None
        self._ports.append(listening)
        self._factories.append(factory)
        real = cast(IPv4Address | IPv6Address, listening.getHost()).port
        scheme = "http" if tls is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{real}"

    async def _wait_for_s3(self) -> None:
        tries = 0
        while not self._stopping:
            try:
                await self._shells.claims.check()
                await self._generation.enter()
                return
            except S3Unavailable as error:
                self._phase = f"waiting for S3 at {self._config.s3_endpoint}: {error}"
                if tries % S3_TELL_EVERY == 0:
                    log.warn("node {id} is {phase}", id=self._config.id, phase=self._phase)
            tries += 1
            await pause(self._reactor, S3_RETRY_S)

    def _superseded(self, error: ForeignBucket) -> None:
        """The bucket belongs to another cluster now: answer nothing from here on, then end.

        Connections are cut, since what PocketBase was asked before may come back after this.
        Nobody is told anything: the control plane that this node knows is not to be obeyed.
        """
        self._fenced = self._front.draining = True
        self._parts.proofs.give_up()
        try:
            for factory in self._factories:
                factory.abort_all()
            self._reports.stop()
            if self._standing is not None:
                self._standing.stop()
                self._client.stop()
            for tenant in self._tenants:
                tenant.fence("the bucket belongs to another cluster", None)
        finally:
            end_process(self._reactor, "pbnode", str(error))

    def reload(self) -> None:
        """Read again what may change while it runs: the node's certificate."""
        if self._tls is not None:
            self._tls.mutual.reload()

    # -- what it says of itself --

    def not_ready(self) -> list[str]:
        """Why requests are not served now; empty if they are."""
        reasons = [self._phase] if self._phase else []
        if self._front.draining:
            reasons.append("being stopped")
        if not self._tenants.replication_up:
            reasons.append("Litestream does not run")
        return reasons

    def _condition(self) -> Condition:
        states = Counter(each.state for each in self._tenants)
        resources, cache = self._resources.read(), self._tenants.cache
        hurt = not self._tenants.replication_up or self._lag_s > MAX_LOOP_LAG_S
        status = NodeStatus.DEGRADED if hurt or is_short(resources) else NodeStatus.HEALTHY
        return Condition(
            status=NodeStatus.DRAINING if self._front.draining else status,
            active=sum(states[state] for state in PRESENT),
            cached=states[State.ABSENT],
            hits=cache.hits,
            misses=cache.misses,
            evictions=cache.evictions,
            resources=resources,
            tenants=self._storage.with_sizes(self._tenants.usage()),
        )

    def _found(self, tenant_id: str) -> tuple[int, str]:
        """What runs of a tenant here: epoch (0: nothing) and state."""
        tenant = self._tenants.find(tenant_id)
        return (0, "") if tenant is None else (tenant.epoch, tenant.state.value)

    def _show_metrics(self) -> bytes:
        tenants, cache = list(self._tenants), self._tenants.cache
        replications = [each.replication for each in tenants]
        counts = Counter(each.state.value for each in tenants)
        age = self._parts.proofs.lease_age_s(boottime())
        gauges = {
            "lease_age_seconds": -1.0 if age is None else age,
            "assignments_index": self._tenants.obeyed_index,
            "streams": len(self._streams),
            "open_requests": sum(cache.open_requests(each.tenant_id) for each in tenants),
            "full_tenants": self._storage.full_count,
            "waiting_writes": sum(each.waiting_writes for each in replications),
            **self._housekeeping.figures(),
            "degraded_tenants": sum(each.degraded for each in replications),
            "replication_lag_seconds": max((each.lag_s for each in replications), default=0.0),
            "unreplicated_tenants": sum(each.only_here for each in replications),
            "cache_hits": cache.hits,
            "cache_misses": cache.misses,
            "cache_evictions": cache.evictions,
            **(self._tls.figures() if self._tls is not None else {}),
            **(self._shells.files.figures() if self._shells.files is not None else {}),
            "away_gaps": self._standing.gaps if self._standing is not None else 0,
        }
        return self._metrics.show({state.value: counts[state.value] for state in State}, gauges)

    async def _watch_lag(self) -> None:
        while not self._stopping:
            before = boottime()
            await pause(self._reactor, LAG_INTERVAL_S)
            self._lag_s = max(0.0, boottime() - before - LAG_INTERVAL_S)

    # -- end --

    def stopService(self) -> Deferred[None]:
        """Stop; fires when everything ended."""
        super().stopService()
        ready_file.remove(self._config.data_dir)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._stopping = self._front.draining = True
        if self._watching is not None:
            self._watching.cancel()
        self._generation.stop()
        self._storage.stop()
        self._housekeeping.stop()
        standing = self._standing
        if standing is not None and not self._fenced:
            await standing.announce_draining()
        await self._tenants.stop(drain_s=0.0 if self._fenced else DRAIN_S)
        try:
            await self._shells.replication.stop()
        except PBClusterError as error:
            log.error("Litestream did not end well: {error}", error=error)
        if self._shells.files is not None:
            await self._shells.files.stop()
        self._reports.stop()
        if standing is not None:
            standing.stop()
            self._follower.stop()
            self._client.stop()
        if self._tls is not None:
            self._tls.stop()
        for port in self._ports:
            await maybeDeferred(port.stopListening)
        for factory in self._factories:
            await factory.drain(1.0)
        self._pool.close()
        self._shells.close()
        self._sockets.close()


def _default_quotas(config: NodeConfig) -> Defaults:
    return Defaults(
        requests_per_second=config.tenant_requests_per_second,
        burst=config.tenant_burst,
        requests=config.tenant_concurrent_requests,
        event_streams=config.tenant_event_streams,
    )
