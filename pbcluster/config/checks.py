"""What a setting is, and the checks of their values: each gives the value back in its right type.

Pure. A check raises ValueError or TypeError; who called it names the setting and what is allowed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs

from pbcluster import records

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


def log_format(value: Any) -> str:
    """``text`` or ``json``."""
    if value not in ("text", "json"):
        raise ValueError
    return str(value)


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


def listen_where(value: Any) -> tuple[str, int] | str:
    """``HOST:PORT`` as :func:`listen_address`, or an endpoint string of a known kind."""
    kind, _, rest = text(value).partition(":")
    if kind in ENDPOINT_KINDS and rest:
        return str(value)
    return listen_address(value)


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


def number_range(value: Any) -> str:
    """``FIRST-LAST`` of numbers from 1 on, both included; or empty."""
    if value:
        split_range(text(value))
    return str(value)


def split_range(value: str) -> tuple[int, int]:
    """First and last of a range."""
    first, _, last = value.partition("-")
    low, high = int(first), int(last)
    if not 1 <= low <= high < 2**32 - 1:
        raise ValueError
    return low, high


def one_of(*words: str) -> Check:
    """One of the words."""

    def check(value: Any) -> str:
        if value not in words:
            raise ValueError
        return str(value)

    return check


#: Kinds of Twisted's endpoint strings that listen at once, and those of our own plugins.
ENDPOINT_KINDS = frozenset(("tcp", "tcp6", "unix", "systemd", "libuv", "pbtls"))
#: What is allowed, in words, where several settings say the same.
PORT = "an IP address and a port, HOST:PORT (port 0: any free one)"
WHERE = f"{PORT}, or an endpoint string like tcp:8080:interface=10.0.0.1, unix:PATH"
ENDPOINT = "tcp://HOST:PORT"
DIR = "a directory"
FILE = "a file"
