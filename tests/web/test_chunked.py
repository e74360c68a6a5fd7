"""Body readers: the end of a body is found exactly, and nothing doubtful is decoded."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.web.chunked import (
    LAST_CHUNK,
    BadBody,
    ChunkedReader,
    LengthReader,
    encode_chunk,
)
from tests.web.corpus import BAD_BODIES


def decode(*pieces: bytes) -> tuple[bytes, bytes, bool]:
    """(body, rest, done) of a chunked body that comes in these pieces."""
    reader = ChunkedReader()
    body, rest = b"", b""
    for piece in pieces:
        if reader.done:
            rest += piece
            continue
        more, rest = reader.feed(piece)
        body += more
    return body, rest, reader.done


class Chunked(SynchronousTestCase):
    def test_bad_bodies_however_split(self) -> None:
        """Every bad body of the corpus is refused, whole, cut anywhere, or byte by byte."""
        for name, (raw, _) in BAD_BODIES.items():
            body = raw.partition(b"\r\n\r\n")[2]
            step = 1 if len(body) < 500 else 53
            ways = [[body], [body[at : at + 1] for at in range(len(body))]]
            ways += [[body[:cut], body[cut:]] for cut in range(1, len(body), step)]
            for pieces in ways:
                with self.assertRaises(BadBody, msg=name):
                    decode(*pieces)

    def test_good_body_however_split(self) -> None:
        """Extensions and trailers are dropped, and what follows is given back."""
        raw = b"5;a=b\r\nhello\r\n0A\r\n, world!!!\r\n0\r\nX-T: 1\r\nY: 2\r\n\r\nGET"
        want = (b"hello, world!!!", b"GET", True)
        self.assertEqual(decode(raw), want)
        self.assertEqual(decode(*(raw[at : at + 1] for at in range(len(raw)))), want)
        for cut in range(len(raw)):
            self.assertEqual(decode(raw[:cut], raw[cut:]), want)

    def test_unfinished(self) -> None:
        """Without the last chunk's empty line the body is not over."""
        self.assertEqual(decode(b"1\r\na\r\n0\r\n"), (b"a", b"", False))

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.binary(min_size=1, max_size=300)), st.integers())
    def test_round_trip(self, chunks: list[bytes], seed: int) -> None:
        """What is encoded is decoded, whatever the cuts."""
        raw = b"".join(encode_chunk(chunk) for chunk in chunks) + LAST_CHUNK + b"rest"
        source = random.Random(seed)
        pieces = []
        while raw:
            size = source.randint(1, 200)
            pieces.append(raw[:size])
            raw = raw[size:]
        self.assertEqual(decode(*pieces), (b"".join(chunks), b"rest", True))


class Lengths(SynchronousTestCase):
    def test_counts(self) -> None:
        """A body of a known length ends at it and gives back the rest."""
        reader = LengthReader(5)
        self.assertEqual(reader.feed(b"ab"), (b"ab", b""))
        self.assertFalse(reader.done)
        self.assertEqual(reader.feed(b"cdeGET"), (b"cde", b"GET"))
        self.assertTrue(reader.done)
        self.assertTrue(LengthReader(0).done)
