"""Requests to the proxy, as bytes: CONNECT and absolute-form (RFC 9110, 9112).

Pure. Strict, since only PocketBase speaks here: what is not understood is refused with a status and
a sentence.
"""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import urlsplit

import attrs

MAX_HEAD_BYTES = 32 * 1024
_LINE = re.compile(rb"([A-Z]{3,16}) ([\x21-\x7e]{1,8192}) HTTP/1\.1")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
#: Between the client and us; the server gets its own Connection.
_OURS = frozenset(
    (b"proxy-authorization", b"proxy-connection", b"connection", b"keep-alive", b"host", b"te")
)


class Refused(Exception):
    """The request is not carried out. :ivar status: of the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@attrs.frozen
class Order:
    """What the tenant wants.

    :ivar user: the name in its credentials. :ivar password: never shown.
    :ivar forward: the request's head as the server gets it; empty: CONNECT.
    """

    host: str
    port: int
    user: str
    password: str = attrs.field(repr=False)
    forward: bytes = attrs.field(repr=False)


def parse(head: bytes) -> Order:
    """A head up to and without the empty line. :raises Refused: it is no order to a proxy."""
    first, *lines = head.split(b"\r\n")
    match = _LINE.fullmatch(first)
    if match is None:
        raise Refused(400, "not an HTTP/1.1 request to a proxy")
    method, target = match.groups()
    fields = [_field(line) for line in lines]
    user, password = _credentials(fields)
    if method == b"CONNECT":
        host, port = _authority(target, None)
        return Order(host, port, user, password, b"")
    parts = urlsplit(target)
    if parts.scheme != b"http" or b"@" in parts.netloc:
        raise Refused(400, "only CONNECT, and http:// URLs in full")
    host, port = _authority(parts.netloc, 80)
    path = (parts.path or b"/") + (b"?" + parts.query if parts.query else b"")
    kept = [name + b": " + value for name, value in fields if name.lower() not in _OURS]
    start = method + b" " + path + b" HTTP/1.1"
    own = [b"Host: " + parts.netloc, b"Connection: close"]
    return Order(host, port, user, password, b"\r\n".join([start, *own, *kept, b"", b""]))


def _field(line: bytes) -> tuple[bytes, bytes]:
    match = _FIELD.fullmatch(line)
    if match is None:
        raise Refused(400, "a header field is malformed")
    return match.group(1), match.group(2).rstrip(b" \t")


def _credentials(fields: list[tuple[bytes, bytes]]) -> tuple[str, str]:
    values = [value for name, value in fields if name.lower() == b"proxy-authorization"]
    scheme, _, encoded = (values[0] if len(values) == 1 else b"").partition(b" ")
    try:
        if scheme.lower() != b"basic":
            raise ValueError
        user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (ValueError, binascii.Error):
        raise Refused(407, "credentials are needed") from None
    if not colon:
        raise Refused(407, "credentials are needed")
    return user, password


def _authority(text: bytes, default_port: int | None) -> tuple[str, int]:
    try:
        parts = urlsplit(b"//" + text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise Refused(400, "the host or port is malformed") from None
    port = default_port if port is None else port
    if not host or not port or b"@" in text or len(host) > 253:
        raise Refused(400, "a host and a port are needed")
    return host.decode("ascii"), port
