"""Odd requests that are right, or made right: bytes → the one request that reaches an upstream."""

from __future__ import annotations

from pbcluster.testing.http_corpus.cases import chunked, get, line, post, up
from pbcluster.testing.http_corpus.refused_lines import (
    FIELDS,
    FIELDS_BYTES,
    LINE_BYTES,
    long_field,
    long_line,
)
from pbcluster.testing.http_reference import Message

Accepted = dict[str, tuple[bytes, Message]]

_CHUNKED = b"Transfer-Encoding: chunked"
_OLD = b"GET / HTTP/1.0\r\nHost: a.localhost\r\n"


def _chunks(body: bytes, content: bytes) -> tuple[bytes, Message]:
    return chunked(body), up(b"POST /", _CHUNKED, body=content)


def _coding(field: bytes) -> tuple[bytes, Message]:
    raw = post(field, body=b"1\r\na\r\n0\r\n\r\n")
    return raw, up(b"POST /", _CHUNKED, body=b"a")


def _length(value: bytes, sent: bytes) -> tuple[bytes, Message]:
    size = int(sent)
    raw = post(b"Content-Length:" + value, body=b"x" * size)
    return raw, up(b"POST /", b"Content-Length: " + sent, body=b"x" * size)


def _host(value: bytes) -> tuple[bytes, Message]:
    return get(host=b"Host: " + value), up(host=b"Host: " + value)


def _target(target: bytes, sent: bytes | None = None) -> tuple[bytes, Message]:
    return line(b"GET " + target + b" HTTP/1.1"), up(b"GET " + (sent or target))


def _dropped(*lines: bytes) -> tuple[bytes, Message]:
    """Fields of which none goes up."""
    return get(*lines), up()


