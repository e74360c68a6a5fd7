"""The settings of the three services: TOML file first, flags over it, checked once.

Each service has one frozen class whose fields carry their own help, check and default, so that the
flags of ``twistd``, the keys of the TOML file, the documentation and the error messages cannot
drift apart. A wrong value names the option, the value and what is allowed.

Secrets stand in a TOML file of their own (``secrets_file``, mode 0600), never in a flag, so that
no process list shows them. This module reads files when asked; it opens nothing else.
"""

from __future__ import annotations

import ipaddress
import stat
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import attrs

from pbcluster import records
from pbcluster.errors import ConfigError, InvalidInput

Check = Callable[[Any], Any]


@attrs.frozen
class Setting:
    """What one setting is: shown in ``--help`` and in error messages."""

    help: str
    allowed: str
    check: Check


def setting(help: str, allowed: str, check: Check, default: Any = attrs.NOTHING) -> Any:
    """A field of a settings class.

    :param help: one line for ``--help``, with the unit.
    :param allowed: what values are accepted, in words.
    :param check: gives the value back in its right type or raises ValueError/TypeError.
    :param default: none means that the setting is required.
    """
    return attrs.field(default=default, metadata={"setting": Setting(help, allowed, check)})


# -- checks ---------------------------------------------------------------------------------------


def text(value: Any) -> str:
    """A string that is not empty."""
    if not isinstance(value, str) or not value.strip() or "\x00" in value:
        raise ValueError
    return value


def optional_text(value: Any) -> str:
    """A string, perhaps empty."""
    if not isinstance(value, str) or "\x00" in value:
        raise ValueError
    return value


def path(value: Any) -> Path:
    """A file or directory; a leading ``~`` is the home directory."""
    return Path(text(str(value))).expanduser()


def boolean(value: Any) -> bool:
    """true or false; as a flag also yes/no, on/off, 1/0."""
    words = {"true": True, "yes": True, "on": True, "1": True}
    words |= {"false": False, "no": False, "off": False, "0": False}
    return value if isinstance(value, bool) else words[str(value).lower()]


def between(low: float, high: float, kind: type[int] | type[float]) -> Check:
    """A number of ``kind`` from ``low`` to ``high``, both included."""

    def check(value: Any) -> float:
        if isinstance(value, bool):
            raise ValueError
        number = kind(value)
        if not low <= number <= high or (kind is int and number != float(value)):
            raise ValueError
        return number

    return check


def listen_address(value: Any) -> tuple[str, int]:
    """``HOST:PORT`` with an IP address; port 0 lets the system choose."""
    host, _, port = text(value).rpartition(":")
    number = int(port)
    ipaddress.ip_address(host.strip("[]"))
    if not 0 <= number <= 65535:
        raise ValueError
    return host.strip("[]"), number


def tcp_endpoint(value: Any) -> str:
    """``tcp://HOST:PORT``."""
    parts = urlsplit(text(value))
    if parts.scheme != "tcp" or not parts.hostname or parts.port is None or parts.path:
        raise ValueError
    return str(value)


def member_endpoint(value: Any) -> str:
    """``tcp://HOST:PORT#MEMBER_ID``."""
    endpoint, separator, member = text(value).partition("#")
    if not separator:
        raise ValueError
    return f"{tcp_endpoint(endpoint)}#{records.check_process_id(member)}"


def member_url(value: Any) -> str:
    """``http://HOST:PORT#MEMBER_ID``."""
    url, separator, member = text(value).partition("#")
    if not separator:
        raise ValueError
    return f"{http_url(url)}#{records.check_process_id(member)}"


def advertised(value: Any) -> str:
    """``USE=ADDRESS`` of a member: raft, requests and broadcasts are endpoints, admin is a URL."""
    use, _, address = text(value).partition("=")
    checks = dict.fromkeys(("raft", "requests", "broadcasts"), tcp_endpoint)
    return f"{use}={(checks | {'admin': http_url})[use](address)}"


