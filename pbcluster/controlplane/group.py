"""Puts a member of a group together from its settings: store, network, Raft, admin APIs of others.

The settings say how the members reach each other, and who the first ones are; a group may consist
of this member alone. Who is a member now stands in the store: a setting that names more or fewer
changes nothing there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from random import SystemRandom
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.interfaces import IReactorTime
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from pbcluster.authority import Pair
from pbcluster.config import MemberConfig, Peer
from pbcluster.controlplane import beginning
from pbcluster.controlplane.admin_forward import Forwarder
from pbcluster.controlplane.raft_member import RaftMember
from pbcluster.controlplane.raft_store import RaftStore
from pbcluster.controlplane.raft_transport import ZmqRaftNetwork
from pbcluster.errors import ConfigError
from pbcluster.raft import MemberId
from pbcluster.records import MemberRecord, ProcessRecord
from pbcluster.transport.addresses import connectable, member_addresses
from pbcluster.transport.membership import read_record
from pbcluster.transport.sockets import Sockets

log = Logger()


def join_group(
    reactor: Any,
    clock: IReactorTime,
    config: MemberConfig,
    sockets: Sockets,
    failed: Callable[[str], None],
) -> RaftMember:
    """This member of the group that it and ``raft_peers`` are; it is not started yet.

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
        beginning.prepare(store, home, config.cluster_id, (config.id, *peers), config.base_domain)
    except BaseException:
        store.close()
        raise

    def gone() -> None:
        member.was_removed()

    network = ZmqRaftNetwork(sockets, config.raft_endpoint, peers, gone)
    member = RaftMember(
        reactor,
        clock,
        store,
        network,
        config.id,
        config.base_domain,
        SystemRandom(),
        lambda function, *args: deferToThreadPool(
            reactor, reactor.getThreadPool(), function, *args
        ),
        failed,
    )
    return member


def told_of(
    config: MemberConfig, own: MemberRecord, key_of: Callable[[MemberId], str]
) -> dict[MemberId, MemberRecord]:
    """What the settings say of the members.

    :param own: what this one knows of itself, with the ports that it really has; what it shall
        advertise goes before.
    :param key_of: gives a process's public key, empty if it is not known.
    :returns: complete records only.
    """
    found: dict[MemberId, dict[str, str]] = {}
    settings = {
        "raft": config.raft_peers,
        "requests": config.request_peers,
        "broadcasts": config.broadcast_peers,
        "admin": config.admin_peers,
    }
    for use, texts in settings.items():
        for text in texts:
            address, _, member = text.partition("#")
            found.setdefault(member, {})[use] = address
    whole = {
        member: MemberRecord(id=member, curve_public=key_of(member), **uses)
        for member, uses in found.items()
        if len(uses) == len(settings)
    }
    elsewhere = dict(text.split("=", 1) for text in config.advertise)
    whole[own.id] = msgspec.structs.replace(own, **elsewhere)
    return {member: record for member, record in whole.items() if _is_usable(record)}


def processes_of(peers: Iterable[Peer]) -> list[ProcessRecord]:
    """The nodes and gateways of the peers file."""
    return [
        ProcessRecord(peer.id, peer.role, peer.curve_public)
        for peer in peers
        if peer.role in ("node", "gateway") and peer.curve_public
    ]


def authority_in(directory: Path | None) -> Pair | None:
    """The cluster's own authority. :raises ConfigError: it cannot be read."""
    if directory is None:
        return None
    try:
        certificate, key = (directory / name for name in ("ca.pem", "ca.key"))
        return Pair(certificate.read_bytes(), key.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read {error.filename} (--authority): {error.strerror}") from None


def _is_usable(record: MemberRecord) -> bool:
    """Whether others can connect to all of its addresses: nobody is told of an address like
    0.0.0.0."""
    try:
        read_record(record)
        connectable(record.raft, record.id)
    except ConfigError as error:
        log.warn("{member} is told to nobody: {error}", member=record.id, error=error.message)
        return False
    return True


def forwarder(reactor: Any, config: MemberConfig, member: RaftMember) -> Forwarder:
    """Passes on to the admin APIs of the members, as the group or ``admin_peers`` names them."""
    settings = {}
    for text in config.admin_peers:
        url, _, name = text.partition("#")
        settings[name] = url

    def url_of(name: MemberId) -> str | None:
        record = member.registry.roster.member(name)
        return settings.get(name) if record is None else record.admin

    return Forwarder(reactor, config.id, url_of, authorities(config.admin_ca))


def authorities(file: Path | None) -> Any:
    """What certificates are verified by.

    :param file: PEM certificates; None: the system's.
    :raises ConfigError: it cannot be read, or there is none in it.
    """
    if file is None:
        return None
    try:
        found = pem_certificates(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read {file} (--admin-ca): {error.strerror}") from None
    except ValueError:
        found = []
    if not found:
        raise ConfigError(f"{file} (--admin-ca) has no certificate, PEM")
    return trustRootFromCertificates(found)


def pem_certificates(data: bytes) -> list[Certificate]:
    """All certificates of a file. :raises ValueError: one is none."""
    return [
        Certificate.loadPEM(one.public_bytes(Encoding.PEM))
        for one in x509.load_pem_x509_certificates(data)
    ]
