"""Requests that are not beyond doubt, as raw bytes, each with the status it must get.

Each case has one fault, so that the verdict cannot depend on how the bytes were cut into reads.
"""

from __future__ import annotations


def get(*lines: bytes, host: bytes = b"Host: a.localhost") -> bytes:
    """A GET whose only oddity is in ``lines``."""
    return b"\r\n".join((b"GET / HTTP/1.1", *((host,) if host else ()), *lines, b"", b""))


def post(*lines: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join((b"POST / HTTP/1.1", b"Host: a.localhost", *lines, b"", body))


def line(first: bytes) -> bytes:
    return first + b"\r\nHost: a.localhost\r\n\r\n"


def chunked(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", body=body)


#: name → (bytes, status); the number is the case's in the project's list of bad inputs.
BAD_HEADS: dict[str, tuple[bytes, int]] = {
    "01 length then chunked": (post(b"Content-Length: 3", b"Transfer-Encoding: chunked"), 400),
    "02 chunked then length": (post(b"Transfer-Encoding: chunked", b"Content-Length: 3"), 400),
    "03 unknown coding": (post(b"Transfer-Encoding: gzip"), 501),
    "03 unknown coding first": (post(b"Transfer-Encoding: gzip, chunked"), 501),
    "03 chunked not last": (post(b"Transfer-Encoding: chunked, gzip"), 400),
    "03 chunked twice in one": (post(b"Transfer-Encoding: chunked, chunked"), 400),
    "04 comma first": (post(b"Transfer-Encoding: ,chunked"), 400),
    "04 comma last": (post(b"Transfer-Encoding: chunked,"), 400),
    "04 quoted": (post(b'Transfer-Encoding: "chunked"'), 400),
    "04 empty": (post(b"Transfer-Encoding:"), 400),
    "04 vertical tab": (post(b"Transfer-Encoding: \x0bchunked"), 400),
    "05 coding twice": (post(b"Transfer-Encoding: chunked", b"transfer-encoding: chunked"), 400),
    "06 chunked in 1.0": (
        b"POST / HTTP/1.0\r\nHost: a.localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    "07 two lengths": (post(b"Content-Length: 3", b"Content-Length: 4"), 400),
    "07 two equal lengths": (post(b"Content-Length: 3", b"content-length: 3"), 400),
    "07 list of lengths": (post(b"Content-Length: 3, 3"), 400),
    "08 plus": (post(b"Content-Length: +1"), 400),
    "08 underscore": (post(b"Content-Length: 1_0"), 400),
    "08 minus": (post(b"Content-Length: -1"), 400),
    "08 empty length": (post(b"Content-Length:"), 400),
    "08 hexadecimal": (post(b"Content-Length: 0x1"), 400),
    "08 too many digits": (post(b"Content-Length: 9999999999999999999"), 400),
    "08 other digits": (post("Content-Length: ٣".encode()), 400),
    "12 bare LF throughout": (b"GET / HTTP/1.1\nHost: a.localhost\n\n", 400),
    "12 bare LF after line": (b"GET / HTTP/1.1\nHost: a.localhost\r\n\r\n", 400),
    "12 bare LF after field": (get(b"A: b\nC: d"), 400),
    "13 bare CR in value": (get(b"A: b\rC: d"), 400),
    "13 bare CR in line": (b"GET /\r HTTP/1.1\r\nHost: a.localhost\r\n\r\n", 400),
    "13 CR CR LF": (b"GET / HTTP/1.1\r\r\nHost: a.localhost\r\n\r\n", 400),
    "14 folded": (get(b"A: b", b" c"), 400),
    "14 folded by tab": (get(b"A: b", b"\tc"), 400),
    "14 folded at once": (b"GET / HTTP/1.1\r\n Host: a.localhost\r\n\r\n", 400),
    "15 NUL": (get(b"A: b\x00c"), 400),
    "15 control": (get(b"A: b\x01c"), 400),
    "15 delete": (get(b"A: b\x7fc"), 400),
    "16 space before colon": (get(b"A : b"), 400),
    "16 tab before colon": (get(b"A\t: b"), 400),
    "16 empty name": (get(b": b"), 400),
    "16 no colon": (get(b"A"), 400),
    "16 bad character": (get(b"A(: b"), 400),
    "16 high byte in name": (get(b"\xe4: b"), 400),
    "17 no Host": (get(host=b""), 400),
    "18 two Hosts": (get(b"Host: b.localhost"), 400),
    "18 two equal Hosts": (get(b"host: a.localhost"), 400),
    "19 slash": (get(host=b"Host: a/b"), 400),
    "19 question mark": (get(host=b"Host: a?b"), 400),
    "19 hash": (get(host=b"Host: a#b"), 400),
    "19 at": (get(host=b"Host: u@a.localhost"), 400),
    "19 comma": (get(host=b"Host: a.localhost, b.localhost"), 400),
    "19 space": (get(host=b"Host: a b"), 400),
    "19 empty": (get(host=b"Host:"), 400),
    "19 percent": (get(host=b"Host: a%2elocalhost"), 400),
    "19 empty label": (get(host=b"Host: a..localhost"), 400),
    "19 leading dot": (get(host=b"Host: .localhost"), 400),
    "19 long label": (get(host=b"Host: " + b"a" * 64 + b".localhost"), 400),
    "19 long name": (get(host=b"Host: " + b"a.".join([b""] * 130) + b"localhost"), 400),
    "20 absolute differs": (line(b"GET http://b.localhost/ HTTP/1.1"), 400),
    "20 absolute port differs": (line(b"GET http://a.localhost:81/ HTTP/1.1"), 400),
    "20 absolute user": (line(b"GET http://u@a.localhost/ HTTP/1.1"), 400),
    "20 other scheme": (line(b"GET ftp://a.localhost/ HTTP/1.1"), 400),
    "20 no scheme": (line(b"GET a.localhost/ HTTP/1.1"), 400),
    "20 star with GET": (line(b"GET * HTTP/1.1"), 400),
    "21 port word": (get(host=b"Host: a.localhost:http"), 400),
    "21 port empty": (get(host=b"Host: a.localhost:"), 400),
    "21 port too large": (get(host=b"Host: a.localhost:65536"), 400),
    "22 two trailing dots": (get(host=b"Host: a.localhost.."), 400),
    "24 raw UTF-8 host": (get(host="Host: ä.localhost".encode()), 400),
    "25 not an address": (get(host=b"Host: [1:2]"), 400),
    "30 17 KiB header": (get(b"A: " + b"x" * 17 * 1024), 431),
    "31 600 fields": (get(*[b"A: b"] * 600), 431),
    "31 101 fields": (get(*[b"A: b"] * 100), 431),
    "30 9 KiB line": (line(b"GET /" + b"x" * 9 * 1024 + b" HTTP/1.1"), 414),
    "33 h2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "33 TLS on a plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "34 CONNECT": (line(b"CONNECT a.localhost:443 HTTP/1.1"), 405),
    "34 TRACE": (line(b"TRACE / HTTP/1.1"), 405),
    "34 unknown method": (line(b"BREW / HTTP/1.1"), 501),
    "34 lower-case method": (line(b"get / HTTP/1.1"), 501),
    "34 method no token": (line(b"G@T / HTTP/1.1"), 400),
    "35 HTTP/2.0": (line(b"GET / HTTP/2.0"), 505),
    "35 HTTP/1.2": (line(b"GET / HTTP/1.2"), 505),
    "35 lower-case version": (line(b"GET / http/1.1"), 400),
    "35 no version": (line(b"GET /"), 400),
    "35 double space": (line(b"GET  / HTTP/1.1"), 400),
    "35 trailing space": (line(b"GET / HTTP/1.1 "), 400),
    "35 tab": (line(b"GET\t/ HTTP/1.1"), 400),
    "35 space in target": (line(b"GET /a b HTTP/1.1"), 400),
    "36 hash in target": (line(b"GET /#x HTTP/1.1"), 400),
    "36 control in target": (line(b"GET /\x01 HTTP/1.1"), 400),
    "36 UTF-8 in target": (line("GET /ä HTTP/1.1".encode()), 400),
    "36 encoded NUL": (line(b"GET /%00 HTTP/1.1"), 400),
    "38 other expectation": (post(b"Content-Length: 1", b"Expect: 200-ok"), 417),
    "38 two expectations": (post(b"Expect: 100-continue", b"Expect: 100-continue"), 417),
    "40 two empty lines first": (b"\r\n\r\n" + get(), 400),
}

BAD_BODIES: dict[str, tuple[bytes, int]] = {
    "09 0x": (chunked(b"0x1\r\na\r\n0\r\n\r\n"), 400),
    "09 plus": (chunked(b"+1\r\na\r\n0\r\n\r\n"), 400),
    "09 17 digits": (chunked(b"00000000000000001\r\na\r\n0\r\n\r\n"), 400),
    "09 no digits": (chunked(b"\r\na\r\n0\r\n\r\n"), 400),
    "09 space": (chunked(b"1 \r\na\r\n0\r\n\r\n"), 400),
    "10 bare LF in the size line": (chunked(b"1\na\r\n0\r\n\r\n"), 400),
    "10 bare LF in an extension": (chunked(b"1;a\nb\r\na\r\n0\r\n\r\n"), 400),
    "10 bare CR in an extension": (chunked(b"1;a\rb\r\na\r\n0\r\n\r\n"), 400),
    "10 endless extension": (chunked(b"1;" + b"a" * 300 + b"\r\na\r\n0\r\n\r\n"), 400),
    "11 chunk too long": (chunked(b"1\r\nab\r\n0\r\n\r\n"), 400),
    "11 chunk ends in LF": (chunked(b"1\r\na\n0\r\n\r\n"), 400),
    "11 chunk ends in CR CR": (chunked(b"1\r\na\r\r0\r\n\r\n"), 400),
    "39 bad trailer": (chunked(b"1\r\na\r\n0\r\nA : b\r\n\r\n"), 400),
    "39 bare LF in a trailer": (chunked(b"1\r\na\r\n0\r\nA: b\n\r\n"), 400),
    "39 endless trailer": (chunked(b"1\r\na\r\n0\r\nA: " + b"b" * 9000 + b"\r\n\r\n"), 400),
}
