"""Requests refused for their first line, their size or an expectation: bytes → status."""

from __future__ import annotations

from pbcluster.testing.http_corpus.cases import HOST, get, line, post
from pbcluster.testing.http_corpus.refused_heads import Refused

LINE_BYTES, FIELDS_BYTES, FIELDS = 8192, 16384, 100
_HOST_BYTES = len(HOST) + 2


def long_line(size: int) -> bytes:
    """A request whose first line has ``size`` bytes."""
    frame = len(b"GET / HTTP/1.1")
    return line(b"GET /" + b"x" * (size - frame) + b" HTTP/1.1")


def long_field(size: int) -> bytes:
    """A request whose fields have ``size`` bytes, line ends included."""
    return get(b"A: " + b"x" * (size - _HOST_BYTES - 5))


TARGETS: Refused = {
    "20 absolute differs": (line(b"GET http://b.localhost/ HTTP/1.1"), 400),
    "20 absolute port differs": (line(b"GET http://a.localhost:81/ HTTP/1.1"), 400),
    "20 Host's port differs": (
        b"GET http://a.localhost/ HTTP/1.1\r\nHost: a.localhost:81\r\n\r\n",
        400,
    ),
    "20 absolute user": (line(b"GET http://u@a.localhost/ HTTP/1.1"), 400),
    "20 absolute user is the host": (line(b"GET http://a.localhost@b.localhost/ HTTP/1.1"), 400),
    "20 absolute without host": (line(b"GET http:///x HTTP/1.1"), 400),
    "20 absolute with one slash": (line(b"GET http:/a.localhost/ HTTP/1.1"), 400),
    "20 absolute with backslash": (line(b"GET http://a.localhost\\@b/ HTTP/1.1"), 400),
    "20 absolute with port 0": (line(b"GET http://a.localhost:0/ HTTP/1.1"), 400),
    "20 absolute https on plain": (line(b"GET https://a.localhost/ HTTP/1.1"), 400),
    "20 absolute encoded host": (line(b"GET http://a%2elocalhost/ HTTP/1.1"), 400),
    "20 other scheme": (line(b"GET ftp://a.localhost/ HTTP/1.1"), 400),
    "20 file": (line(b"GET file:///etc/passwd HTTP/1.1"), 400),
    "20 scheme alone": (line(b"GET http: HTTP/1.1"), 400),
    "20 no scheme": (line(b"GET a.localhost/ HTTP/1.1"), 400),
    "20 relative": (line(b"GET x HTTP/1.1"), 400),
    "20 query alone": (line(b"GET ?x HTTP/1.1"), 400),
    "20 authority with GET": (line(b"GET a.localhost:80 HTTP/1.1"), 400),
    "20 star with GET": (line(b"GET * HTTP/1.1"), 400),
    "20 star and more": (line(b"OPTIONS */x HTTP/1.1"), 400),
    "36 hash in target": (line(b"GET /#x HTTP/1.1"), 400),
    "36 control in target": (line(b"GET /\x01 HTTP/1.1"), 400),
    "36 NUL in target": (line(b"GET /\x00 HTTP/1.1"), 400),
    "36 delete in target": (line(b"GET /\x7f HTTP/1.1"), 400),
    "36 UTF-8 in target": (line("GET /ä HTTP/1.1".encode()), 400),
    "36 high byte in target": (line(b"GET /\xff HTTP/1.1"), 400),
    "36 encoded NUL": (line(b"GET /%00 HTTP/1.1"), 400),
    "36 encoded NUL in the query": (line(b"GET /?a=%00b HTTP/1.1"), 400),
    "36 encoded NUL, absolute": (line(b"GET http://a.localhost/%00 HTTP/1.1"), 400),
    "36 hash, absolute": (line(b"GET http://a.localhost/#x HTTP/1.1"), 400),
}

