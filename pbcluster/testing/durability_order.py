"""Whether a member's disk came before its word, judged from a trace of its system calls. Pure.

A member acknowledges entries (``AppendReply``) and gives votes (``VoteReply``) only once they
cannot be lost. LMDB (``sync=True``, no write map) makes a transaction durable in three steps: it
writes pages, calls ``fdatasync``, and writes the meta page, which points at them, to a descriptor
that was opened with ``O_DSYNC``: durable when that write returns. So, for each word on a socket:

* the entry (or the vote), byte for byte as the store seals it, stands in pages that were written;
* an ``fdatasync`` of the same file began after that and returned 0;
* then the meta page was written, and that write returned;
* only then the ``send`` with the word began.

Needs a trace of a member with plain sockets from its start, of :data:`CALLS`.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Sequence

import attrs
import msgspec

from pbcluster.errors import RemoteProtocolError
from pbcluster.raft import AnyMessage, Entry
from pbcluster.raft.frames import MAGIC, decode
from pbcluster.raft.messages import Append, AppendReply, VoteReply
from pbcluster.testing.strace import Call

WRITES = ("write", "writev", "pwrite64", "pwritev", "sendto", "sendmsg")
READS = ("recvfrom", "recvmsg", "read")
SYNCS = ("fdatasync", "fsync", "msync")
CALLS = ("openat", *WRITES, "recvfrom", "recvmsg", *SYNCS)
#: ZMTP 3.1: flags and one byte, or flags with the long bit and eight bytes, before each frame.
_LONG = 0x02
_MAX_FRAME_BYTES = 4 * 1024 * 1024


@attrs.frozen
class Commit:
    """One transaction of LMDB.

    :ivar pages: everything that was written.
    :ivar synced: whether an ``fdatasync`` came between the pages and the meta page.
    :ivar durable: the line from which on it cannot be lost.
    """

    pages: bytes
    synced: bool
    durable: int


@attrs.frozen
class Word:
    """A Raft message on a socket, and the lines between which it went."""

    message: AnyMessage
    begun: int
    ended: int


@attrs.frozen
class Order:
    """What a trace shows: how many words were held against the disk, and which came too early."""

    entries: int
    votes: int
    commits: int
    violations: tuple[str, ...]


def judge(calls: Sequence[Call]) -> Order:
    """Hold every word of the trace against the disk."""
    pages_fd, meta_fd = _store_descriptors(calls)
    done = commits(calls, pages_fd, meta_fd)
    heard = [w for w in _words(calls, READS, ()) if isinstance(w.message, Append)]
    entries = votes = acked = 0
    violations: list[str] = []
    for word in _words(calls, WRITES, (pages_fd, meta_fd)):
        message = word.message
        if isinstance(message, AppendReply) and not message.rejected and message.index > acked:
            for entry in _received(heard, word.begun, acked, message.index):
                entries += 1
                if not _is_durable(done, re.escape(stored_entry(entry)), word.begun):
                    violations.append(f"entry {entry.index} was acknowledged in line {word.begun}")
            acked = message.index
        elif isinstance(message, VoteReply) and message.granted and not message.pre:
            votes += 1
            if not _is_durable(done, stored_vote(message.term, message.to), word.begun):
                violations.append(f"a vote in term {message.term} was given in line {word.begun}")
    return Order(entries, votes, len(done), tuple(violations))


def stored_entry(entry: Entry) -> bytes:
    """The bytes of an entry as the store seals them, with the checksum over its index."""
    tail = struct.pack(">QB", entry.term, entry.kind) + entry.data
    return struct.pack(">I", zlib.crc32(struct.pack(">Q", entry.index) + tail)) + tail


def stored_vote(term: int, candidate: str) -> bytes:
    """A pattern of the hard state's record: key, checksum, then term and vote."""
    begin = b"\x93" + msgspec.msgpack.encode(term) + msgspec.msgpack.encode(candidate)
    return b"hard_state.{4}" + re.escape(begin)


def _store_descriptors(calls: Sequence[Call]) -> tuple[int, int]:
    """:returns: the descriptor for pages and the one for the meta page."""
    opened = [c for c in calls if c.name == "openat" and c.data.endswith(b"/data.mdb")]
    meta = [c.result for c in opened if "O_DSYNC" in c.args and c.result >= 0]
    pages = [c.result for c in opened if "O_DSYNC" not in c.args and c.result >= 0]
    if len(meta) != 1 or len(pages) != 1:
        raise ValueError(f"the trace shows {len(pages)} stores and {len(meta)} with O_DSYNC")
    return pages[0], meta[0]


def commits(calls: Sequence[Call], pages_fd: int, meta_fd: int) -> list[Commit]:
    """Every transaction whose meta page was written."""
    found: list[Commit] = []
    pages: list[Call] = []
    syncs: list[Call] = []
    for call in calls:
        if call.fd == pages_fd and call.name in WRITES:
            pages.append(call)
        elif call.fd == pages_fd and call.name in SYNCS:
            syncs.append(call)
        elif call.fd == meta_fd and call.name in WRITES:
            last = max((page.ended for page in pages), default=-1)
            synced = any(s.begun > last and s.result == 0 and s.ended < call.begun for s in syncs)
            whole = b"".join(page.data for page in pages)
            if call.result > 0:
                found.append(Commit(whole, synced, call.ended))
            pages, syncs = [], []
    return found


def _is_durable(done: Sequence[Commit], pattern: bytes, line: int) -> bool:
    wanted = re.compile(pattern, re.DOTALL)
    return any(c.synced and c.durable < line and wanted.search(c.pages) for c in done)


def _received(heard: Sequence[Word], line: int, after: int, upto: int) -> list[Entry]:
    """The newest version of each entry that came before ``line``, in a range of indexes."""
    found: dict[int, Entry] = {}
    for word in heard:
        if word.ended < line and isinstance(word.message, Append):
            found.update({e.index: e for e in word.message.entries if after < e.index <= upto})
    return [found[index] for index in sorted(found)]


def _words(calls: Sequence[Call], names: Sequence[str], but: Sequence[int]) -> Iterator[Word]:
    """Raft messages in what was sent or received, in order."""
    streams: dict[int, list[Call]] = {}
    for call in calls:
        if call.name in names and call.fd not in but and call.result > 0:
            streams.setdefault(call.fd, []).append(call)
    found = [word for stream in streams.values() for word in _in_stream(stream)]
    yield from sorted(found, key=lambda word: word.begun)


def _in_stream(calls: Sequence[Call]) -> Iterator[Word]:
    """Messages in the bytes of one descriptor."""
    data, starts = bytearray(), []
    for call in calls:
        starts.append((len(data), call))
        data += call.data[: call.result]
    at = data.find(MAGIC)
    while at >= 0:
        size = _frame_size(data, at)
        try:
            message = decode(bytes(data[at : at + size])).message
        except RemoteProtocolError:
            at = data.find(MAGIC, at + 1)
            continue
        begun = next(call.begun for begin, call in reversed(starts) if begin <= at)
        ended = next(call.ended for begin, call in reversed(starts) if begin < at + size)
        yield Word(message, begun, ended)
        at = data.find(MAGIC, at + size)


def _frame_size(data: bytearray, at: int) -> int:
    """Bytes of the frame that begins at ``at``, by the ZMTP header before it."""
    if at >= 9 and data[at - 9] & _LONG:
        size = int.from_bytes(data[at - 8 : at], "big")
        if 255 < size <= _MAX_FRAME_BYTES:
            return size
    return data[at - 1] if at else 0
