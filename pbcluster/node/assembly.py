"""What a node is made of: every part, made once from its settings, and joined to the others.

Making them opens nothing and starts nothing; ``service`` does that, in order, and ends them. Two
parts come later, since they need what is known only then: the ports (``ports``) and the node's
standing with the control plane (:meth:`Assembly.make_standing`).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from random import SystemRandom
from typing import Any

from twisted.internet.threads import deferToThreadPool

from pbcluster.config import NodeConfig, Secrets
from pbcluster.durations import Durations
from pbcluster.errors import ConfigError
from pbcluster.generations import ForeignBucket
from pbcluster.node.front import Front
from pbcluster.node.front_tls import FrontTLS
from pbcluster.node.gates import Gates
from pbcluster.node.gateway_keys import GatewayKeys
from pbcluster.node.generations import GenerationWatch
from pbcluster.node.handing_over import HandingOver
from pbcluster.node.heartbeat import Condition, NodeFacts, Standing
from pbcluster.node.housekeeping import Housekeeping, Keeping
from pbcluster.node.machine import boottime, encryption_key, random_word, utc_now
from pbcluster.node.operators import Operators
from pbcluster.node.orders import Orders
from pbcluster.node.outages import NodeOutages
from pbcluster.node.parts import NodeParts
from pbcluster.node.proofs import Proofs
from pbcluster.node.quotas import Defaults, Quotas
from pbcluster.node.reports import Reports
from pbcluster.node.resources import Resources
from pbcluster.node.shells import MakeShells
from pbcluster.node.status_page import Metrics
from pbcluster.node.storage import Storage
from pbcluster.node.streams import Streams
from pbcluster.node.tenants import Tenants
from pbcluster.node.warming import WarmFiles, Warming
from pbcluster.transport.addresses import member_addresses
from pbcluster.transport.control_plane_client import ZmqControlPlaneClient
from pbcluster.transport.following import MemberFollower
from pbcluster.transport.sockets import Sockets
from pbcluster.wall_clock import unix_ms

NEEDED_SECRETS = ("s3_access_key", "s3_secret_key", "tenant_key", "gateway_keys")


class Assembly:
    """The parts of one node; each is documented where its class is."""

    def __init__(
        self,
        reactor: Any,
        config: NodeConfig,
        secrets_: Secrets,
        sockets: Sockets,
        make_shells: MakeShells,
        *,
        incarnation: Callable[[], int],
        superseded: Callable[[ForeignBucket], None],
    ) -> None:
        """
        :param reactor: TCP, time, threads, processes and descriptors.
        :param incarnation: that of this process, 0: not registered yet.
        :param superseded: called when the bucket belongs to another cluster.
        :raises ConfigError: a secret is missing.
        """
        _check_secrets(config, secrets_)
        self._reactor = reactor
        self._config = config
        self._incarnation = incarnation
        self.durations = Durations()
        members = member_addresses(config.members)
        self.client = ZmqControlPlaneClient(sockets, members)
        self.gateway_keys = GatewayKeys.of(secrets_)
        self.follower = MemberFollower(
            reactor,
            sockets,
            self.client,
            SystemRandom(),
            first=members,
            heard=self.gateway_keys.heard,
        )
        self.shells = make_shells(reactor, config, secrets_)
        self.metrics = Metrics()
        self.resources = Resources(config.data_dir)
        self.reports = Reports(reactor, self.client, incarnation, random_word)
        self.warming = self._make_warming()
        self.parts = self._make_parts(secrets_)
        self.tenants = Tenants(self.parts, capacity=config.capacity, idle_stop_s=config.idle_stop_s)
        self.orders = Orders(self.tenants, HandingOver(self.parts, self.tenants), self.warming)
        self.storage = self._make_storage()
        self.housekeeping = Housekeeping(
            self.parts,
            self.tenants,
            lambda call: deferToThreadPool(reactor, reactor.getThreadPool(), call),
            Keeping(warm_bytes=config.warm_bytes, point_in_time_s=config.point_in_time_s),
        )
        self.streams = Streams(reactor, boottime, self.durations.stream_grace_s)
        self.front = self._make_front()
        self.generation = GenerationWatch(
            self.shells.generations,
            cluster_id=config.cluster_id,
            bucket=config.s3_bucket,
            clock=reactor,
            utc_now=utc_now,
            random=random.random,
            superseded=superseded,
        )
        self.tls = FrontTLS.of(reactor, config)

    def _make_warming(self) -> Warming:
        return Warming(
            node_id=self._config.id,
            files=WarmFiles(self._config.data_dir),
            claims=self.shells.claims,
            replication=self.shells.replication,
            report=self.reports.send,
        )

    def _make_parts(self, secrets_: Secrets) -> NodeParts:
        config, shells = self._config, self.shells
        return NodeParts(
            node_id=config.id,
            clock=self._reactor,
            boottime=boottime,
            utc_now=utc_now,
            new_nonce=random_word,
            encryption_key=lambda tenant_id: encryption_key(secrets_.tenant_key, tenant_id),
            claims=shells.claims,
            replication=shells.replication,
            workloads=shells.workloads,
            directories=shells.directories,
            proofs=Proofs(self.durations),
            report=self.reports.send,
            observer=self.metrics,
            files=shells.files,
            warm=self.warming,
            auxiliary=config.auxiliary == "on",
            outages=NodeOutages(
                self._reactor, shells.claims, self.client, config.id, self._incarnation
            ),
        )

    def _make_storage(self) -> Storage:
        files = self.shells.files
        return Storage(
            self.tenants,
            clock=self._reactor,
            database_bytes=self.shells.directories.database_bytes,
            max_db_bytes=self._config.tenant_max_db_bytes,
            file_bytes=lambda tenant: (files.used_bytes(tenant) if files else None) or 0,
        )

    def _make_front(self) -> Front:
        files = self.shells.files
        return Front(
            tenants=self.tenants,
            streams=self.streams,
            gateway_keys=self.gateway_keys.keys,
            also=self.gateway_keys.also,
            clock=self._reactor,
            unix_ms=unix_ms,
            answered=self.metrics.answered,
            quotas=Quotas(_default_quotas(self._config)),
            limited=self.metrics.limited,
            gates=Gates(
                self.storage,
                self.metrics.limited,
                check_upload=files.check_upload if files is not None else None,
            ),
        )

    def make_standing(
        self,
        address: str,
        *,
        condition: Callable[[], Condition],
        found: Callable[[str], tuple[int, str]],
        removed: Callable[[str], None],
    ) -> Standing:
        """This node's standing with the control plane, under an id of this start.

        :param address: the URL by which gateways reach it.
        :param condition: what a heartbeat carries. :param found, removed: see :class:`Standing`.
        """
        config = self._config
        facts = NodeFacts(
            node_id=config.id,
            start_id=random_word(),
            address=address,
            capacity=config.capacity,
            region=config.region,
            zone=config.zone,
        )
        return Standing(
            facts,
            clock=self._reactor,
            boottime=boottime,
            utc_now=utc_now,
            client=self.client,
            proofs=self.parts.proofs,
            owned=self.orders,
            found=found,
            members_changed=self.follower.changed,
            removed=removed,
            condition=condition,
            new_key=random_word,
            handlers=Operators(self.tenants, self.shells.logs, self._reactor).handlers(),
        )


def _check_secrets(config: NodeConfig, secrets_: Secrets) -> None:
    for name in NEEDED_SECRETS:
        joined = name == "gateway_keys" and secrets_.gateway_seed
        if not getattr(secrets_, name) and not joined:
            raise ConfigError(f"{config.secrets_file} has no {name}; a node needs it")


def _default_quotas(config: NodeConfig) -> Defaults:
    return Defaults(
        requests_per_second=config.tenant_requests_per_second,
        burst=config.tenant_burst,
        requests=config.tenant_concurrent_requests,
        event_streams=config.tenant_event_streams,
    )
