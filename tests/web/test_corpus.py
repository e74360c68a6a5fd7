"""The corpus of bad and odd input against the core, in memory: whole, and split at every byte."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.testing.http_corpus import GROUPS, REQUESTS, RESPONSES, RequestCase, get, table
from pbcluster.testing.http_corpus.cases import ResponseCase
from pbcluster.testing.http_memory import Core, Seen, StandIn, answers_of
from pbcluster.testing.http_reference import Message
from pbcluster.testing.http_wire import Far

#: Cases longer than this are split near both ends and now and then between; with
#: PBCLUSTER_ALL_SPLITS=1 everywhere.
LONG_BYTES, EDGE_BYTES, STRIDE_BYTES = 1000, 60, 997
_DATE = re.compile(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT")
_DOCS = Path(__file__).parents[2] / "docs"

Norm = tuple[object, ...]


def plain(messages: Iterable[Message]) -> list[Norm]:
    """Messages without the order of their fields, and without what depends on how they came."""
    return [
        (each.line, [f for f in each.sorted_fields if f[0] not in (b"expect", b"date")], each.body)
        for each in messages
    ]


def outcome(seen: Seen) -> Norm:
    """What may not depend on how the request's bytes were cut; the sentence of a refusal may."""
    statuses = [answer.status for answer in seen.answers]
    passed = plain(answer for answer in seen.answers if answer.status == 200)
    return statuses, passed, plain(seen.requests), seen.fate


def splits(size: int) -> Iterable[int]:
    """Where a case of ``size`` bytes is cut in two."""
    for at in range(1, size):
        edge = at < EDGE_BYTES or at > size - EDGE_BYTES
        if (
            size <= LONG_BYTES
            or edge
            or not at % STRIDE_BYTES
            or "PBCLUSTER_ALL_SPLITS" in os.environ
        ):
            yield at


class RequestTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.core = Core()
        self.addCleanup(lambda: self.assertEqual(self.core.nothing_left(), []))

    def check(self, case: RequestCase, seen: Seen) -> None:
        self.assertEqual(tuple(each.status for each in seen.answers), case.statuses, case.name)
        self.assertEqual(plain(seen.requests), plain(case.sent), case.name)
        self.assertEqual(seen.fate, "closed" if case.closed else "", case.name)

    def test_each_case(self) -> None:
        """Each case gets its statuses; what it may send upstream arrives, and nothing else; the
        connection ends or stays as it must."""
        for case in REQUESTS:
            self.check(case, self.core.exchange([case.raw]))

    def test_nothing_of_a_refused_request_goes_upstream(self) -> None:
        """No connection is even made for one, whatever stands behind it on the same connection."""
        for case in REQUESTS:
            if case.refused:
                seen = self.core.exchange([case.raw + get()])
                self.assertEqual(tuple(a.status for a in seen.answers), case.statuses, case.name)
        self.assertEqual((self.core.pool.made, self.core.attempts), (0, []))

    def test_refusals(self) -> None:
        """Every refusal is JSON in PocketBase's form with a Date, is not to be cached, says that
        the connection ends, and ends it."""
        for case in REQUESTS:
            if case.statuses[-1] == 200:
                continue
            seen = self.core.exchange([case.raw])
            answer = seen.answers[-1]
            body = json.loads(answer.body)
            self.assertEqual((body["status"], body["data"]), (answer.status, {}), case.name)
            self.assertTrue(body["message"], case.name)
            self.assertEqual(answer.values(b"content-type"), [b"application/json"])
            self.assertEqual(answer.values(b"cache-control"), [b"no-store"], case.name)
            self.assertEqual(answer.values(b"connection"), [b"close"], case.name)
            self.assertEqual(seen.fate, "closed", case.name)
            (date,) = answer.values(b"date")
            self.assertRegex(date.decode(), _DATE)
            allowed = answer.values(b"allow")
            self.assertEqual(bool(allowed), answer.status == 405, case.name)

    def test_nothing_is_reflected(self) -> None:
        """A refusal shows none of the bytes that it refuses, whatever they are."""
        marker = b"zqxj"
        for raw in (
            b"GET /%b\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"%b / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / %b\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: <%b>\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n%b(: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nExpect: %b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: %b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: %b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%b\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n%b(:\r\n\r\n",
        ):
            seen = self.core.exchange([raw % marker])
            self.assertGreaterEqual(seen.answers[0].status, 400, raw)
            self.assertNotIn(marker, seen.received)

    def test_byte_by_byte(self) -> None:
        """Bytes that come one by one get the same answers, and send the same upstream."""
        for case in REQUESTS:
            self.check(case, self.core.exchange([bytes([byte]) for byte in case.raw]))

    def test_every_split(self) -> None:
        """So do bytes that come in two pieces, cut anywhere."""
        for case in REQUESTS:
            expected = outcome(self.core.exchange([case.raw]))
            for at in splits(len(case.raw)):
                seen = self.core.exchange([case.raw[:at], case.raw[at:]])
                self.assertEqual(outcome(seen), expected, (case.name, at))

    def test_after_the_same_fields(self) -> None:
        """What was learned from a request's fields changes nothing for the next one that has the
        same lines, be its first line another, or its version."""
        for case in REQUESTS:
            alone = outcome(Core().exchange([case.raw]))
            fields = case.raw.partition(b"\r\n")[2].partition(b"\r\n\r\n")[0]
            core = Core()
            for first in (b"GET /x HTTP/1.1", b"HEAD /x HTTP/1.0", b"POST * HTTP/1.1"):
                core.exchange([first + b"\r\n" + fields + b"\r\n\r\n"])
                core.exchange([case.raw])
                self.assertEqual(outcome(core.exchange([case.raw])), alone, (case.name, first))

    def test_every_number_has_its_cases(self) -> None:
        """No number of the list is without a case, but for those that are no matter of form."""
        elsewhere = {"26", "27", "32", "37"}
        numbers = {f"{number:02}" for number in range(1, 41)} - elsewhere
        self.assertEqual(numbers - {case.group for case in REQUESTS}, set())
        self.assertEqual({case.group for case in REQUESTS}, set(GROUPS))
        self.assertEqual(len({case.name for case in REQUESTS}), len(REQUESTS))

    def test_documentation(self) -> None:
        """The documentation's table is the corpus as it is."""
        text = (_DOCS / "refused-requests.rst").read_text()
        self.assertIn(table(), text, "run: python -m pbcluster.testing.http_corpus")


class Script(Far):
    """An upstream that says the case's bytes as soon as a request's head came."""

    pieces: Sequence[bytes] = ()
    ending = ""

    def heard(self, data: bytes) -> None:
        before, self.received = self.received, self.received + data
        if b"\r\n\r\n" in self.received and b"\r\n\r\n" not in before:
            for piece in self.pieces:
                if piece:
                    self.send(piece)
            if self.ending == "close":
                self.close()
            elif self.ending == "reset":
                self.reset()


class ResponseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.core = Core(upstream=self.script)
        self.addCleanup(lambda: self.assertEqual(self.core.nothing_left(), []))
        self.pieces: Sequence[bytes] = ()
        self.ending = ""

    def script(self, wire: object, protocol: object) -> Far:
        far = Script(wire, protocol)  # type: ignore[arg-type]
        far.pieces, far.ending = self.pieces, self.ending
        return far

    def play(self, case: ResponseCase, pieces: Sequence[bytes]) -> Norm:
        """What the client gets of a response that comes in ``pieces``."""
        self.pieces, self.ending = pieces, case.ending
        core = self.core
        client = core.client()
        client.send(get().replace(b"GET", case.method))
        core.wire.run()
        self.assertEqual(len(core.upstreams), 1, case.name)
        torn = client.ended == "aborted"
        found = [] if torn else answers_of(client.received, [case.method], bool(client.ended))
        idle = core.pool.idle_count
        outcome = core.attempts.pop(0).outcome.value
        cut = core.upstreams[0].ended
        core.end(client)
        self.assertEqual(core.attempts, [])
        return torn, plain(found), outcome, idle, cut if not case.ending else ""

    def expected(self, case: ResponseCase) -> Norm:
        answers = plain([case.answer]) if case.answer is not None else []
        cut = "" if case.reused or case.ending else "aborted"
        return case.cut, answers, case.outcome, int(case.reused), cut

    def check(self, case: ResponseCase, got: Norm, at: object = "") -> None:
        torn, answers, *rest = got
        expected_torn, expected, *expected_rest = self.expected(case)
        assert isinstance(answers, list)
        if case.outcome == "no_response":
            self.assertEqual([each[0][1] for each in answers], [b"502"], (case.name, at))
            answers = expected
        self.assertEqual(
            (torn, answers, rest), (expected_torn, expected, expected_rest), (case.name, at)
        )

    def test_each_case(self) -> None:
        """Each response passes as it must, is refused whole, or breaks off as the upstream did."""
        for case in RESPONSES:
            self.check(case, self.play(case, [case.raw]))

    def test_byte_by_byte(self) -> None:
        """The same if its bytes come one by one."""
        for case in RESPONSES:
            self.check(case, self.play(case, [bytes([byte]) for byte in case.raw]), "bytes")

    def test_every_split(self) -> None:
        """The same if it comes in two pieces, cut anywhere."""
        for case in RESPONSES:
            for at in splits(len(case.raw)):
                self.check(case, self.play(case, [case.raw[:at], case.raw[at:]]), at)

    def test_a_torn_response_never_ends_cleanly(self) -> None:
        """What the client got of it is no whole response, chunked or not."""
        for case in RESPONSES:
            if case.outcome != "broken":
                continue
            self.pieces, self.ending = [case.raw], case.ending
            client = self.core.client()
            client.send(get())
            self.core.wire.run()
            self.assertEqual(client.ended, "aborted", case.name)
            self.assertEqual(answers_of(client.received, [b"GET"], ended=False), [], case.name)
            self.core.end(client)


__all__ = ["RequestTests", "ResponseTests", "StandIn"]
