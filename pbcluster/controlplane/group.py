"""Puts a member of a group together from its settings: store, network, Raft, admin APIs of others.

The settings say how the members reach each other, and who the first ones are. Who is a member now
stands in the store alone: a setting that names more or fewer changes nothing there.
"""

from __future__ import annotations

from collections.abc import Callable
from random import SystemRandom
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThreadPool

from pbcluster.config import FIRST_START, MemberConfig
from pbcluster.controlplane.admin_forward import Forwarder
from pbcluster.controlplane.raft_member import RaftMember
from pbcluster.controlplane.raft_store import RaftStore
from pbcluster.controlplane.raft_transport import ZmqRaftNetwork
from pbcluster.controlplane.registry import Registry
from pbcluster.errors import ConfigError
from pbcluster.raft import ConfState
from pbcluster.transport.addresses import member_addresses
from pbcluster.transport.sockets import Sockets


def genesis(base_domain: str) -> bytes:
    """The empty registry with which every member of a new group begins, as of log index 1."""
    registry = Registry(base_domain)
    registry.skip(1)
    return registry.to_bytes()


def join_group(
    reactor: Any,
    clock: IReactorTime,
    config: MemberConfig,
    sockets: Sockets,
    failed: Callable[[str], None],
) -> RaftMember:
    """This member of the group that ``raft_peers`` names; it is not started yet.

    :param failed: called with the reason when the process must end.
    :raises ConfigError: the peers contradict each other, the store is another's, or it is empty
        though this member ran before.
    """
    peers = {address.member_id: address for address in member_addresses(config.raft_peers)}
    if config.id in peers or len(peers) != len(config.raft_peers):
        raise ConfigError(
            f"raft_peers of {config.id} must name each other member once and not itself: "
            f"{', '.join(config.raft_peers)}"
        )
    home = config.data_dir
    store = RaftStore(home / "store", config.cluster_id, config.id)
    try:
        first = ConfState(tuple(sorted((config.id, *peers))))
        store.prepare(home / FIRST_START, first, genesis(config.base_domain))
    except BaseException:
        store.close()
        raise
    return RaftMember(
        reactor,
        clock,
        store,
        ZmqRaftNetwork(sockets, config.raft_endpoint, peers),
        config.id,
        config.base_domain,
        SystemRandom(),
        lambda function, *args: deferToThreadPool(
            reactor, reactor.getThreadPool(), function, *args
        ),
        failed,
    )


def forwarder(reactor: Any, config: MemberConfig) -> Forwarder:
    """Passes on to the admin APIs that ``admin_peers`` names."""
    urls = {}
    for text in config.admin_peers:
        url, _, member = text.partition("#")
        urls[member] = url
    return Forwarder(reactor, config.id, urls)
