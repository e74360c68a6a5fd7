"""The settings of a control-plane member, and the file that says how it begins."""

from __future__ import annotations

from pathlib import Path

import attrs

from pbcluster.config.checks import (
    DIR,
    ENDPOINT,
    FILE,
    PORT,
    advertised,
    between,
    domain,
    listen_address,
    member_endpoint,
    member_url,
    path,
    setting,
    several,
    tcp_endpoint,
)
from pbcluster.config.service import ServiceConfig

#: begin with an empty store. It goes away at the first start, and with the disk. Without it an
#: empty store is refused: a member that forgot its votes and its log could undo what was
#: acknowledged. What is written in it says how the member begins (:data:`BEGINNINGS`).
FIRST_START = "first-start"
#: ``found``: with the others of ``raft_peers`` as a new group; ``join``: with nothing, until a
#: group that exists takes it in; ``recover``: as a new group, with the state in the file
#: :data:`RECOVERED`, which all its members must have alike.
BEGINNINGS = ("found", "join", "recover")
#: Beside FIRST_START: a snapshot that ``pbcluster members snapshot`` wrote.
RECOVERED = "recovered-state"


@attrs.frozen(kw_only=True)
class MemberConfig(ServiceConfig):
    """Settings of a control-plane member (``twistd pbcp``)."""

    base_domain: str = setting(
        "tenants answer at NAME.BASE_DOMAIN", "a domain like localhost", domain, "localhost"
    )
    request_endpoint: str = setting(
        "where nodes and gateways ask", ENDPOINT, tcp_endpoint, "tcp://127.0.0.1:5555"
    )
    broadcast_endpoint: str = setting(
        "where broadcasts are published", ENDPOINT, tcp_endpoint, "tcp://127.0.0.1:5556"
    )
    admin_listen: tuple[str, int] = setting(
        "address of the admin API", PORT, listen_address, "127.0.0.1:8095"
    )
    admin_tls: Path | None = setting(
        "TLS for the admin API, with the certificates in there, read again when they change: "
        "NAME.pem, NAME.crt + NAME.key; `default` serves who connects by address",
        DIR,
        path,
        None,
    )
    admin_ca: Path | None = setting(
        "authorities of the other members' admin APIs; none: the system's", FILE, path, None
    )
    authority: Path | None = setting(
        "ca.pem and ca.key of the cluster's own authority stand there: it certifies those who join",
        DIR,
        path,
        None,
    )
    node_down_after_s: float = setting(
        "seconds without a heartbeat until a node counts as down",
        "1 to 3600",
        between(1, 3600, float),
        15.0,
    )
    deleted_keep_s: float = setting(
        "seconds for which the data of a deleted tenant stay in S3",
        "0 to 315360000",
        between(0, 315_360_000, float),
        7 * 86400.0,
    )
    raft_endpoint: str = setting(
        "where the other members are heard", ENDPOINT, tcp_endpoint, "tcp://127.0.0.1:7000"
    )
    raft_peers: tuple[str, ...] = setting(
        "the other members and where they are heard; none: this member is alone",
        f"several of {ENDPOINT}#MEMBER_ID",
        several(member_endpoint),
        (),
    )
    request_peers: tuple[str, ...] = setting(
        "where nodes and gateways ask the other members",
        f"several of {ENDPOINT}#MEMBER_ID",
        several(member_endpoint),
        (),
    )
    broadcast_peers: tuple[str, ...] = setting(
        "where the other members publish broadcasts",
        f"several of {ENDPOINT}#MEMBER_ID",
        several(member_endpoint),
        (),
    )
    admin_peers: tuple[str, ...] = setting(
        "admin APIs of the other members: what only the leader can do is passed on to it",
        "several of http://HOST:PORT#MEMBER_ID",
        several(member_url),
        (),
    )
    advertise: tuple[str, ...] = setting(
        "where others reach this member, if not at the addresses where it listens",
        f"several of raft={ENDPOINT}, requests={ENDPOINT}, broadcasts={ENDPOINT}, "
        "admin=http://HOST:PORT",
        several(advertised),
        (),
    )
