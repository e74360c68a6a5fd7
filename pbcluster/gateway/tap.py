"""``twistd pbgateway``: options and service of a gateway, of its master or of a worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from random import SystemRandom
from typing import TYPE_CHECKING, Any, cast

import attrs
from twisted.application.service import IService

from pbcluster import descriptors, slices
from pbcluster.config import GatewayConfig
from pbcluster.errors import ConfigError
from pbcluster.json_logs import logged
from pbcluster.options import Parsed, ServiceOptions, make_options

if TYPE_CHECKING:
    from pbcluster.gateway.assembly import ControlPlane
    from pbcluster.transport.interfaces import FollowsMembers
    from pbcluster.transport.sockets import Sockets

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
    from pbcluster.gateway import worker
    from pbcluster.gateway.master import MasterService
    from pbcluster.gateway.proxy_settings import gateway_key
    from pbcluster.gateway.reloading import Reloading
    from pbcluster.gateway.service import GatewayService
    from pbcluster.reactor import LoopTimersReactor
    from pbcluster.signals import on_signal

    config = parsed.config
    descriptors.raise_limit()
    slices.shorten()
    config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    place = worker.place(os.environ)
    reloading = Reloading(parsed, parsed.again)
    service: IService
    if config.workers > 1 and not place.is_worker:
        gateway_key(config, parsed.secrets)
        service = MasterService(
            reactor,
            parsed,
            reloading,
            reactor_name="pbuvloop" if isinstance(reactor, LoopTimersReactor) else "",
            end=lambda: _end(reactor),
        )
    else:
        service = GatewayService(
            reactor,
            config,
            parsed.secrets,
            _control_plane(reactor, parsed),
            place=place,
            reloading=reloading,
            end=lambda: _end(reactor),
        )
    reactor.callWhenRunning(on_signal, reactor, signal.SIGHUP, reloading.reload)
    return logged(service, config)


def _end(reactor: Any) -> None:
    from twisted.internet.error import ReactorNotRunning

    with suppress(ReactorNotRunning):
        reactor.stop()


def _control_plane(reactor: Any, parsed: Parsed[GatewayConfig]) -> ControlPlane:
    from pbcluster.gateway.assembly import ControlPlane
    from pbcluster.transport.addresses import member_addresses
    from pbcluster.transport.broadcasts import ZmqSubscriber
    from pbcluster.transport.control_plane_client import ZmqControlPlaneClient
    from pbcluster.transport.curve import Curve, PlainSockets
    from pbcluster.transport.following import MemberFollower
    from pbcluster.transport.sockets import Sockets

    config = parsed.config
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
    return attrs.evolve(control_plane, reload=_Members(parsed, sockets, client, subscriber))


class _Members:
    """The settings ``members`` and ``broadcasts``, read again: talk to these, if they changed.

    Who the members really are is learnt from them; this is for when all that were known are gone.
    """

    live = frozenset(("members", "broadcasts"))

    def __init__(
        self,
        parsed: Parsed[GatewayConfig],
        sockets: Sockets,
        client: FollowsMembers,
        subscriber: FollowsMembers,
    ) -> None:
        self._now = (parsed.config.members, parsed.config.broadcasts)
        self._sockets = sockets
        self._client = client
        self._subscriber = subscriber

    def prepare(self, parsed: Parsed[GatewayConfig]) -> Callable[[], None]:
        """As ``reloading.Reloadable``. :raises ConfigError: an address or a key is none."""
        from pbcluster.transport.addresses import member_addresses

        wanted = (parsed.config.members, parsed.config.broadcasts)
        if wanted == self._now:
            return lambda: None
        members, broadcasts = (member_addresses(texts) for texts in wanted)
        for address in (*members, *broadcasts):
            peer = parsed.peers.get(address.member_id)
            if peer is not None and peer.role == "member":
                self._sockets.allow(peer)
            self._sockets.key_of(address)

        def commit() -> None:
            self._now = wanted
            self._client.set_members(members)
            self._subscriber.set_members(broadcasts)

        return commit