def http_url(value: Any) -> str:
    """``http://HOST[:PORT]`` or https, without a path."""
    parts = urlsplit(text(value))
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError
    parts.port  # noqa: B018 - raises ValueError for a port out of range
    return str(value).rstrip("/")


def several(check: Check, at_least: int = 0) -> Check:
    """A list (in a flag: separated by commas) whose every item passes ``check``."""

    def check_all(value: Any) -> tuple[Any, ...]:
        items = [part for part in value.split(",") if part] if isinstance(value, str) else value
        if not isinstance(items, list | tuple) or len(items) < at_least:
            raise ValueError
        return tuple(check(item) for item in items)

    return check_all


def process_id(value: Any) -> str:
    """The id of a member, node or gateway."""
    return records.check_process_id(value)


def domain(value: Any) -> str:
    """A base domain: one label (``localhost``) or more."""
    word = text(value).lower().rstrip(".")
    for label in word.split("."):
        records.check_name(label)
    return word


def network(value: Any) -> str:
    """An address range like 10.0.0.0/8."""
    return str(ipaddress.ip_network(text(value)))


def one_of(*words: str) -> Check:
    """One of the words."""

    def check(value: Any) -> str:
        if value not in words:
            raise ValueError
        return str(value)

    return check


#: A file in the data directory of a control-plane member that says: this id never ran, it may
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

_PORT = "an IP address and a port, HOST:PORT (port 0: any free one)"
_ENDPOINT = "tcp://HOST:PORT"
_DIR = "a directory"
_FILE = "a file"


# -- what all three share -------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class ServiceConfig:
    """Settings of every service."""

    id: str = setting(
        "name of this process in the cluster", "a word like member_1 or node_a", process_id
    )
    cluster_id: str = setting("the cluster's own random id", "the word that init wrote", text)
    data_dir: Path = setting("where this process keeps its files", _DIR, path)
    secrets_file: Path = setting("TOML file with this process's secrets, mode 0600", _FILE, path)
    peers_file: Path = setting("TOML file with the public keys of all processes", _FILE, path)
    insecure_plain_sockets: bool = setting(
        "do without encryption between processes (loopback only)", "true or false", boolean, False
    )


@attrs.frozen(kw_only=True)
class MemberConfig(ServiceConfig):
    """Settings of a control-plane member (``twistd pbcp``)."""

    base_domain: str = setting(
        "tenants answer at NAME.BASE_DOMAIN", "a domain like localhost", domain, "localhost"
    )
    request_endpoint: str = setting(
        "where nodes and gateways ask", _ENDPOINT, tcp_endpoint, "tcp://127.0.0.1:5555"
    )
    broadcast_endpoint: str = setting(
        "where broadcasts are published", _ENDPOINT, tcp_endpoint, "tcp://127.0.0.1:5556"
    )
    admin_listen: tuple[str, int] = setting(
        "address of the admin API", _PORT, listen_address, "127.0.0.1:8095"
    )
    node_down_after_s: float = setting(
        "seconds without a heartbeat until a node counts as down",
        "1 to 3600",
        between(1, 3600, float),
        15.0,
    )
    raft_endpoint: str = setting(
        "where the other members are heard", _ENDPOINT, tcp_endpoint, "tcp://127.0.0.1:7000"
    )
    raft_peers: tuple[str, ...] = setting(
        "the other members and where they are heard; none: this member is alone",
        f"several of {_ENDPOINT}#MEMBER_ID",
        several(member_endpoint),
        (),
    )
    request_peers: tuple[str, ...] = setting(
        "where nodes and gateways ask the other members",
        f"several of {_ENDPOINT}#MEMBER_ID",
        several(member_endpoint),
        (),
    )
    broadcast_peers: tuple[str, ...] = setting(
        "where the other members publish broadcasts",
        f"several of {_ENDPOINT}#MEMBER_ID",
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
        f"several of raft={_ENDPOINT}, requests={_ENDPOINT}, broadcasts={_ENDPOINT}, "
        "admin=http://HOST:PORT",
        several(advertised),
        (),
    )


