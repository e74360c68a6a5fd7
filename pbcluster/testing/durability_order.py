"""Whether a member's disk came before its word, judged from a trace of its system calls. Pure.

A member acknowledges entries (``AppendReply``) and gives votes (``VoteReply``) only once they
cannot be lost. There are two ways to that. A record of the journal is written and then the journal
is synced. LMDB (``sync=True``, no write map) writes pages, calls ``fdatasync``, and writes the meta
page, which points at them, to a descriptor that was opened with ``O_DSYNC``: durable when that
write returns. So, for each word on a socket:

* the entry (or the vote) stands in a record of the journal, and an ``fdatasync`` of the journal
  began after that was written, and returned 0;
* or it stands in pages, byte for byte as the store seals it, an ``fdatasync`` of the same file
  began after those were written and returned 0, then the meta page was written, and that returned;
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

from pbcluster.controlplane.journal import data_of
from pbcluster.controlplane.unsettled import written
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
class Record:
    """A record of the journal that was synced.

    :ivar durable: the line from which on it cannot be lost.
    """

    entries: frozenset[Entry]
    votes: frozenset[tuple[int, str]]
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
    pages_fd, meta_fd, journal_fd = _store_descriptors(calls)
    done = commits(calls, pages_fd, meta_fd)
    kept = records(calls, journal_fd)
    heard = [w for w in _words(calls, READS, ()) if isinstance(w.message, Append)]
    entries = votes = acked = 0
    violations: list[str] = []
    for word in _words(calls, WRITES, (pages_fd, meta_fd, journal_fd)):
        message, line = word.message, word.begun
        if isinstance(message, AppendReply) and not message.rejected and message.index > acked:
            for entry in _received(heard, line, acked, message.index):
                entries += 1
                journaled = any(r.durable < line and entry in r.entries for r in kept)
                if not journaled and not _is_durable(done, re.escape(stored_entry(entry)), line):
                    violations.append(f"entry {entry.index} was acknowledged in line {line}")
            acked = message.index
        elif isinstance(message, VoteReply) and message.granted and not message.pre:
            votes += 1
            vote = (message.term, message.to)
            journaled = any(r.durable < line and vote in r.votes for r in kept)
            if not journaled and not _is_durable(done, stored_vote(*vote), line):
                violations.append(f"a vote in term {message.term} was given in line {line}")
    return Order(entries, votes, len(done) + len(kept), tuple(violations))


def stored_entry(entry: Entry) -> bytes:
    """The bytes of an entry as the store seals them, with the checksum over its index."""
    tail = struct.pack(">QB", entry.term, entry.kind) + entry.data
    return struct.pack(">I", zlib.crc32(struct.pack(">Q", entry.index) + tail)) + tail


def stored_vote(term: int, candidate: str) -> bytes:
    """A pattern of the hard state's record: key, checksum, then term and vote."""
    begin = b"\x93" + msgspec.msgpack.encode(term) + msgspec.msgpack.encode(candidate)
    return b"hard_state.{4}" + re.escape(begin)


def _store_descriptors(calls: Sequence[Call]) -> tuple[int, int, int]:
    """:returns: the descriptors for pages, for the meta page, and for the journal."""
    opened = [c for c in calls if c.name == "openat" and c.result >= 0]
    store = [c for c in opened if c.data.endswith(b"/data.mdb")]
    meta = [c.result for c in store if "O_DSYNC" in c.args]
    pages = [c.result for c in store if "O_DSYNC" not in c.args]
    journal = [c.result for c in opened if _opens_journal(c)]
    if (len(pages), len(meta), len(journal)) != (1, 1, 1):
        raise ValueError(
            f"the trace shows {len(pages)} stores, {len(meta)} with O_DSYNC, and "
            f"{len(journal)} journals"
        )
    return pages[0], meta[0], journal[0]


def _opens_journal(call: Call) -> bool:
    return call.name == "openat" and call.data.endswith(b"/journal") and call.result >= 0


def records(calls: Sequence[Call], journal_fd: int) -> list[Record]:
    """Every record of the journal that was synced."""
    found: list[Record] = []
    under_way: list[Call] = []
    # Its number was another file's before: that of the zeros that it is made of, for one.
    opened = next(c.ended for c in calls if _opens_journal(c))
    for call in calls:
        if call.begun < opened:
            continue
        if call.fd == journal_fd and call.name in WRITES and call.result > 0:
            under_way.append(call)
        elif call.fd == journal_fd and call.name in SYNCS:
            if under_way and call.result == 0 and call.begun > under_way[-1].ended:
                whole = data_of(b"".join(each.data[: each.result] for each in under_way))
                entries = {entry for some, _ in written(whole) for entry in some}
                hard = [state for _, state in written(whole) if state is not None]
                votes = {(state.term, state.vote) for state in hard}
                found.append(Record(frozenset(entries), frozenset(votes), call.ended))
            under_way = []
    return found


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