METHODS_AND_VERSIONS: Refused = {
    "33 h2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "33 PRI in 1.1": (line(b"PRI * HTTP/1.1"), 400),
    "33 TLS on a plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "33 SSH": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 400),
    "34 CONNECT": (line(b"CONNECT a.localhost:443 HTTP/1.1"), 405),
    "34 CONNECT with a path": (line(b"CONNECT / HTTP/1.1"), 405),
    "34 TRACE": (line(b"TRACE / HTTP/1.1"), 405),
    "34 unknown method": (line(b"BREW / HTTP/1.1"), 501),
    "34 TRACK": (line(b"TRACK / HTTP/1.1"), 501),
    "34 PROPFIND": (line(b"PROPFIND / HTTP/1.1"), 501),
    "34 lower-case method": (line(b"get / HTTP/1.1"), 501),
    "34 mixed-case method": (line(b"Get / HTTP/1.1"), 501),
    "34 digit first": (line(b"1GET / HTTP/1.1"), 501),
    "34 sign first": (line(b"!GET / HTTP/1.1"), 501),
    "34 a whole request as method": (line(b"GET_/_HTTP/1.1 / HTTP/1.1"), 400),
    "34 long method": (line(b"A" * 8000 + b" / HTTP/1.1"), 501),
    "34 method no token": (line(b"G@T / HTTP/1.1"), 400),
    "34 method with a colon": (line(b"GET: / HTTP/1.1"), 400),
    "34 method with a NUL": (line(b"GE\x00T / HTTP/1.1"), 400),
    "34 no method": (line(b"/ HTTP/1.1"), 400),
    "34 empty method": (line(b" / HTTP/1.1"), 400),
    "35 HTTP/2.0": (line(b"GET / HTTP/2.0"), 505),
    "35 HTTP/3.0": (line(b"GET / HTTP/3.0"), 505),
    "35 HTTP/1.2": (line(b"GET / HTTP/1.2"), 505),
    "35 HTTP/0.9": (line(b"GET / HTTP/0.9"), 505),
    "35 HTTP/2": (line(b"GET / HTTP/2"), 400),
    "35 HTTP/1.10": (line(b"GET / HTTP/1.10"), 400),
    "35 HTTP/01.1": (line(b"GET / HTTP/01.1"), 400),
    "35 HTTP/1,1": (line(b"GET / HTTP/1,1"), 400),
    "35 HTTP/1.1 and more": (line(b"GET / HTTP/1.1x"), 400),
    "35 other digit": (line("GET / HTTP/1.\u0661".encode()), 400),
    "35 HTTPS": (line(b"GET / HTTPS/1.1"), 400),
    "35 ICAP": (line(b"GET / ICAP/1.0"), 400),
    "35 lower-case version": (line(b"GET / http/1.1"), 400),
    "35 no version": (line(b"GET /"), 400),
    "35 no version, no fields": (b"GET /\r\n\r\n", 400),
    "35 no target": (line(b"GET HTTP/1.1"), 400),
    "35 double space": (line(b"GET  / HTTP/1.1"), 400),
    "35 double space behind": (line(b"GET /  HTTP/1.1"), 400),
    "35 trailing space": (line(b"GET / HTTP/1.1 "), 400),
    "35 tab": (line(b"GET\t/ HTTP/1.1"), 400),
    "35 tab behind": (line(b"GET /\tHTTP/1.1"), 400),
    "35 vertical tab": (line(b"GET\x0b/ HTTP/1.1"), 400),
    "35 space in target": (line(b"GET /a b HTTP/1.1"), 400),
    "35 two versions": (line(b"GET / HTTP/1.1 HTTP/1.1"), 400),
}

SIZES: Refused = {
    "30 17 KiB header": (get(b"A: " + b"x" * 17 * 1024), 431),
    "30 16 KiB and a byte": (long_field(FIELDS_BYTES + 1), 431),
    "30 endless name": (get(b"x" * 20_000 + b": a"), 431),
    "30 endless without a colon": (b"GET / HTTP/1.1\r\n" + b"x" * 20_000, 431),
    "30 9 KiB line": (line(b"GET /" + b"x" * 9 * 1024 + b" HTTP/1.1"), 414),
    "30 8 KiB line and a byte": (long_line(LINE_BYTES + 1), 414),
    "30 endless line": (b"GET /" + b"x" * 9000, 414),
    "30 endless method": (b"A" * 9000, 414),
    "31 600 fields": (get(*[b"A: b"] * 600), 431),
    "31 101 fields": (get(*[b"A: b"] * FIELDS), 431),
}

EXPECTATIONS: Refused = {
    "38 other expectation": (post(b"Content-Length: 1", b"Expect: 200-ok"), 417),
    "38 empty expectation": (post(b"Content-Length: 1", b"Expect:"), 417),
    "38 expectation and more": (post(b"Content-Length: 1", b"Expect: 100-continue, x"), 417),
    "38 expectation behind junk": (post(b"Content-Length: 1", b"Expect: y 100-continue"), 417),
    "38 parameter": (post(b"Content-Length: 1", b"Expect: 100-continue; x=y"), 417),
    "38 two expectations": (post(b"Expect: 100-continue", b"Expect: 100-continue"), 417),
    "38 other in 1.0": (b"GET / HTTP/1.0\r\nHost: a.localhost\r\nExpect: x\r\n\r\n", 417),
    "38 folded": (post(b"Expect: 100-continue", b" x"), 400),
}
