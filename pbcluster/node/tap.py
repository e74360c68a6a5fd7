"""``twistd pbnode``: options and service of a node."""

from __future__ import annotations

import signal
from typing import Any, cast

from twisted.application.service import IService

from pbcluster import descriptors, slices
from pbcluster.config import NodeConfig
from pbcluster.errors import ConfigError
from pbcluster.json_logs import logged
from pbcluster.options import ServiceOptions, make_options

Options = make_options(
    NodeConfig,
    "A pbcluster node: runs one PocketBase process for each tenant it owns, replicates their "
    "databases to S3, and answers for them to the gateways. "
    "`pbcluster init` writes its configuration file.",
)


def makeService(options: ServiceOptions) -> IService:
    """The service that twistd runs; what cannot be used ends the process with one sentence."""
    try:
        return logged(_make(options), options.parsed.config)
    except ConfigError as error:
        raise SystemExit(f"pbnode: {error}") from None


def _make(options: ServiceOptions) -> IService:
    from twisted.internet import reactor

    from pbcluster.node.service import NodeService
    from pbcluster.node.shells import real_shells
    from pbcluster.signals import on_signal
    from pbcluster.transport.curve import Curve, PlainSockets
    from pbcluster.transport.sockets import Sockets

    parsed = options.parsed
    config = parsed.config
    descriptors.raise_limit()
    slices.shorten()
    config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    security = (
        PlainSockets() if config.insecure_plain_sockets else Curve.of(parsed.secrets, parsed.peers)
    )
    sockets = Sockets(cast(Any, reactor), config.cluster_id, config.id, security)
    service = NodeService(reactor, config, parsed.secrets, sockets, real_shells, again=parsed.again)
    cast(Any, reactor).callWhenRunning(on_signal, reactor, signal.SIGHUP, service.reload)
    return service
