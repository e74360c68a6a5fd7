"""The corpus over real sockets, on each kind of transport, and 10,000 half-open connections."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys

from pbcluster.testing.http_corpus import REQUESTS, RESPONSES, RequestCase, get
from pbcluster.testing.http_corpus.cases import ResponseCase
from pbcluster.testing.http_memory import answers_of
from pbcluster.testing.http_reference import Message
from tests.web.process_case import READ_BYTES, WITHIN_S, ProcessCase
from tests.web.test_corpus import plain

#: Cases so short are also sent byte by byte.
SHORT_BYTES = 160


def answers(client: socket.socket, methods: list[bytes], count: int) -> tuple[list[Message], str]:
    """What comes on a connection until its end, or ``count`` final responses (0: only its end).

    :return: the final ones, and how the connection ended: "", "closed" or "reset".
    """
    received, ended = b"", ""
    while not ended:
        try:
            data = client.recv(READ_BYTES)
        except ConnectionResetError:
            return [], "reset"
        received += data
        ended = "" if data else "closed"
        found = answers_of(received, methods, bool(ended))
        final = [each for each in found if each.status >= 200]
        if count and len(final) >= count:
            break
    return final, ended


class CorpusOverTCP(ProcessCase):
    """On Twisted's own transports."""

    def sent(self, case: RequestCase, pieces: list[bytes]) -> None:
        methods = [message.line[0] for message in case.sent]
        with self.connect() as client:
            with contextlib.suppress(ConnectionError):  # it may be refused before its end is sent
                for piece in pieces:
                    client.sendall(piece)
            found, ended = answers(client, methods, 0 if case.closed else len(case.statuses))
        statuses = tuple(each.status for each in found)
        self.assertEqual((statuses, ended), (case.statuses, "closed" if case.closed else ""), case)
        self.assertEqual(plain(self.recorder.take()), plain(case.sent), case.name)
        self.assertEqual(self.recorder.doubts, [])

    def test_requests(self) -> None:
        """Every request of the corpus gets its answers, sends upstream what it must and no more,
        and its connection ends or stays."""
        for case in REQUESTS:
            self.sent(case, [case.raw])

    def test_requests_byte_by_byte(self) -> None:
        """Short ones also as single bytes, however the kernels join them."""
        for case in REQUESTS:
            if len(case.raw) <= SHORT_BYTES:
                self.sent(case, [bytes([byte]) for byte in case.raw])

    def test_refused_requests_connect_to_nobody(self) -> None:
        """No connection upstream is made for a refused request."""
        for case in REQUESTS:
            if case.refused:
                self.sent(case, [case.raw])
        self.assertEqual(self.recorder.connections, 0)

    def answered(self, case: ResponseCase) -> None:
        self.recorder.answer = lambda message: (case.raw, case.ending)
        with self.connect() as client:
            client.sendall(get().replace(b"GET", case.method))
            found, ended = answers(client, [case.method], 0 if case.cut else 1)
        if case.cut:
            # Nothing says that what it got is whole; a reset may overtake it.
            self.assertEqual((found, ended), ([], "reset"), case.name)
        elif case.answer is None:
            self.assertEqual([each.status for each in found], [502], case.name)
        else:
            self.assertEqual(plain(found), plain([case.answer]), case.name)

    def test_responses(self) -> None:
        """Every response of the corpus passes, is refused or breaks off as it must; what is torn
        ends in a reset."""
        for case in RESPONSES:
            self.answered(case)


class CorpusOverTCPOnUvloop(CorpusOverTCP):
    """On the same, driven by the loop of the services."""

    transport = "tcp-uvloop"


class CorpusOverLibuv(CorpusOverTCP):
    """On libuv's streams, as the services run."""

    transport = "libuv"


class HalfOpenOverTCP(ProcessCase):
    """Connections whose request never ends, on the loop of the services."""

    transport = "libuv"

    COUNT = 10_000
    options = ("--header-timeout-s", "6")

    def ask(self, target: bytes) -> Message:
        """A good request on a new connection."""
        with self.connect() as client:
            client.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: a.localhost\r\n\r\n")
            (answer,), _ = answers(client, [b"GET"], 1)
        return answer

    def test_10000(self) -> None:
        """While 10,000 connections with half a head are open, every good request is served, on new
        and on kept connections; then the header deadline answers all of them 408 and ends them."""
        child = subprocess.Popen(
            [
                *(sys.executable, "-m", "pbcluster.testing.half_open"),
                *("--port", str(self.port), "--count", str(self.COUNT), "--within-s", "60"),
            ],
            stdout=subprocess.PIPE,
        )
        self.addCleanup(child.wait, WITHIN_S)
        self.addCleanup(child.kill)
        assert child.stdout is not None
        opened = json.loads(child.stdout.readline())["open"]
        self.assertEqual(opened, self.COUNT)
        self.assertGreater(int(self.ask(b"/connections").body), self.COUNT)
        kept = self.connect()
        self.addCleanup(kept.close)
        for _ in range(100):
            self.assertEqual(self.ask(b"/").status, 200)
            kept.sendall(get())
            (answer,), _ = answers(kept, [b"GET"], 1)
            self.assertEqual(answer.status, 200)
        self.assertGreaterEqual(len(self.recorder.take()), 200)
        self.assertEqual(json.loads(child.stdout.readline()), {"408": self.COUNT})
        for _ in range(2_000):  # those that ended are still being let go
            if int(self.ask(b"/connections").body) <= 2:
                break
        else:
            self.fail("connections that were answered are still open")
        self.assertEqual(self.ask(b"/").status, 200)
