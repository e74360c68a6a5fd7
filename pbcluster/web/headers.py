"""Header fields: scanning a head's lines strictly, and lists of (name, value) pairs.

Pure. Names keep the case they came in; comparisons are made in lower case. What must hold: a field
that one recipient may read differently from another is refused here, never repaired (RFC 9112,
section 5): white space around a name, folded lines, control characters, bare CR or LF.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pbcluster.errors import LocalProtocolError
from pbcluster.web.interfaces import Headers

Field = tuple[bytes, bytes]

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: Fields about one connection, never passed on (RFC 9110, section 7.6.1).
HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
#: What the core writes itself, whatever it was told.
FRAMING = frozenset((b"connection", b"content-length", b"expect", b"transfer-encoding"))
#: The fields that decide about framing and the connection; ``scan_fields`` collects them.
DECISIVE = frozenset((b"connection", b"content-length", b"expect", b"host", b"transfer-encoding"))
#: Fields that ``Connection`` may not remove: the message would mean something else.
_UNREMOVABLE = frozenset((b"host", b"content-length", b"content-type", b"content-encoding"))
_PLAIN_CONNECTION = frozenset((b"keep-alive", b"close", b"Keep-Alive", b"Close", b""))

_FIELD_BYTES = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)])
#: Each of them as itself, all others as another one.
_ONE_LINE = bytes(byte if byte in _FIELD_BYTES else byte ^ 0x80 for byte in range(256))
#: Names seen, by their spelling → in lower case; saves checking the usual ones again and again.
_KNOWN_NAMES: dict[bytes, bytes] = {}
_KNOWN_NAMES_MAX = 2048


class BadField(ValueError):
    """A header field that is not beyond doubt; the text says what is wrong with it."""


def check_lines(block: bytes) -> None:
    """Refuse control characters and every CR or LF that is not part of a CRLF pair.

    :param block: a head without its last empty line.
    :raises BadField: one is in it.
    """
    if block.translate(_ONE_LINE) == block:
        return  # the fastest way to look at all bytes; a single line is done with it
    # Only CR and LF may be left over. With as many of each as there are pairs, all are in pairs.
    if block.translate(None, _FIELD_BYTES) != b"\r\n" * block.count(b"\r\n"):
        raise BadField("control character, bare CR or bare LF in the head")


def scan_fields(lines: Iterable[bytes]) -> tuple[list[Field], dict[bytes, list[bytes]]]:
    """Split field lines (already through ``check_lines``) into pairs.

    :return: all pairs in order, and the values of the ``DECISIVE`` ones by lower-case name.
    :raises BadField: a line without a colon, or a name that is no token.
    """
    fields = []
    decisive: dict[bytes, list[bytes]] = {}
    known = _KNOWN_NAMES
    for line in lines:
        name, colon, value = line.partition(b":")
        lower = known.get(name)
        if lower is None:
            lower = _learn(name)
        if not colon:
            raise BadField("header line without a colon")
        value = value.strip(b" \t")
        if lower in DECISIVE:
            decisive.setdefault(lower, []).append(value)
        fields.append((name, value))
    return fields, decisive


def _learn(name: bytes) -> bytes:
    if TOKEN.fullmatch(name) is None:
        raise BadField("header name with a character that is not allowed, or folded line")
    lower = name.lower()
    if len(_KNOWN_NAMES) < _KNOWN_NAMES_MAX and len(name) <= 64:
        _KNOWN_NAMES[name] = lower
    return lower


def connection_options(values: Iterable[bytes]) -> frozenset[bytes]:
    """The options of all Connection fields, in lower case."""
    return frozenset(
        option.strip(b" \t").lower() for value in values for option in value.split(b",")
    ) - {b""}


def end_to_end(headers: Headers, drop: frozenset[bytes] = frozenset()) -> list[Field]:
    """The fields that may be passed on: without hop-by-hop ones and those Connection names.

    :param drop: further fields to leave out, in lower case.
    """
    unwanted = HOP_BY_HOP | drop if drop else HOP_BY_HOP
    kept = []
    named: list[bytes] = []
    for field in headers:
        lower = field[0].lower()
        if lower not in unwanted:
            kept.append(field)
        elif lower == b"connection" and field[1] not in _PLAIN_CONNECTION:
            named.append(field[1])
    if named:
        removed = connection_options(named) - _UNREMOVABLE
        kept = [field for field in kept if field[0].lower() not in removed]
    return kept


def without(headers: Headers, *names: bytes) -> list[Field]:
    """The fields except those called ``names`` (given in lower case)."""
    return [field for field in headers if field[0].lower() not in names]


def replaced(headers: Headers, name: bytes, value: bytes) -> list[Field]:
    """The fields with exactly one called ``name``, standing last."""
    return [*without(headers, name.lower()), (name, value)]


def encode_lines(headers: Headers, first_line: bytes = b"") -> bytes:
    """Lines of a head, each with its CRLF.

    :param headers: fields; those of ``FRAMING`` are left out.
    :param first_line: stands before them if there is one.
    :raises LocalProtocolError: a CR or LF in a field: it would become a field of its own.
    """
    lines = [first_line] if first_line else []
    lines += [name + b": " + value for name, value in headers if name.lower() not in FRAMING]
    lines.append(b"")
    encoded = b"\r\n".join(lines)
    if encoded.count(b"\n") != len(lines) - 1 or encoded.count(b"\r") != len(lines) - 1:
        raise LocalProtocolError("a header field to be sent has a line break in it")
    return encoded
