"""``twistd pbgateway``: options and service of a gateway."""

from __future__ import annotations

from random import SystemRandom
from typing import Any, cast

from twisted.application.service import IService

from pbcluster import descriptors
from pbcluster.config import GatewayConfig
from pbcluster.errors import ConfigError
from pbcluster.options import Parsed, ServiceOptions, make_options

Options = make_options(
    GatewayConfig,
    "A gateway of pbcluster: it takes the requests of all users and brings each to the node that "
    "owns its tenant. `pbcluster init` writes its configuration file.",
)


def makeService(options: ServiceOptions) -> IService:
    """The service that twistd runs.

    :raises SystemExit: what it was given cannot be used; one sentence says why.
    """
    from twisted.internet import reactor

    try:
        return _service(cast(Any, reactor), options.parsed)
    except ConfigError as error:
        raise SystemExit(f"pbgateway: {error.message}") from None


def _service(reactor: Any, parsed: Parsed[GatewayConfig]) -> IService:
    from pbcluster.gateway.service import ControlPlane, GatewayService
    from pbcluster.transport.addresses import member_addresses
    from pbcluster.transport.broadcasts import ZmqSubscriber
    from pbcluster.transport.control_plane_client import ZmqControlPlaneClient
    from pbcluster.transport.curve import Curve, PlainSockets
    from pbcluster.transport.following import MemberFollower
    from pbcluster.transport.sockets import Sockets

    config = parsed.config
    descriptors.raise_limit()
    config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    security = (
        PlainSockets() if config.insecure_plain_sockets else Curve.of(parsed.secrets, parsed.peers)
    )
    sockets = Sockets(reactor, config.cluster_id, config.id, security)
    members, broadcasts = member_addresses(config.members), member_addresses(config.broadcasts)
    client = ZmqControlPlaneClient(sockets, members)
    subscriber = ZmqSubscriber(sockets, broadcasts)
    follower = MemberFollower(
        reactor,
        sockets,
        client,
        SystemRandom(),
        first=(*members, *broadcasts),
        subscriber=subscriber,
    )
    control_plane = ControlPlane(client, subscriber, follower, sockets.close)
    return GatewayService(reactor, config, parsed.secrets, control_plane)
