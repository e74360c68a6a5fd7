"""The fuzzer of HTTP: the core holds, and the judge notices a core that does not."""

from __future__ import annotations

import random
from typing import Any

import attrs
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.testing import fuzz_http, http_judge
from pbcluster.testing.fuzz_http import DAMAGES, fuzz, one_input
from pbcluster.testing.http_corpus import REQUESTS, RESPONSES, down, get, line, post, up
from pbcluster.testing.http_judge import Unsound, judge_request, judge_response
from pbcluster.testing.http_memory import Seen

_OK = down(200, b"OK", b"Content-Length: 2", body=b"ok")

# -- nearly valid requests, made from their grammar -----------------------------------------------

_METHODS = st.sampled_from((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
_TARGETS = st.one_of(
    st.from_regex(
        rb"(/[a-zA-Z0-9._~!$&'()*+,;=:@-]{0,8}){1,4}(\?[a-z=&%2F/?]{0,10})?", fullmatch=True
    ),
    st.sampled_from(
        (b"*", b"http://a.localhost", b"http://a.localhost/x", b"//a", b"/%2e%2e/", b"/#")
    ),
)
_VERSIONS = st.sampled_from((b"HTTP/1.1",) * 8 + (b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2", b"http/1.1"))
_NAMES = st.one_of(
    st.from_regex(rb"[A-Za-z][A-Za-z0-9-]{0,12}", fullmatch=True),
    st.sampled_from(
        (b"Connection", b"Expect", b"TE", b"Upgrade", b"X_Y", b"Trailer", b"Keep-Alive")
    ),
)
_VALUES = st.one_of(
    st.from_regex(
        rb"[\x21-\x7e\x80-\xff]([\t\x20-\x7e\x80-\xff]{0,12}[\x21-\x7e])?", fullmatch=True
    ),
    st.sampled_from(
        (
            b"",
            b"close",
            b"keep-alive",
            b"100-continue",
            b"Host",
            b"X-A, Content-Length",
            b"websocket",
        )
    ),
)
_ENDS = st.sampled_from((b"\r\n",) * 30 + (b"\n", b"\r", b"\r\r\n", b"\r\n "))
_SEPARATORS = st.sampled_from((b": ",) * 20 + (b":", b" : ", b":\t", b"\t:", b"::"))
_CODINGS = st.sampled_from(
    (b"chunked",) * 12
    + (b"Chunked", b"chunked, chunked", b"gzip, chunked", b",chunked", b"xchunked", b"identity")
)
_LENGTHS = st.one_of(st.just(-1), st.just(-1), st.just(-1), st.integers(0, 12))
_SIZES = st.sampled_from(
    (b"%x",) * 12 + (b"%X", b"0%x", b"%x;a=b", b'%x;a="b"', b"0x%x", b"+%x", b"%x ")
)


@st.composite
def requests(draw: Any) -> bytes:
    """One request; each part is odd now and then."""
    body = draw(st.binary(max_size=12))
    how = draw(st.sampled_from(("none", "length", "chunked", "both")))
    fields = [
        b"Host" + draw(_SEPARATORS) + draw(st.sampled_from((b"a.localhost",) * 9 + (b"", b"a/b")))
    ]
    fields += draw(
        st.lists(st.builds(lambda n, s, v: n + s + v, _NAMES, _SEPARATORS, _VALUES), max_size=4)
    )
    if how in ("length", "both"):
        length = draw(_LENGTHS)
        fields.append(
            b"Content-Length" + draw(_SEPARATORS) + b"%d" % (len(body) if length < 0 else length)
        )
    if how in ("chunked", "both"):
        fields.append(b"Transfer-Encoding" + draw(_SEPARATORS) + draw(_CODINGS))
        size, end = draw(_SIZES) % len(body), draw(_ENDS)
        body = (
            (size + end + body + draw(_ENDS) if body else b"")
            + b"0\r\n"
            + draw(
                st.sampled_from(
                    (b"\r\n",) * 8 + (b"A: b\r\n\r\n", b"Content-Length: 3\r\n\r\n", b"A\r\n\r\n")
                )
            )
        )
    fields = draw(st.permutations(fields))
    head = draw(_METHODS) + b" " + draw(_TARGETS) + b" " + draw(_VERSIONS) + draw(_ENDS)
    for field in fields:
        head += field + draw(_ENDS)
    return head + b"\r\n" + (body if how != "none" else b"")


@st.composite
def responses(draw: Any) -> bytes:
    """One response; each part is odd now and then."""
    status = draw(st.sampled_from((200, 200, 200, 201, 204, 206, 304, 404, 500, 103, 101, 100)))
    body = draw(st.binary(max_size=12))
    how = draw(st.sampled_from(("none", "length", "chunked", "both")))
    fields = draw(
        st.lists(st.builds(lambda n, s, v: n + s + v, _NAMES, _SEPARATORS, _VALUES), max_size=3)
    )
    if how in ("length", "both"):
        length = draw(_LENGTHS)
        fields.append(
            b"Content-Length" + draw(_SEPARATORS) + b"%d" % (len(body) if length < 0 else length)
        )
    if how in ("chunked", "both"):
        fields.append(b"Transfer-Encoding" + draw(_SEPARATORS) + draw(_CODINGS))
        size = draw(_SIZES) % len(body)
        body = (size + draw(_ENDS) + body + draw(_ENDS) if body else b"") + b"0\r\n\r\n"
    head = draw(st.sampled_from((b"HTTP/1.1",) * 8 + (b"HTTP/1.0", b"HTTP/2"))) + b" %d OK" % status
    head += draw(_ENDS)
    for field in draw(st.permutations(fields)):
        head += field + draw(_ENDS)
    return (
        head
        + b"\r\n"
        + body
        + draw(st.sampled_from((b"",) * 5 + (b"\r\n", b"x", b"HTTP/1.1 200 OK\r\n")))
    )


_PLACES = st.lists(st.integers(0, 400), max_size=3)
#: The same inputs in each run: what fails once fails again.
_STEADY = settings(max_examples=150, deadline=None, derandomize=True, database=None)


class PropertyTests(SynchronousTestCase):
    def test_requests(self) -> None:
        """Nearly valid requests, up to three on a connection: see ``http_judge``."""
        statuses: set[int] = set()

        @_STEADY
        @given(st.lists(requests(), min_size=1, max_size=3), _PLACES)
        def hold(parts: list[bytes], places: list[int]) -> None:
            seen = judge_request(b"".join(parts), places)
            statuses.update(answer.status for answer in seen.answers)

        hold()
        self.assertLessEqual({200, 400}, statuses)

    def test_responses(self) -> None:
        """Nearly valid responses, some of them several: see ``http_judge``."""
        statuses: set[int] = set()

        @_STEADY
        @given(
            st.lists(responses(), min_size=1, max_size=2),
            st.sampled_from((b"GET", b"POST", b"HEAD")),
            st.booleans(),
            _PLACES,
        )
        def hold(parts: list[bytes], method: bytes, reset: bool, places: list[int]) -> None:
            statuses.add(judge_response(b"".join(parts), method, reset=reset, places=places))

        hold()
        self.assertLessEqual({0, 200, 502}, statuses)

    def test_any_bytes(self) -> None:
        """Bytes of any kind, from a client and from an upstream."""

        @settings(_STEADY, max_examples=100)
        @given(st.binary(max_size=60), _PLACES)
        def hold(data: bytes, places: list[int]) -> None:
            judge_request(data, places)
            judge_response(data, places=places)

        hold()


class FuzzTests(SynchronousTestCase):
    def test_the_core_holds(self) -> None:
        """Hundreds of damaged cases; every kind of outcome is among them."""
        seen = fuzz(1, rounds=300)
        self.assertEqual(sum(seen.values()), 600)
        for what in ("request 200", "request 400", "request 501", "response 2xx", "response cut"):
            self.assertGreater(seen[what], 4, seen)

    def test_the_same_seed_gives_the_same_bytes(self) -> None:
        """And another one gives others."""
        self.assertEqual(fuzz(3, rounds=40), fuzz(3, rounds=40))
        self.assertNotEqual(fuzz(3, rounds=40), fuzz(4, rounds=40))

    def test_the_corpus_is_sound(self) -> None:
        """Undamaged, every case satisfies the judge."""
        for case in REQUESTS:
            if len(case.raw) < 1000:
                judge_request(case.raw, [3, 30])
        for answer in RESPONSES:
            for reset in (False, True):
                judge_response(answer.raw[:1000], answer.method, reset=reset)

    def test_input_of_atheris(self) -> None:
        """Its bytes choose between requests and responses; too few are nothing."""
        for data in (
            b"",
            b"ab",
            b"\x00\x05GET / HTTP/1.1\r\n\r\n",
            b"\x43\x05HTTP/1.1 200 OK\r\n\r\n",
        ):
            one_input(data)

    def test_every_damage_works_on_every_length(self) -> None:
        """Also on nothing."""
        dice = random.Random(1)
        for damage in DAMAGES:
            for data in (b"", b"x", REQUESTS[0].raw):
                for _ in range(20):
                    damage(dice, data)

    def test_the_command(self) -> None:
        """It says what came of the inputs; a failure is its exit status."""
        arguments = ["--seconds", "0.2", "--seed", "5", "--engine", "own"]
        done = CliRunner().invoke(fuzz_http.main, arguments)
        self.assertEqual(done.exit_code, 0, done.output)
        self.assertRegex(done.output, r"seed 5, by chance\n\d+ inputs: .*request 400: \d+")
        self.patch(http_judge, "STATUSES", frozenset((200,)))
        done = CliRunner().invoke(fuzz_http.main, arguments)
        self.assertEqual(done.exit_code, 1)
        self.assertIn("answered [", done.output)


class CarelessTests(SynchronousTestCase):
    """The judge notices a core that would have done something careless."""

    def unsound(self, data: bytes, why: str, *outcomes: Seen) -> None:
        """What a core makes of ``data`` is ``outcomes``, one a run; the last for ever."""
        left = list(outcomes)
        run = lambda pieces: left.pop(0) if len(left) > 1 else left[0]  # noqa: E731
        self.patch(http_judge, "_run", run)
        with self.assertRaisesRegex(Unsound, why):
            judge_request(data)

    def test_smuggled(self) -> None:
        """A second request made of the first one's body."""
        smuggled = post(b"Content-Length: %d" % len(get()), body=get())
        sent = (up(b"POST /", body=b""), up())
        self.unsound(smuggled, "went up instead of", Seen((_OK, _OK), 0, sent, "", False, b""))

    def test_repaired(self) -> None:
        """A request that is no request, put right."""
        self.unsound(get(b"A : b"), "not in the bytes", Seen((_OK,), 0, (up(),), "", False, b""))

    def test_another_target(self) -> None:
        """A target that was changed on its way."""
        raw = line(b"GET /a/%2e%2e/b HTTP/1.1")
        self.unsound(raw, "went up", Seen((_OK,), 0, (up(b"GET /b"),), "", False, b""))

    def test_left_open(self) -> None:
        """A refusal that leaves the connection open, one that closes it again, a strange one."""
        refused = Seen((down(400, b"Bad"),), 0, (), "", False, b"")
        self.unsound(b"x", "left the connection open", refused)
        self.unsound(b"x", "answered", Seen((down(599, b"Odd"),), 0, (), "closed", False, b""))
        twice = Seen((down(400, b"Bad"),) * 2, 0, (), "closed", False, b"")
        self.unsound(b"x", "answered", twice)

    def test_split(self) -> None:
        """An outcome that depends on how the bytes came."""
        good = Seen((_OK,), 0, (up(),), "", False, b"")
        bad = Seen((down(400, b"Bad"),), 0, (), "closed", False, b"")
        self.unsound(get(), "cut otherwise, answers", good, bad)
        self.unsound(
            get(), "cut otherwise, the connection", good, attrs.evolve(good, fate="closed")
        )

    def test_responses(self) -> None:
        """A torn and a changed response that look right, and one that depends on its reads."""
        raw = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        for data, got, why in (
            (raw[:-1], [_OK], "no whole response"),
            (raw, [down(200, b"OK", b"Content-Length: 2", body=b"no")], "upstream said"),
            (raw, [_OK, None], "cut otherwise"),
        ):
            left = list(got)
            play = lambda *_, left=left: left.pop(0) if len(left) > 1 else left[0]  # noqa: E731
            self.patch(http_judge, "_play", play)
            with self.assertRaisesRegex(Unsound, why):
                judge_response(data)
