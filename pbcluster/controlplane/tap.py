"""``twistd pbcp``: options and service of a control-plane member."""

from __future__ import annotations

import signal
import sys
from typing import Any, cast

from twisted.application.service import IService

from pbcluster import descriptors, slices
from pbcluster.config import MemberConfig
from pbcluster.json_logs import logged
from pbcluster.options import ServiceOptions, make_options

SWITCH_INTERVAL_S = 0.0002

Options = make_options(
    MemberConfig,
    "One member of pbcluster's control plane: it keeps the registry of tenants, nodes and routes, "
    "decides which node owns which tenant, and serves the admin API. "
    "`pbcluster init` writes its configuration file.",
)


def makeService(options: ServiceOptions) -> IService:
    """The service that twistd runs."""
    from twisted.internet import reactor

    from pbcluster.controlplane.service import MemberService
    from pbcluster.signals import on_signal
    from pbcluster.transport.curve import Curve, PlainSockets
    from pbcluster.transport.sockets import Sockets

    # The thread that writes the log asks for the interpreter after each fsync; with the default of
    # 5 ms a busy reactor would let it wait longer than the disk did.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    parsed = options.parsed
    config = parsed.config
    descriptors.raise_limit()
    slices.shorten()
    config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    security = (
        PlainSockets() if config.insecure_plain_sockets else Curve.of(parsed.secrets, parsed.peers)
    )
    sockets = Sockets(cast(Any, reactor), config.cluster_id, config.id, security)
    service = MemberService(reactor, config, parsed.secrets, sockets, again=parsed.again)
    cast(Any, reactor).callWhenRunning(on_signal, reactor, signal.SIGHUP, service.reload)
    return logged(service, config)