@attrs.frozen(kw_only=True)
class NodeConfig(ServiceConfig):
    """Settings of a node (``twistd pbnode``)."""

    listen: tuple[str, int] = setting(
        "address of the front door, for gateways only", _PORT, listen_address, "127.0.0.1:8090"
    )
    advertise: str = setting(
        "base URL by which gateways reach the front door; empty: http://LISTEN",
        "http://HOST:PORT or nothing",
        lambda value: value and http_url(value),
        "",
    )
    metrics_listen: tuple[str, int] = setting(
        "address of health and metrics", _PORT, listen_address, "127.0.0.1:0"
    )
    members: tuple[str, ...] = setting(
        "request endpoints of all members",
        f"one or more of {_ENDPOINT}",
        several(tcp_endpoint, 1),
    )
    broadcasts: tuple[str, ...] = setting(
        "broadcast endpoints of all members",
        f"one or more of {_ENDPOINT}",
        several(tcp_endpoint, 1),
    )
    capacity: int = setting(
        "tenants at once", "1 to 10000", between(1, 10000, int), records.DEFAULT_CAPACITY
    )
    idle_stop_s: float = setting(
        "stop a tenant after so many seconds without a request",
        "0.1 to 86400",
        between(0.1, 86400, float),
        900.0,
    )
    region: str = setting("region of this machine", "a word or nothing", optional_text, "")
    zone: str = setting("zone of this machine", "a word or nothing", optional_text, "")
    s3_endpoint: str = setting("S3's URL", "http(s)://HOST:PORT", http_url)
    s3_bucket: str = setting("S3 bucket of the cluster", "3 to 63 characters", text)
    s3_region: str = setting("S3 region", "a word", text, "us-east-1")
    binaries: tuple[str, ...] = setting(
        "use another build of a binary, NAME=PATH",
        "pocketbase=PATH or litestream=PATH, several by commas",
        several(text),
        (),
    )


@attrs.frozen(kw_only=True)
class GatewayConfig(ServiceConfig):
    """Settings of a gateway (``twistd pbgateway``)."""

    listen: tuple[str, int] = setting("public address", _PORT, listen_address, "127.0.0.1:8080")
    metrics_listen: tuple[str, int] = setting(
        "address of health and metrics", _PORT, listen_address, "127.0.0.1:0"
    )
    members: tuple[str, ...] = setting(
        "request endpoints of all members",
        f"one or more of {_ENDPOINT}",
        several(tcp_endpoint, 1),
    )
    broadcasts: tuple[str, ...] = setting(
        "broadcast endpoints of all members",
        f"one or more of {_ENDPOINT}",
        several(tcp_endpoint, 1),
    )
    base_domains: tuple[str, ...] = setting(
        "a request for NAME.DOMAIN is for tenant NAME",
        "one or more domains, by commas",
        several(domain, 1),
        ("localhost",),
    )
    route_ttl_s: float = setting(
        "seconds a route is used without asking again",
        "1 to 86400",
        between(1, 86400, float),
        300.0,
    )
    hold_s: float = setting(
        "seconds a request waits for a tenant that starts or moves",
        "0 to 300",
        between(0, 300, float),
        30.0,
    )
    max_body_bytes: int = setting(
        "largest request body, in bytes",
        "1024 to 2^40",
        between(1024, 2**40, int),
        32 * 1024 * 1024,
    )


# -- loading --------------------------------------------------------------------------------------

C = TypeVar("C", bound=ServiceConfig)


def settings_of(kind: type[ServiceConfig]) -> dict[str, tuple[Setting, Any]]:
    """Name → (its :class:`Setting`, its default or ``attrs.NOTHING``) of a settings class."""
    return {field.name: (field.metadata["setting"], field.default) for field in attrs.fields(kind)}


