"""``join``: a directory for one process of a cluster whose first host is another machine.

In order: keys are made and written (``secrets/joining.json``) before anything is asked, so that
whoever is interrupted, or whose answer is lost, asks again with the same keys and is known by them;
the authority of the cluster is fetched and held against the pin in the token before the token goes
anywhere; the token is shown over TLS that is verified by this authority; then the files are
written, ``cluster.toml`` last. A directory with a plan is a whole one. Secret keys never leave this
machine: only public halves and a certificate request travel.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import attrs

from pbcluster import authority, config
from pbcluster.cli import certificates, join_token, secret_files
from pbcluster.cli.admin import AdminClient
from pbcluster.cli.http import Unreachable, ask
from pbcluster.cli.join_token import JoinToken
from pbcluster.cli.layout import (
    ClusterDir,
    Plan,
    Process,
    plan_content,
    to_toml,
    write_bytes,
    write_file,
)
from pbcluster.cli.ports import Picker, check_address, in_use
from pbcluster.config import BEGINNINGS
from pbcluster.errors import (
    ConfigError,
    RemoteProtocolError,
    Unavailable,
)

#: An election, and a change of the group that is under way, are waited for.
ACCEPTED_WITHIN_S = 30.0
_ASK_S = 10.0
_POLL_S = 0.5
_MAX_AUTHORITY_BYTES = 64 * 1024
#: Role → what its ports are for, and their usual numbers.
USES: Mapping[str, Mapping[str, int]] = {
    "member": {"admin": 8095, "requests": 5555, "broadcasts": 5556, "raft": 7000},
    "node": {"http": 8090},
    "gateway": {"http": 8080},
}


@attrs.frozen(kw_only=True)
class Attempt:
    """What is written before anything is asked. Its ``repr`` shows no key."""

    token_id: str
    role: str
    id: str
    address: str
    ports: dict[str, int]
    curve_secret: str = attrs.field(repr=False)
    tls_key: str = attrs.field(repr=False)
    request: str = attrs.field(repr=False)


def join(
    where: ClusterDir,
    token: JoinToken,
    address: str | None,
    port: int | None,
    shown: Callable[[str], None],
    pause: Callable[[float], None] = time.sleep,
) -> Plan:
    """Join, and write the directory. It may be called again after any failure.

    :param address: of this machine, by which the others reach the process; None: the one by which
        this machine reaches the first host.
    :param port: of a node or gateway, or the first of a member's; None: the usual, 0: free ones.
    :param shown: called with each step. :param pause: waits so many seconds.
    :returns: the plan of the new directory.
    :raises ConfigError: the directory holds something, or address or port cannot be used.
    :raises PBClusterError: the cluster cannot be reached, or does not let it in; says why.
    """
    if where.exists():
        raise ConfigError(
            f"{where.root} holds {', '.join(p.id for p in where.load_plan().processes)} already: "
            f"`pbcluster up --dir {where.root}` starts it; choose another --dir"
        )
    attempt = _attempt(where, token, address, port)
    _pin(where, token)
    shown(f"the cluster's authority is the one of the token; {attempt.id} asks to be let in")
    joined = _accepted(where, token, attempt, pause)
    parcel = join_token.unseal(token, base64.b64decode(joined["parcel"]))
    plan = Plan(
        cluster_id=joined["cluster_id"],
        base_domain=parcel["base_domain"],
        insecure_plain_sockets=False,
        processes=(Process(attempt.role, attempt.id, attempt.ports),),
        node_tls=parcel["node_tls"],
        address=attempt.address,
        joined=_admin_urls(attempt, joined["members"]),
        root=where.root,
    )
    try:
        _write(where, plan, attempt, joined, parcel)
    except OSError as error:
        raise ConfigError(f"cannot write {error.filename}: {error.strerror}") from None
    return plan


def _admin_urls(attempt: Attempt, members: list[dict[str, str]]) -> tuple[str, ...]:
    """Of all members, its own first if it is one."""
    others = (member["admin"] for member in members if member["id"] != attempt.id)
    own = (_reached_at(attempt)["admin"],) if attempt.role == "member" else ()
    return (*own, *others)


# -- before anything is asked ---------------------------------------------------------------------


def _attempt(where: ClusterDir, token: JoinToken, address: str | None, port: int | None) -> Attempt:
    """The attempt that was begun here with this token, or a new one."""
    file = where.joining_file
    if file.exists():
        try:
            begun = Attempt(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            raise ConfigError(f"{file} cannot be read: remove {where.root} and try again") from None
        if begun.token_id == token.id:
            return begun
    elif where.root.exists() and any(where.root.iterdir()):
        raise ConfigError(f"{where.root} is not empty: choose another --dir")
    own = address or _own_address(token)
    check_address(own)
    pair = authority.request(token.process_id)
    fresh = Attempt(
        token_id=token.id,
        role=token.role,
        id=token.process_id,
        address=own,
        ports=_ports(token.role, own, port),
        curve_secret=secret_files.curve_pair("")[0],
        tls_key=pair.key.decode(),
        request=pair.certificate.decode(),
    )
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(file, json.dumps(attrs.asdict(fresh)), 0o600)
    except OSError as error:
        raise ConfigError(f"cannot write {error.filename}: {error.strerror}") from None
    return fresh


def _own_address(token: JoinToken) -> str:
    """The address by which this machine reaches the first host; nothing is sent."""
    parts = urlsplit(token.urls[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((parts.hostname, parts.port or 443))
        except OSError as error:
            raise Unreachable(f"no way to {token.urls[0]}: {error.strerror}") from None
        return str(probe.getsockname()[0])


def _ports(role: str, address: str, first: int | None) -> dict[str, int]:
    """:raises ConfigError: one is in use."""
    uses = USES[role]
    if first == 0:
        picker = Picker(0, 0, None, address)
        return {use: picker.take(use) for use in uses}
    wanted = dict(uses)
    if first is not None:
        wanted = {use: first + number for number, use in enumerate(uses)}
    for use, number in wanted.items():
        reason = in_use(number, address)
        if reason is not None:
            raise ConfigError(
                f"port {number} ({use}) at {address} {reason}: choose another with --port"
            )
    return wanted


# -- asking ---------------------------------------------------------------------------------------


def _pin(where: ClusterDir, token: JoinToken) -> None:
    """Fetch the certificate of the cluster's authority, and keep it if it is the pinned one.

    :raises Unreachable: nobody answers. :raises ConfigError: it is another's.
    """
    told = []
    for url in token.urls:
        try:
            answer = ask(
                "GET",
                f"{url}/api/cp/authority",
                timeout_s=_ASK_S,
                max_answer_bytes=_MAX_AUTHORITY_BYTES,
                unverified=True,
            )
            certificate = str(json.loads(answer.body)["certificate"]).encode()
            found = authority.fingerprint(certificate).hex()
        except (Unavailable, ValueError, KeyError, TypeError, ConfigError) as error:
            told.append(str(error) if isinstance(error, Unavailable) else f"{url}: no authority")
            continue
        if not hmac.compare_digest(found, token.pin):
            raise ConfigError(
                f"who answers at {url} is not the cluster of this token (its authority has another "
                "fingerprint): the token was not shown to it"
            )
        write_bytes(where.authority / "ca.pem", certificate, 0o644)
        return
    raise Unreachable(
        f"no member can be reached ({'; '.join(told)}): is the first host up, with an --address "
        "that this machine can connect to?"
    )


def _accepted(
    where: ClusterDir, token: JoinToken, attempt: Attempt, pause: Callable[[float], None]
) -> dict[str, Any]:
    """The answer that lets this process in.

    :raises PBClusterError: it is not let in, or nobody answers for too long.
    """
    body = {
        "token": token.shown,
        "role": attempt.role,
        "id": attempt.id,
        "curvePublic": secret_files.curve_pair(attempt.curve_secret)[1],
        "certificateRequest": attempt.request,
    }
    if attempt.role == "member":
        body |= _reached_at(attempt)
    client = AdminClient(token.urls[0], "", token.urls[1:], str(where.authority / "ca.pem"))
    until = time.monotonic() + ACCEPTED_WITHIN_S
    while True:
        try:
            return _checked(client.request("POST", "/join", body, timeout_s=_ASK_S))
        except Unavailable as error:
            # The answer may have been lost: the same keys are known again.
            if time.monotonic() >= until:
                raise Unreachable(f"{error}{_hint(str(error))}") from None
        pause(_POLL_S)


def _reached_at(attempt: Attempt) -> dict[str, str]:
    at = {use: f"tcp://{attempt.address}:{port}" for use, port in attempt.ports.items()}
    return at | {"admin": f"https://{attempt.address}:{attempt.ports['admin']}"}


def _hint(told: str) -> str:
    if "not yet valid" in told or "has expired" in told:
        return ": compare this machine's clock with the first host's"
    return ""


def _checked(answer: Any) -> dict[str, Any]:
    """:raises RemoteProtocolError: something is missing in it."""
    wanted = {"parcel", "members", "certificate", "authority", "clusterID"}
    if not isinstance(answer, dict) or not wanted <= answer.keys() or not answer["members"]:
        raise RemoteProtocolError("the answer to `join` lacks something: is it the same version?")
    return answer | {"cluster_id": answer["clusterID"]}


# -- writing --------------------------------------------------------------------------------------


def _write(
    where: ClusterDir, plan: Plan, attempt: Attempt, joined: dict[str, Any], parcel: dict[str, Any]
) -> None:
    name = attempt.id
    for folder in ("config", "secrets", "data", "log", "run"):
        (where.root / folder).mkdir(parents=True, exist_ok=True)
    for private in (where.root / "secrets", where.run):
        private.chmod(0o700)
    # Tenants' users pass through it to their own directories; it shows them nothing.
    (where.root / "data").chmod(0o711 if os.geteuid() == 0 else 0o700)
    pair = authority.Pair(joined["certificate"].encode(), attempt.tls_key.encode())
    if attempt.role == "member":
        write_bytes(where.authority / "ca.key", str(parcel["authority_key"]).encode())
        certificates.store_admin(where.admin_tls(name), pair)
        write_file(where.data(name) / config.FIRST_START, f"{BEGINNINGS[1]}\n")
    elif plan.node_tls:
        certificates.store(where.tls(name), joined["authority"].encode(), pair)
    own = parcel["secrets"] | {"curve_secret": attempt.curve_secret}
    write_file(where.secrets(name), to_toml(own), 0o600)
    write_file(where.peers_file, to_toml({"peers": _peers(attempt, joined)}))
    write_file(where.config(name), to_toml(_settings(plan, attempt, joined, parcel)))
    write_file(where.plan_file, to_toml(plan_content(plan)))
    where.joining_file.unlink(missing_ok=True)


def _peers(attempt: Attempt, joined: dict[str, Any]) -> dict[str, Any]:
    rows = {
        member["id"]: {"role": "member", "curve_public": member["curvePublic"]}
        for member in joined["members"]
    }
    public = secret_files.curve_pair(attempt.curve_secret)[1]
    return rows | {attempt.id: {"role": attempt.role, "curve_public": public}}


def _settings(
    plan: Plan, attempt: Attempt, joined: dict[str, Any], parcel: dict[str, Any]
) -> dict[str, Any]:
    """The content of ``config/<id>.toml``."""
    name, host = attempt.id, attempt.address
    others = [member for member in joined["members"] if member["id"] != name]

    def all_of(use: str) -> list[str]:
        return [f"{member[use]}#{member['id']}" for member in others]

    own: dict[str, Any] = {
        "id": name,
        "cluster_id": plan.cluster_id,
        "data_dir": f"../data/{name}",
        "secrets_file": f"../secrets/{name}.toml",
        "peers_file": "peers.toml",
    }
    if attempt.role != "member":
        own |= {
            "members": all_of("requests"),
            "broadcasts": all_of("broadcasts"),
            "listen": f"{host}:{attempt.ports['http']}",
        }
        own |= {"node_tls": f"../secrets/{name}.tls"} if plan.node_tls else {}
        return dict(parcel["settings"] | own)
    at = _reached_at(attempt)
    own |= {
        "request_endpoint": at["requests"],
        "broadcast_endpoint": at["broadcasts"],
        "raft_endpoint": at["raft"],
        "admin_listen": f"{host}:{attempt.ports['admin']}",
        "admin_tls": f"../secrets/{name}.admin",
        "admin_ca": "../secrets/ca/ca.pem",
        "authority": "../secrets/ca",
        # To be reached first. The rest it learns: what a member's settings say of another goes
        # before what the registry says, and these would grow old.
        "raft_peers": all_of("raft"),
    }
    return dict(parcel["settings"] | own)
