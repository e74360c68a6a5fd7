"""Requests whose body is not beyond doubt: bytes → status.

If such a body comes in pieces, its beginning may be on its way upstream when the fault shows: then
the upstream's connection is aborted, so that no whole request is ever seen there.
"""

from __future__ import annotations

from pbcluster.testing.http_corpus.cases import chunked
from pbcluster.testing.http_corpus.refused_heads import Refused

_END = b"\r\na\r\n0\r\n\r\n"

BODIES: Refused = {
    "09 0x": (chunked(b"0x1" + _END), 400),
    "09 plus": (chunked(b"+1" + _END), 400),
    "09 minus": (chunked(b"-1" + _END), 400),
    "09 17 digits": (chunked(b"00000000000000001" + _END), 400),
    "09 beyond 64 bits": (chunked(b"10000000000000001" + _END), 400),
    "09 beyond 128 bits": (chunked(b"f" * 33 + _END), 400),
    "09 underscore": (chunked(b"1_0" + _END), 400),
    "09 no hexadecimal digit": (chunked(b"g" + _END), 400),
    "09 no digits": (chunked(b"" + _END), 400),
    "09 no digits, extension": (chunked(b";a" + _END), 400),
    "09 space behind": (chunked(b"1 " + _END), 400),
    "09 space before": (chunked(b" 1" + _END), 400),
    "09 space and extension": (chunked(b"1 ;a" + _END), 400),
    "09 tab": (chunked(b"1\t" + _END), 400),
    "09 vertical tab": (chunked(b"1\x0b" + _END), 400),
    "09 NUL": (chunked(b"1\x00" + _END), 400),
    "09 NUL in an extension": (chunked(b"1;\x00" + _END), 400),
    "09 comma": (chunked(b"1,1" + _END), 400),
    "09 fraction": (chunked(b"1.0" + _END), 400),
    "09 high byte": (chunked(b"\xb9" + _END), 400),
    "10 bare LF in the size line": (chunked(b"1\na\r\n0\r\n\r\n"), 400),
    "10 bare LF in an extension": (chunked(b"1;a\nb" + _END), 400),
    "10 bare LF after an extension": (chunked(b"1;a\na\r\n0\r\n\r\n"), 400),
    "10 bare LF in a quoted extension": (chunked(b'1;a="b\nc"' + _END), 400),
    "10 bare CR in the size line": (chunked(b"1\ra\r\n0\r\n\r\n"), 400),
    "10 bare CR in an extension": (chunked(b"1;a\rb" + _END), 400),
    "10 CR CR LF": (chunked(b"1\r" + _END), 400),
    "10 CRLF in a quoted extension": (chunked(b'1;a="\r\nxyz' + _END), 400),
    "10 control in an extension": (chunked(b"1;a=\x01" + _END), 400),
    "10 endless extension": (chunked(b"1;" + b"a" * 300 + _END), 400),
    "11 chunk too long": (chunked(b"1\r\nab\r\n0\r\n\r\n"), 400),
    "11 chunk too short": (chunked(b"3\r\nab\r\n0\r\n\r\n"), 400),
    "11 chunk ends in LF": (chunked(b"1\r\na\n0\r\n\r\n"), 400),
    "11 chunk ends in CR": (chunked(b"1\r\na\r0\r\n\r\n"), 400),
    "11 chunk ends in CR CR": (chunked(b"1\r\na\r\r0\r\n\r\n"), 400),
    "11 chunk ends in LF CR": (chunked(b"1\r\na\n\r0\r\n\r\n"), 400),
    "11 chunk without an end": (chunked(b"1\r\na0\r\n\r\n"), 400),
    "11 empty line between": (chunked(b"1\r\na\r\n\r\n0\r\n\r\n"), 400),
    "11 last chunk ends in LF": (chunked(b"0\n\n"), 400),
    "11 last chunk, then LF": (chunked(b"0\r\n\n"), 400),
    "11 last chunk, then CR": (chunked(b"0\r\n\rGET / HTTP/1.1\r\n\r\n"), 400),
    "11 body is no chunk": (chunked(b"a=b&c=d\r\n\r\n"), 400),
    "39 bad trailer": (chunked(b"1\r\na\r\n0\r\nA : b\r\n\r\n"), 400),
    "39 trailer without a colon": (chunked(b"0\r\nA\r\n\r\n"), 400),
    "39 trailer is a request": (chunked(b"0\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n"), 400),
    "39 folded trailer": (chunked(b"0\r\nA: b\r\n c\r\n\r\n"), 400),
    "39 bare LF in a trailer": (chunked(b"1\r\na\r\n0\r\nA: b\n\r\n"), 400),
    "39 bare CR in a trailer": (chunked(b"0\r\nA: b\rC: d\r\n\r\n"), 400),
    "39 NUL in a trailer": (chunked(b"0\r\nA: \x00\r\n\r\n"), 400),
    "39 endless trailer": (chunked(b"1\r\na\r\n0\r\nA: " + b"b" * 9000 + b"\r\n\r\n"), 400),
    "39 endless trailers": (chunked(b"0\r\n" + b"A: b\r\n" * 3000 + b"\r\n"), 400),
}