def load(kind: type[C], file: Path | None, flags: Mapping[str, Any] | None = None) -> C:
    """Read a service's settings.

    :param kind: the service's settings class.
    :param file: TOML file with the settings' names as keys, or None.
    :param flags: settings given on the command line; they win over the file. A relative path in
        the file is relative to the file's directory, in a flag to the current one.
    :raises ConfigError: unreadable file, unknown or missing setting, or a wrong value.
    """
    given: dict[str, tuple[Any, str]] = {}
    if file is not None:
        for name, value in read_toml(file).items():
            given[name] = (_rooted(kind, name, value, file.parent), f"in {file}")
    for name, value in (flags or {}).items():
        if value is not None:
            given[name] = (value, f"--{name.replace('_', '-')}")
    known = settings_of(kind)
    for name, (_, where) in given.items():
        if name not in known:
            raise ConfigError(
                f"unknown setting {name!r} {where}; known are: {', '.join(sorted(known))}"
            )
    return kind(**{name: _value(name, known[name], given.get(name)) for name in known})


def _rooted(kind: type[ServiceConfig], name: str, value: Any, root: Path) -> Any:
    field = settings_of(kind).get(name)
    if field is not None and field[0].check is path and isinstance(value, str):
        return str(root / Path(value).expanduser())
    return value


def _value(name: str, known: tuple[Setting, Any], given: tuple[Any, str] | None) -> Any:
    described, default = known
    if given is None:
        if default is attrs.NOTHING:
            raise ConfigError(
                f"setting {name!r} is missing: give --{name.replace('_', '-')} or put it into the "
                f"configuration file; allowed: {described.allowed}"
            )
        return described.check(default) if isinstance(default, str) else default
    value, where = given
    try:
        return described.check(value)
    except (ValueError, TypeError, KeyError, InvalidInput):
        raise ConfigError(
            f"setting {name!r} ({where}) is {value!r}; allowed: {described.allowed}"
        ) from None


def read_toml(file: Path) -> dict[str, Any]:
    """A TOML file as a dictionary.

    :raises ConfigError: it cannot be read or is no TOML.
    """
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from None


@attrs.frozen(kw_only=True, repr=False)
class Secrets:
    """The secrets of one process. Its ``repr`` shows none, so that no log can.

    ``gateway_keys`` maps a gateway's id to its HMAC key: a gateway holds its own, a node all.
    ``tenant_key`` is what PocketBase's settings encryption keys are derived from (nodes).
    ``admin_token_hash`` is the SHA-256 of the admin token, in hex (members).
    ``curve_secret`` is this process's CURVE key in Z85 (40 characters), its public half standing in
    the peers file.
    """

    s3_access_key: str = ""
    s3_secret_key: str = ""
    tenant_key: str = ""
    admin_token_hash: str = ""
    curve_secret: str = ""
    gateway_keys: Mapping[str, str] = {}

    def __repr__(self) -> str:
        return "<Secrets>"


def load_secrets(file: Path) -> Secrets:
    """Read a secrets file.

    :raises ConfigError: unreadable, readable by others, or with an unknown key.
    """
    content = read_toml(file)
    if stat.S_IMODE(file.stat().st_mode) & 0o077:
        raise ConfigError(f"{file} holds secrets and may be read by its owner only: chmod 600")
    unknown = set(content) - {field.name for field in attrs.fields(Secrets)}
    if unknown:
        raise ConfigError(f"unknown secret {sorted(unknown)[0]!r} in {file}")
    return Secrets(**content)


@attrs.frozen
class Peer:
    """One process of the cluster as the others know it."""

    id: str
    role: str
    curve_public: str


def load_peers(file: Path) -> dict[str, Peer]:
    """Read the peers file: a table ``[peers.ID]`` with ``role`` and ``curve_public`` for each.

    :raises ConfigError: unreadable, or a row lacks something.
    """
    table = read_toml(file).get("peers", {})
    roles = ("member", "node", "gateway")
    found = {}
    for name, row in table.items():
        role, key = row.get("role"), row.get("curve_public", "")
        if role not in roles or len(key) not in (0, 40):
            raise ConfigError(
                f"peer {name!r} in {file} needs a role of {', '.join(roles)} and a 40-character "
                "curve_public key"
            )
        found[name] = Peer(name, role, key)
    return found
