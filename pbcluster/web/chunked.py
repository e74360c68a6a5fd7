"""Message bodies: where one ends, by length, by chunks, or by the connection's end.

Pure: bytes in, body bytes out, nothing kept but a partial line. The chunked decoder is strict (RFC
9112, section 7.1): hexadecimal digits only, CRLF only, extensions ignored, trailers checked and
dropped, never merged. All readers share one shape, so that their users need not know which it is.
"""

from __future__ import annotations

import re
from typing import Protocol

from pbcluster.web.headers import BadField, check_lines, scan_fields

LAST_CHUNK = b"0\r\n\r\n"
#: A chunk's size line with its extensions; honest peers send under 20 bytes.
MAX_SIZE_LINE_BYTES = 272
#: All trailers of a body together; they are dropped anyway.
MAX_TRAILER_BYTES = 8192

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t -~\x80-\xff]*)?")


class BadBody(ValueError):
    """The body's framing is not beyond doubt."""


class BodyReader(Protocol):
    """Tells body bytes from what follows them."""

    @property
    def done(self) -> bool:
        """Whether the body is complete."""

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take bytes of the connection.

        :return: the body bytes in them, and what follows the body's end (empty until ``done``).
        :raises BadBody: the framing is wrong.
        """


class LengthReader:
    """A body of ``length`` bytes; of 0 it is done at once."""

    __slots__ = ("left",)

    def __init__(self, length: int) -> None:
        self.left = length

    @property
    def done(self) -> bool:
        """Whether all bytes came."""
        return not self.left

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """See :meth:`BodyReader.feed`."""
        left = self.left
        if len(data) <= left:
            self.left = left - len(data)
            return data, b""
        self.left = 0
        return data[:left], data[left:]


class CloseReader:
    """A response body that lasts until the upstream closes; only its owner knows when."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """See :meth:`BodyReader.feed`."""
        return data, b""


class ChunkedReader:
    """The strict decoder of ``Transfer-Encoding: chunked``."""

    __slots__ = ("_in_trailer", "_left", "_partial", "_trailer_bytes", "done")

    def __init__(self) -> None:
        self.done = False
        self._partial = b""
        self._in_trailer = False
        self._trailer_bytes = 0
        #: Bytes of the current chunk still to come, with its CRLF; 0 when a line is expected.
        self._left = 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """See :meth:`BodyReader.feed`."""
        if self._partial:
            data = self._partial + data
            self._partial = b""
        pieces: list[bytes] = []
        at = 0
        while not self.done and at < len(data):
            at = self._chunk(data, at, pieces) if self._left else self._line(data, at)
            if at < 0:
                break
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return body, data[at:] if self.done else b""

    def _chunk(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        """Take chunk data at ``at``; give the position behind it."""
        if self._left > 2:
            piece = data[at : at + self._left - 2]
            pieces.append(piece)
            self._left -= len(piece)
            return at + len(piece)
        expected = b"\r\n"[-self._left :]
        end = data[at : at + self._left]
        if end != expected[: len(end)]:
            raise BadBody("a chunk does not end where its size says")
        self._left -= len(end)
        return at + len(end)

    def _line(self, data: bytes, at: int) -> int:
        """Take a size or trailer line at ``at``; give the position behind it, -1 if incomplete."""
        end = data.find(b"\r\n", at)
        limit = MAX_TRAILER_BYTES if self._in_trailer else MAX_SIZE_LINE_BYTES
        if (end if end >= 0 else len(data)) - at > limit:
            raise BadBody("a chunk's size line or the trailer is too long")
        if end < 0:
            self._partial = data[at:]
            if b"\n" in self._partial or b"\r" in self._partial[:-1]:
                raise BadBody("bare CR or bare LF between chunks")
            return -1
        line = data[at:end]
        if self._in_trailer:
            self._trailer_line(line)
        else:
            self._size_line(line)
        return end + 2

    def _size_line(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise BadBody("a chunk's size is not hexadecimal")
        size = int(match[1], 16)
        self._left = size + 2 if size else 0
        self._in_trailer = not size

    def _trailer_line(self, line: bytes) -> None:
        if not line:
            self.done = True
            return
        self._trailer_bytes += len(line)
        if self._trailer_bytes > MAX_TRAILER_BYTES:
            raise BadBody("the trailer is too long")
        try:
            check_lines(line)
            scan_fields((line,))
        except BadField as error:
            raise BadBody(f"in the trailer: {error}") from None


def encode_chunk(data: bytes) -> bytes:
    """``data``, not empty, as one chunk: an empty one would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)
