"""Several requests on one connection: what stands behind a message is the next one, or refused."""

from __future__ import annotations

from pbcluster.testing.http_corpus.cases import RequestCase, chunked, get, line, post, up

_GET, _UP = get(), up()
_SMUGGLED = line(b"GET /smuggled HTTP/1.1")
_SMUGGLED_UP = up(b"GET /smuggled")
_CHUNKED = b"Transfer-Encoding: chunked"
_BAD = line(b"GET / HTTP/3.0")

SEQUENCES = (
    RequestCase("40 two", _GET * 2, (200, 200), (_UP, _UP), closed=False),
    RequestCase("40 ten", _GET * 10, (200,) * 10, (_UP,) * 10, closed=False),
    RequestCase("40 good, then bad", _GET + _BAD, (200, 505), (_UP,)),
    RequestCase("40 good, then junk", _GET + b"\x00\x01\x02\r\n\r\n", (200, 400), (_UP,)),
    RequestCase("40 good, then too long", _GET + b"A" * 9000, (200, 414), (_UP,)),
    RequestCase("40 bad, then good", _BAD + _GET, (505,)),
    RequestCase("40 good, bad, good", _GET + _BAD + _GET, (200, 505), (_UP,)),
    RequestCase("40 close, then good", get(b"Connection: close") + _GET, (200,), (_UP,)),
    RequestCase("40 empty line between", _GET + b"\r\n" + _GET, (200, 200), (_UP,) * 2, False),
    RequestCase("40 two empty lines between", _GET + b"\r\n\r\n" + _GET, (200, 400), (_UP,)),
    RequestCase("40 bare LF between", _GET + b"\n" + _GET, (200, 400), (_UP,)),
    RequestCase(
        "40 body longer than its length",
        post(b"Content-Length: 3", body=b"abcd") + _GET,
        (200, 501),
        (up(b"POST /", b"Content-Length: 3", body=b"abc"),),
    ),
    RequestCase(
        "40 body shorter than its length",
        post(b"Content-Length: 5", body=b"abcd") + _GET,
        (200, 501),
        (up(b"POST /", b"Content-Length: 5", body=b"abcdG"),),
    ),
    RequestCase(
        "40 CL.TE",
        post(b"Content-Length: 6", _CHUNKED, body=b"0\r\n\r\n") + _SMUGGLED,
        (400,),
    ),
    RequestCase(
        "40 TE.CL",
        post(_CHUNKED, b"Content-Length: 4", body=b"5c\r\n" + _SMUGGLED),
        (400,),
    ),
    RequestCase(
        "40 TE.TE",
        post(_CHUNKED, b"Transfer-encoding: cow", body=b"0\r\n\r\n") + _SMUGGLED,
        (400,),
    ),
    RequestCase(
        "40 CL.0",
        post(b"Content-Length: %d" % len(_SMUGGLED), body=_SMUGGLED) + _GET,
        (200, 200),
        (
            up(b"POST /", b"Content-Length: %d" % len(_SMUGGLED), body=_SMUGGLED),
            _UP,
        ),
        closed=False,
    ),
    RequestCase(
        "40 0.CL",
        post(b"Content-Length : 7", body=b"GET /x ") + _SMUGGLED,
        (400,),
    ),
    RequestCase(
        "40 0.CL by an expectation",
        get(b"Expect: y 100-continue", b"Content-Length: 7") + _SMUGGLED,
        (417,),
    ),
    RequestCase(
        "40 GET with the next as its body",
        get(b"Content-Length: %d" % len(_SMUGGLED)) + _SMUGGLED,
        (200,),
        (up(b"GET /", b"Content-Length: %d" % len(_SMUGGLED), body=_SMUGGLED),),
        closed=False,
    ),
    RequestCase(
        "40 no length, then a body",
        post(body=b"a=b") + b"\r\n\r\n",
        (200, 400),
        (up(b"POST /"),),
    ),
    RequestCase(
        "40 length 0, then a request",
        post(b"Content-Length: 0", body=_SMUGGLED),
        (200, 200),
        (up(b"POST /", b"Content-Length: 0"), _SMUGGLED_UP),
        closed=False,
    ),
    RequestCase(
        "40 chunks, then a request",
        chunked(b"1\r\nx\r\n0\r\n\r\n") + _SMUGGLED,
        (200, 200),
        (up(b"POST /", _CHUNKED, body=b"x"), _SMUGGLED_UP),
        closed=False,
    ),
    RequestCase(
        "40 chunks, trailers, then a request",
        chunked(b"0\r\nContent-Length: 99\r\n\r\n") + _SMUGGLED,
        (200, 200),
        (up(b"POST /", _CHUNKED), _SMUGGLED_UP),
        closed=False,
    ),
    RequestCase(
        "40 good, then a bad chunk",
        _GET + chunked(b"zz\r\n"),
        (200, 400),
        (_UP,),
        in_body=True,
    ),
    RequestCase("40 bad chunk, then good", chunked(b"1\r\nxx\r\n") + _GET, (400,), in_body=True),
    RequestCase(
        "40 upgrade, then a request",
        get(b"Connection: Upgrade", b"Upgrade: websocket") + _SMUGGLED,
        (200, 200),
        (_UP, _SMUGGLED_UP),
        closed=False,
    ),
    RequestCase(
        "40 HEAD, then GET",
        _GET.replace(b"GET", b"HEAD") + _SMUGGLED,
        (200, 200),
        (up(b"HEAD /"), _SMUGGLED_UP),
        closed=False,
    ),
    RequestCase(
        "40 expectation, body, next",
        post(b"Expect: 100-continue", b"Content-Length: 2", body=b"hi") + _SMUGGLED,
        (200, 200),
        (up(b"POST /", b"Content-Length: 2", body=b"hi"), _SMUGGLED_UP),
        closed=False,
    ),
    RequestCase("40 HTTP/0.9 behind", _GET + b"GET /\r\n\r\n", (200, 400), (_UP,)),
    RequestCase("40 a response behind", _GET + b"HTTP/1.1 200 OK\r\n\r\n", (200, 400), (_UP,)),
    RequestCase("40 a chunk's end behind", _GET + b"0\r\n\r\n", (200, 400), (_UP,)),
)