BODIES: Accepted = {
    "03 chunked in capitals": _coding(b"Transfer-Encoding: CHUNKED"),
    "03 chunked behind a tab": _coding(b"Transfer-Encoding:\tchunked"),
    "03 chunked without a blank": _coding(b"Transfer-Encoding:chunked"),
    "03 chunked before blanks": _coding(b"transfer-encoding: chunked \t "),
    "07 length of nothing": _length(b" 0", b"0"),
    "08 zeros first": _length(b" 0003", b"3"),
    "08 blanks around": _length(b"\t 3 \t", b"3"),
    "08 eighteen digits": _length(b" 000000000000000001", b"1"),
    "09 zeros first": _chunks(b"0000000000000001\r\na\r\n0\r\n\r\n", b"a"),
    "09 capitals": _chunks(b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    "09 small letters": _chunks(b"a\r\n0123456789\r\n00\r\n\r\n", b"0123456789"),
    "09 nothing": _chunks(b"0\r\n\r\n", b""),
    "09 looks like chunks": _chunks(b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n"),
    "10 extension": _chunks(b"1;a\r\nx\r\n0;b=c\r\n\r\n", b"x"),
    "10 quoted extension": _chunks(b'1;a="b;c"\r\nx\r\n0\r\n\r\n', b"x"),
    "10 blank before an extension's name": _chunks(b"1; a=b\r\nx\r\n0\r\n\r\n", b"x"),
    "10 extension like a size": _chunks(b"1;5\r\nx\r\n0\r\n\r\n", b"x"),
    "39 trailers": _chunks(b"1\r\nx\r\n0\r\nX-Tenant-ID: b\r\nHost: b\r\n\r\n", b"x"),
    "39 trailer with a length": _chunks(b"1\r\nx\r\n0\r\nContent-Length: 9\r\n\r\n", b"x"),
    "39 trailer with a coding": _chunks(b"0\r\nTransfer-Encoding: x\r\n\r\n", b""),
    "39 trailer of the platform": _chunks(b"0\r\nX-PBCluster-Tenant: x\r\n\r\n", b""),
    "39 gzip untouched": (
        post(b"Content-Encoding: gzip", b"Content-Length: 3", body=b"\x1f\x8b\x00"),
        up(b"POST /", b"Content-Encoding: gzip", b"Content-Length: 3", body=b"\x1f\x8b\x00"),
    ),
    "39 Range passed": (get(b"Range: bytes=0-1"), up(b"GET /", b"Range: bytes=0-1")),
    "44 GET with a body": (
        get(b"Content-Length: 2") + b"hi",
        up(b"GET /", b"Content-Length: 2", body=b"hi"),
    ),
    "44 GET with chunks": (
        get(_CHUNKED) + b"2\r\nhi\r\n0\r\n\r\n",
        up(b"GET /", _CHUNKED, body=b"hi"),
    ),
    "44 HEAD with a body": (
        get(b"Content-Length: 2").replace(b"GET", b"HEAD") + b"hi",
        up(b"HEAD /", b"Content-Length: 2", body=b"hi"),
    ),
    "44 DELETE with chunks": (
        get(_CHUNKED).replace(b"GET", b"DELETE") + b"2\r\nhi\r\n0\r\n\r\n",
        up(b"DELETE /", _CHUNKED, body=b"hi"),
    ),
    "44 OPTIONS with a body": (
        get(b"Content-Length: 2").replace(b"GET", b"OPTIONS") + b"hi",
        up(b"OPTIONS /", b"Content-Length: 2", body=b"hi"),
    ),
    "44 POST without a length": (post(), up(b"POST /")),
    "44 body is a request": (
        post(b"Content-Length: 37", body=get()[:37].ljust(37)),
        up(b"POST /", b"Content-Length: 37", body=get()[:37].ljust(37)),
    ),
}

HOSTS_AND_TARGETS: Accepted = {
    "20 absolute equal": _target(b"http://a.localhost/x?y", b"/x?y"),
    "20 absolute in capitals": _target(b"HTTP://A.LOCALHOST/X", b"/X"),
    "20 absolute with port 80": _target(b"http://a.localhost:80/x", b"/x"),
    "20 absolute with a dot": _target(b"http://a.localhost./x", b"/x"),
    "20 absolute without a path": _target(b"http://a.localhost", b"/"),
    "20 absolute with a query only": _target(b"http://a.localhost?x", b"/?x"),
    "20 absolute with two slashes": _target(b"http://a.localhost//b/c", b"//b/c"),
    "20 absolute in the path": _target(b"/http://b.localhost/"),
    "20 star": (line(b"OPTIONS * HTTP/1.1"), up(b"OPTIONS *")),
    "20 absolute star": (line(b"OPTIONS http://a.localhost HTTP/1.1"), up(b"OPTIONS *")),
    "20 absolute OPTIONS of the root": (
        line(b"OPTIONS http://a.localhost/ HTTP/1.1"),
        up(b"OPTIONS /"),
    ),
    "21 port": _host(b"a.localhost:8080"),
    "21 port 65535": _host(b"a.localhost:65535"),
    "21 port with zeros": _host(b"a.localhost:00080"),
    "22 trailing dot": _host(b"a.localhost."),
    "22 trailing dot and port": _host(b"a.localhost.:80"),
    "23 upper case": _host(b"A.LocalHost"),
    "24 A-label": _host(b"xn--4ca.localhost"),
    "25 IPv4": _host(b"192.0.2.1"),
    "25 IPv6": _host(b"[2001:db8::1]"),
    "25 IPv6 and port": _host(b"[::1]:8080"),
    "25 IPv4 in IPv6": _host(b"[::ffff:192.0.2.1]"),
    "19 underscore": _host(b"a_b.localhost"),
    "19 digits": _host(b"1.localhost"),
    "19 label of 63": _host(b"a" * 63 + b".localhost"),
    "36 dots encoded": _target(b"/a/%2e%2e/%2E/b"),
    "36 dots": _target(b"/a/../b/./c"),
    "36 slashes": _target(b"//a///b"),
    "36 backslash": _target(b"/a\\b"),
    "36 encoded slash": _target(b"/a%2Fb%5Cc"),
    "36 encoded line end": _target(b"/a%0d%0aSet-Cookie:x"),
    "36 not encoded well": _target(b"/%zz?%"),
    "36 NUL encoded twice": _target(b"/%2500"),
    "36 semicolon": _target(b"/a;b=c"),
    "36 at": _target(b"/@b.localhost"),
    "36 quotes and brackets": _target(b"/\"<>^`{|}'"),
    "36 many questions": _target(b"/??a=?b"),
    "30 line of 8 KiB": (
        long_line(LINE_BYTES),
        up(b"GET /" + b"x" * (LINE_BYTES - 14)),
    ),
    "30 fields of 16 KiB": (
        long_field(FIELDS_BYTES),
        up(b"GET /", b"A: " + b"x" * (FIELDS_BYTES - 19 - 5)),
    ),
    "31 100 fields": (get(*[b"A: b"] * (FIELDS - 1)), up(b"GET /", *[b"A: b"] * (FIELDS - 1))),
}

FIELDS_ODD: Accepted = {
    "15 tab in a value": (get(b"A: b\tc"), up(b"GET /", b"A: b\tc")),
    "15 latin-1": (get(b"A: caf\xe9"), up(b"GET /", b"A: caf\xe9")),
    "15 UTF-8": (get("A: ä".encode()), up(b"GET /", "A: ä".encode())),
    "16 nothing before the value": (get(b"A:b"), up(b"GET /", b"A: b")),
    "16 blanks around the value": (get(b"A: \t b \t "), up(b"GET /", b"A: b")),
    "16 colons in the value": (get(b"A: b: c"), up(b"GET /", b"A: b: c")),
    "16 empty value": (get(b"A:"), up(b"GET /", b"A: ")),
    "16 every sign": (get(b"!#$%&'*+-.^`|~: a"), up(b"GET /", b"!#$%&'*+-.^`|~: a")),
    "16 Content-Type twice": (
        get(b"Content-Type: a", b"Content-Type: b"),
        up(b"GET /", b"Content-Type: a", b"Content-Type: b"),
    ),
    "28 named by Connection": _dropped(b"Connection: close-not, X-Tenant-ID", b"X-Tenant-ID: b"),
    "28 named in capitals": _dropped(b"CONNECTION: X-A", b"x-a: b"),
    "28 named by the second": _dropped(b"Connection: a", b"Connection: ,,X-A ,", b"X-A: b"),
    "28 Host named": _dropped(b"Connection: Host"),
    "28 length named": (
        post(b"Connection: Content-Length", b"Content-Length: 1", body=b"x"),
        up(b"POST /", b"Content-Length: 1", body=b"x"),
    ),
    "28 coding named": (
        post(b"Connection: Transfer-Encoding", _CHUNKED, body=b"1\r\nx\r\n0\r\n\r\n"),
        up(b"POST /", _CHUNKED, body=b"x"),
    ),
    "28 type named": (
        get(b"Connection: Content-Type", b"Content-Type: a"),
        up(b"GET /", b"Content-Type: a"),
    ),
    "28 fields of the connection": _dropped(
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: keep-alive",
        b"TE: trailers",
        b"Trailer: X-A",
        b"Proxy-Authorization: x",
    ),
    "29 underscores": _dropped(b"X_Tenant_ID: b"),
    "29 one underscore": _dropped(b"X-Tenant_ID: b"),
    "29 length with underscore": _dropped(b"Content_Length: 5"),
    "29 coding with underscore": _dropped(b"Transfer_Encoding: chunked"),
    "33 h2c": _dropped(
        b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"
    ),
    "33 WebSocket": (
        get(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"),
        up(b"GET /", b"Sec-WebSocket-Version: 13"),
    ),
    "33 Upgrade alone": _dropped(b"Upgrade: TLS/1.0"),
    "38 100-continue": (
        post(b"Expect: 100-continue", b"Content-Length: 2", body=b"hi"),
        up(b"POST /", b"Content-Length: 2", body=b"hi"),
    ),
    "38 in capitals": (
        post(b"Expect: 100-CONTINUE", b"Content-Length: 2", body=b"hi"),
        up(b"POST /", b"Content-Length: 2", body=b"hi"),
    ),
    "38 without a body": (get(b"Expect: 100-continue"), up()),
    "41 empty line first": (b"\r\n" + get(), up()),
    "45 TE with a coding": _dropped(b"TE: chunked"),
    "45 a name like ours": (get(b"XContent-Length: 5"), up(b"GET /", b"XContent-Length: 5")),
    "45 length as a suffix": (get(b"Content-Length-X: 5"), up(b"GET /", b"Content-Length-X: 5")),
    "45 coding with a dot": (
        get(b"Transfer.Encoding: chunked"),
        up(b"GET /", b"Transfer.Encoding: chunked"),
    ),
    "45 other hosts": (
        get(b"X-Host: b", b"Forwarded-Host: c"),
        up(b"GET /", b"X-Host: b", b"Forwarded-Host: c"),
    ),
}

#: The same, after which the connection ends.
ENDING: Accepted = {
    "42 close": _dropped(b"Connection: close"),
    "42 Close": _dropped(b"Connection: Close"),
    "42 close and more": _dropped(
        b"Connection: close, X-Forwarded-For", b"X-Forwarded-For: 1.2.3.4"
    ),
    "42 keep-alive and close": _dropped(b"Connection: keep-alive, close"),
    "42 close in a second field": _dropped(b"Connection: keep-alive", b"Connection: close"),
    "43 HTTP/1.0": (_OLD + b"\r\n", up()),
    "43 HTTP/1.0, length": (
        b"POST / HTTP/1.0\r\nHost: a.localhost\r\nContent-Length: 1\r\n\r\nx",
        up(b"POST /", b"Content-Length: 1", body=b"x"),
    ),
    "43 HTTP/1.0, TE": (_OLD + b"TE: trailers\r\n\r\n", up()),
    "43 HTTP/1.0, expectation": (
        b"POST / HTTP/1.0\r\nHost: a.localhost\r\nExpect: 100-continue\r\n"
        b"Content-Length: 1\r\n\r\nx",
        up(b"POST /", b"Content-Length: 1", body=b"x"),
    ),
    "43 HTTP/1.0, absolute": (
        b"GET http://a.localhost/x HTTP/1.0\r\nHost: a.localhost\r\n\r\n",
        up(b"GET /x"),
    ),
}

#: HTTP/1.0 that stays.
STAYING: Accepted = {
    "43 HTTP/1.0, keep-alive": (_OLD + b"Connection: Keep-Alive\r\n\r\n", up()),
}
