"""What an upstream may answer, and what of it the client gets."""

from __future__ import annotations

from pbcluster.testing.http_corpus.cases import ResponseCase, down

_OK = b"HTTP/1.1 200 OK\r\n"
_LENGTH_5 = b"Content-Length: 5"
_CHUNKED = b"Transfer-Encoding: chunked"
_HELLO = down(200, b"OK", _LENGTH_5, body=b"hello")
_CHUNKED_HELLO = down(200, b"OK", _CHUNKED, body=b"hello")


def _ok(*lines: bytes, body: bytes = b"") -> bytes:
    return _OK + b"".join(each + b"\r\n" for each in lines) + b"\r\n" + body


def _refused(name: str, raw: bytes, ending: str = "", method: bytes = b"GET") -> ResponseCase:
    """Not beyond doubt: the client gets a 502 of ours, the upstream's connection is cut."""
    return ResponseCase(name, raw, None, ending, method, "no_response", reused=False)


def _torn(name: str, raw: bytes, ending: str = "") -> ResponseCase:
    """Breaks off after its head was passed on: so does what the client gets."""
    return ResponseCase(name, raw, None, ending, outcome="broken", cut=True, reused=False)


_REFUSED = (
    _refused("R1 TE and CL", _ok(_CHUNKED, _LENGTH_5, body=b"0\r\n\r\n")),
    _refused("R1 CL and TE", _ok(_LENGTH_5, _CHUNKED, body=b"hello")),
    _refused("R1 two lengths", _ok(_LENGTH_5, _LENGTH_5, body=b"hello")),
    _refused("R1 two different lengths", _ok(_LENGTH_5, b"Content-Length: 6", body=b"hello")),
    _refused("R1 list of lengths", _ok(b"Content-Length: 5, 5", body=b"hello")),
    _refused("R1 length plus", _ok(b"Content-Length: +5", body=b"hello")),
    _refused("R1 length minus", _ok(b"Content-Length: -1", body=b"hello")),
    _refused("R1 empty length", _ok(b"Content-Length:", body=b"hello")),
    _refused("R1 unknown coding", _ok(b"Transfer-Encoding: gzip", body=b"hello")),
    _refused("R1 two codings", _ok(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n")),
    _refused("R1 coding twice", _ok(_CHUNKED, _CHUNKED, body=b"0\r\n\r\n")),
    _refused("R1 coding in 1.0", b"HTTP/1.0 200 OK\r\n" + _CHUNKED + b"\r\n\r\n0\r\n\r\n"),
    _refused("R1 vertical tab", _ok(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n")),
    _refused("R1 to HEAD too", _ok(_CHUNKED, _LENGTH_5), method=b"HEAD"),
    _refused("R2 bare LF", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", "close"),
    _refused("R2 bare LF in a field", _ok(b"A: b\nSet-Cookie: c", _LENGTH_5)),
    _refused("R2 bare CR in a field", _ok(b"A: b\rSet-Cookie: c", _LENGTH_5)),
    _refused("R2 NUL in a field", _ok(b"A: b\x00", _LENGTH_5)),
    _refused("R2 control in a field", _ok(b"A: \x1b[2J", _LENGTH_5)),
    _refused("R2 folded", _ok(b"A: b", b" c", _LENGTH_5)),
    _refused("R2 space before colon", _ok(b"A : b", _LENGTH_5)),
    _refused("R2 no colon", _ok(b"A", _LENGTH_5)),
    _refused("R2 empty name", _ok(b": b", _LENGTH_5)),
    _refused("R3 no HTTP", b"SSH-2.0-x\r\n\r\n"),
    _refused("R3 HTTP/0.9", b"<html>hello</html>", "close"),
    _refused("R3 HTTP/2", b"HTTP/2 200 OK\r\n\r\n"),
    _refused("R3 HTTP/1.2", b"HTTP/1.2 200 OK\r\n\r\n"),
    _refused("R3 lower case", b"http/1.1 200 OK\r\n\r\n"),
    _refused("R3 status of two digits", b"HTTP/1.1 20 OK\r\n\r\n"),
    _refused("R3 status of four digits", b"HTTP/1.1 2000 OK\r\n\r\n"),
    _refused("R3 status 099", b"HTTP/1.1 099 OK\r\n\r\n"),
    _refused("R3 status 999", b"HTTP/1.1 999 OK\r\n\r\n"),
    _refused("R3 status word", b"HTTP/1.1 OK\r\n\r\n"),
    _refused("R3 two spaces", b"HTTP/1.1  200 OK\r\n\r\n"),
    _refused("R3 tab", b"HTTP/1.1\t200 OK\r\n\r\n"),
    _refused("R3 NUL in the reason", b"HTTP/1.1 200 O\x00K\r\n\r\n"),
    _refused("R3 request", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    _refused("R3 empty line first", b"\r\n" + _ok(_LENGTH_5, body=b"hello")),
    _refused("R3 line end first", b"\n" + _ok(_LENGTH_5, body=b"hello")),
    _refused(
        "R3 empty line after an interim",
        b"HTTP/1.1 103 Early Hints\r\n\r\n\r\n" + _ok(_LENGTH_5, body=b"hello"),
    ),
    _refused("R3 nothing", b"", "close"),
    _refused("R3 nothing, reset", b"", "reset"),
    _refused("R3 half a head", b"HTTP/1.1 200 OK\r\nA: b\r\n", "close"),
    _refused("R4 101", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"),
    _refused("R4 endless interim", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20),
    _refused("R4 101 after 100", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 X\r\n\r\n"),
    _refused("R5 endless field", _OK + b"A: " + b"x" * 70_000),
    _refused("R5 201 fields", _ok(*[b"A: b"] * 201)),
    _refused("R5 endless line", b"HTTP/1.1 200 " + b"x" * 5000),
)

_TORN = (
    _torn("R6 short, closed", _ok(_LENGTH_5, body=b"hell"), "close"),
    _torn("R6 short, reset", _ok(_LENGTH_5, body=b"hell"), "reset"),
    _torn("R6 no body, closed", _ok(_LENGTH_5), "close"),
    _torn("R6 chunk cut", _ok(_CHUNKED, body=b"5\r\nhel"), "close"),
    _torn("R6 last chunk missing", _ok(_CHUNKED, body=b"5\r\nhello\r\n"), "close"),
    _torn("R6 last line missing", _ok(_CHUNKED, body=b"5\r\nhello\r\n0\r\n"), "close"),
    _torn("R6 chunk cut, reset", _ok(_CHUNKED, body=b"5\r\nhello\r\n"), "reset"),
    _torn("R6 until close, reset", b"HTTP/1.0 200 OK\r\n\r\nhello", "reset"),
)

_PASSED = (
    ResponseCase("R7 length", _ok(_LENGTH_5, body=b"hello"), _HELLO),
    ResponseCase("R7 chunks", _ok(_CHUNKED, body=b"5\r\nhello\r\n0\r\n\r\n"), _CHUNKED_HELLO),
    ResponseCase(
        "R7 chunks in capitals",
        _ok(b"TRANSFER-ENCODING: Chunked", body=b"5\r\nhello\r\n0\r\n\r\n"),
        _CHUNKED_HELLO,
    ),
    ResponseCase(
        "R7 trailers dropped",
        _ok(_CHUNKED, body=b"5;a=b\r\nhello\r\n0\r\nSet-Cookie: a\r\nContent-Length: 9\r\n\r\n"),
        _CHUNKED_HELLO,
    ),
    ResponseCase(
        "R7 chunks of nothing",
        _ok(_CHUNKED, body=b"0\r\n\r\n"),
        down(200, b"OK", _CHUNKED),
    ),
    ResponseCase("R7 nothing", _ok(b"Content-Length: 0"), down(200, b"OK", b"Content-Length: 0")),
    ResponseCase("R7 until close", _ok(body=b"hello"), _CHUNKED_HELLO, "close", reused=False),
    ResponseCase(
        "R7 HTTP/1.0 until close",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        _CHUNKED_HELLO,
        "close",
        reused=False,
    ),
    ResponseCase(
        "R7 HTTP/1.0 with length",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        _HELLO,
        reused=False,
    ),
    ResponseCase(
        "R7 HTTP/1.0 says keep-alive",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
        _HELLO,
        reused=False,
    ),
    ResponseCase(
        "R7 close", _ok(b"Connection: close", _LENGTH_5, body=b"hello"), _HELLO, reused=False
    ),
    ResponseCase(
        "R7 fields of the connection",
        _ok(
            b"Connection: X-Hop",
            b"X-Hop: 1",
            b"Keep-Alive: 5",
            b"Upgrade: h2",
            _LENGTH_5,
            body=b"hello",
        ),
        _HELLO,
    ),
    ResponseCase(
        "R7 no reason",
        b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello",
        down(200, b"", _LENGTH_5, body=b"hello"),
    ),
    ResponseCase(
        "R7 empty reason",
        b"HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\nhello",
        down(200, b"", _LENGTH_5, body=b"hello"),
    ),
    ResponseCase(
        "R7 gzip untouched",
        _ok(b"Content-Encoding: gzip", _LENGTH_5, body=b"\x1f\x8b\x08\x00\xff"),
        down(200, b"OK", b"Content-Encoding: gzip", _LENGTH_5, body=b"\x1f\x8b\x08\x00\xff"),
    ),
    ResponseCase(
        "R7 a part",
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-4/9\r\nContent-Length: 5\r\n\r\n"
        b"hello",
        down(206, b"Partial Content", b"Content-Range: bytes 0-4/9", _LENGTH_5, body=b"hello"),
    ),
    ResponseCase(
        "R7 two cookies",
        _ok(b"Set-Cookie: a=1", b"Set-Cookie: b=2", _LENGTH_5, body=b"hello"),
        down(200, b"OK", b"Set-Cookie: a=1", b"Set-Cookie: b=2", _LENGTH_5, body=b"hello"),
    ),
    ResponseCase(
        "R7 latin-1",
        _ok(b"A: caf\xe9", _LENGTH_5, body=b"hello"),
        down(200, b"OK", b"A: caf\xe9", _LENGTH_5, body=b"hello"),
    ),
    ResponseCase(
        "R8 interim dropped",
        b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + _ok(_LENGTH_5, body=b"hello"),
        _HELLO,
    ),
    ResponseCase(
        "R8 100 nobody asked for",
        b"HTTP/1.1 100 Continue\r\n\r\n" + _ok(_LENGTH_5, body=b"hello"),
        _HELLO,
    ),
    ResponseCase(
        "R8 interim with a length",
        b"HTTP/1.1 102 Processing\r\nContent-Length: 5\r\n\r\n" + _ok(_LENGTH_5, body=b"hello"),
        _HELLO,
    ),
    ResponseCase("R9 HEAD", _ok(_LENGTH_5), down(200, b"OK", _LENGTH_5), method=b"HEAD"),
    ResponseCase(
        "R9 HEAD with a body",
        _ok(_LENGTH_5, body=b"hello"),
        down(200, b"OK", _LENGTH_5),
        method=b"HEAD",
        reused=False,
    ),
    ResponseCase("R9 HEAD, chunks", _ok(_CHUNKED), down(200, b"OK"), method=b"HEAD"),
    ResponseCase(
        "R9 HEAD, chunks with a body",
        _ok(_CHUNKED, body=b"0\r\n\r\n"),
        down(200, b"OK"),
        method=b"HEAD",
        reused=False,
    ),
    ResponseCase("R9 204", b"HTTP/1.1 204 No Content\r\n\r\n", down(204, b"No Content")),
    ResponseCase(
        "R9 204 with a body",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
        down(204, b"No Content"),
        reused=False,
    ),
    ResponseCase(
        "R9 204 with a length only",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        down(204, b"No Content"),
        reused=False,
    ),
    ResponseCase(
        "R9 204 with chunks",
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        down(204, b"No Content"),
        reused=False,
    ),
    ResponseCase(
        "R9 304",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        down(304, b"Not Modified", _LENGTH_5),
    ),
    ResponseCase(
        "R9 304 with a body",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello",
        down(304, b"Not Modified", _LENGTH_5),
        reused=False,
    ),
    ResponseCase(
        "R10 longer than its length",
        _ok(_LENGTH_5, body=b"hello world"),
        _HELLO,
        reused=False,
    ),
    ResponseCase(
        "R10 two in a packet",
        _ok(_LENGTH_5, body=b"hello") + _ok(b"Content-Length: 4", body=b"evil"),
        _HELLO,
        reused=False,
    ),
    ResponseCase("R10 a line end behind", _ok(_LENGTH_5, body=b"hello\r\n"), _HELLO, reused=False),
    ResponseCase(
        "R10 junk behind the chunks",
        _ok(_CHUNKED, body=b"5\r\nhello\r\n0\r\n\r\nevil"),
        _CHUNKED_HELLO,
        reused=False,
    ),
)

RESPONSES = (*_REFUSED, *_TORN, *_PASSED)
