"""Damaged requests: whatever comes, what goes upstream is one undoubted request each."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.web.chunked import ChunkedReader
from pbcluster.web.interfaces import Outcome, RequestHead
from pbcluster.web.limits import HeadLimits
from pbcluster.web.rules import HeadScanner, parse_request
from tests.web.corpus import BAD_BODIES, BAD_HEADS, chunked, get, post
from tests.web.memory import Web

SEEDS = [raw for raw, _ in (*BAD_HEADS.values(), *BAD_BODIES.values()) if len(raw) < 500]
GOOD = [get(), post(b"Content-Length: 5", body=b"hello"), chunked(b"3\r\nabc\r\n0\r\n\r\n")]
# As many as the bad ones: damage then finds requests that are nearly right.
SEEDS += GOOD * (len(SEEDS) // len(GOOD))
SNIPPETS = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b":",
    b"\x00",
    b"0",
    b",",
    b";",
    b"\xff",
]
SNIPPETS += [
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\n",
    b"Host: b\r\n",
    b"chunked",
]
SNIPPETS += [get(), b"0\r\n\r\n", b"\r\n "]


def damaged(source: random.Random) -> bytes:
    raw = source.choice(SEEDS)
    for _ in range(source.randint(0, 3)):
        at = source.randrange(len(raw) + 1)
        cut = at + source.choice((0, 0, 1, 2, 5))
        raw = raw[:at] + source.choice(SNIPPETS) + raw[cut:]
    return raw


class Fuzz(SynchronousTestCase):
    def one_request(self, sent: bytes, name: str) -> None:
        """What an upstream got is the beginning of exactly one request."""
        found = HeadScanner(HeadLimits()).feed(sent)
        self.assertIsNotNone(found, name)
        assert found is not None
        head = parse_request(found[0], HeadLimits())
        self.assertIsInstance(head, RequestHead, name)
        assert isinstance(head, RequestHead)
        body = found[1]
        length = head.content_length or 0
        rest = ChunkedReader().feed(body)[1] if head.chunked else body[length:]
        self.assertEqual(rest, b"", name)

    def test_damaged_requests(self) -> None:
        """No damage makes the core raise, or forward more or less than one request a forward."""
        forwarded = 0
        for seed in range(3000):
            source = random.Random(seed)
            raw = damaged(source)
            web = Web()
            client = web.client()
            while raw:
                size = source.choice((1, 7, 1000))
                client.send(raw[:size])
                raw = raw[size:]
                while web.upstreams.connecting:
                    upstream = web.upstreams.accept()
                    self.one_request(upstream.got(), f"seed {seed}")
                    forwarded += 1
                    if source.random() < 0.5:
                        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                        upstream.close()
            client.close()
            ends = {Outcome.COMPLETED, Outcome.CLIENT_GONE}
            self.assertLessEqual({attempt.outcome for attempt in web.attempts}, ends)
            web.assert_nothing_left(self)
        self.assertGreater(forwarded, 300)
