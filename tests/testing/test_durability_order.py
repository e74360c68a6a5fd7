"""The judge of disk and word accepts the right order in a trace and refuses every wrong one."""

from __future__ import annotations

from pathlib import Path

import attrs
import msgspec
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.controlplane.journal import Journal
from pbcluster.controlplane.raft_writes import Write
from pbcluster.controlplane.unsettled import Unsettled
from pbcluster.raft import AnyMessage, Entry, EntryKind, HardState
from pbcluster.raft.frames import Frame, encode
from pbcluster.raft.messages import Append, AppendReply, VoteReply
from pbcluster.testing.durability_order import Order, judge, stored_entry
from pbcluster.testing.strace import Call, parse

PAGES, META, JOURNAL, IN, OUT = 15, 16, 17, 54, 26
ENTRY = Entry(8, 2, EntryKind.COMMAND, b"create a tenant")
APPEND = Append("member_1", "member_2", 3, 7, 2, 7, (ENTRY,))
ACK = AppendReply("member_2", "member_1", 3, 8)
VOTE = VoteReply("member_2", "member_3", 4, True)


def text(data: bytes) -> str:
    return '"' + "".join(f"\\x{byte:02x}" for byte in data) + '"'


def zmtp(message: AnyMessage) -> bytes:
    frame = encode(Frame("cluster_1", 1, message))
    head = bytes([0, len(frame)]) if len(frame) < 256 else b"\x02" + len(frame).to_bytes(8, "big")
    return head + frame


def heard(message: AnyMessage) -> str:
    data = zmtp(message)
    return f"7 recvfrom({IN}, {text(data)}, 8192, 0, NULL, NULL) = {len(data)}"


def said(message: AnyMessage) -> str:
    data = zmtp(message)
    return f"7 sendto({OUT}, {text(data)}, {len(data)}, 0, NULL, 0) = {len(data)}"


def pages(*data: bytes) -> str:
    whole = b"page" + b"".join(data)
    return f"9 pwrite64({PAGES}, {text(whole)}, {len(whole)}, 4096) = {len(whole)}"


def vote_record(term: int, vote: str) -> bytes:
    return b"hard_state" + b"\x01\x02\n\x04" + msgspec.msgpack.encode(HardState(term, vote, 7))


FILE = text(b"/data/store/data.mdb")
OPENED = [
    f"5 write({JOURNAL}, {text(bytes(4096))}, 4096) = 4096",
    f"5 fsync({JOURNAL}) = 0",
    f"5 openat(AT_FDCWD, {FILE}, O_RDONLY) = -1 ENOENT (No such file or directory)",
    f"5 openat(AT_FDCWD, {FILE}, O_RDWR|O_CREAT, 0600) = {PAGES}",
    f"5 openat(AT_FDCWD, {FILE}, O_WRONLY|O_DSYNC|O_CLOEXEC) = {META}",
    f"5 openat(AT_FDCWD, {text(b'/data/store/journal')}, O_RDWR|O_CLOEXEC) = {JOURNAL}",
]
SYNC = f"9 fdatasync({PAGES}) = 0"
META_PAGE = f"9 pwrite64({META}, {text(b'meta')}, 4, 4128) = 4"
STORED = pages(stored_entry(ENTRY))
JOURNAL_SYNC = f"9 fdatasync({JOURNAL}) = 0"


def judged(*lines: str) -> Order:
    return judge(parse([*OPENED, *lines]))


class OrderTests(SynchronousTestCase):
    def good(self, *lines: str) -> Order:
        order = judged(*lines)
        self.assertEqual(order.violations, ())
        return order

    def bad(self, *lines: str) -> None:
        order = judged(*lines)
        self.assertEqual(len(order.violations), 1, order)

    def test_the_right_order(self) -> None:
        """Heard, written, synced, pointed at, said."""
        order = self.good(heard(APPEND), STORED, SYNC, META_PAGE, said(ACK))
        self.assertEqual((order.entries, order.votes, order.commits), (1, 0, 1))
        vote = pages(vote_record(4, "member_3"))
        order = self.good(vote, SYNC, META_PAGE, said(VOTE))
        self.assertEqual((order.entries, order.votes), (0, 1))

    def journaled(self, *writes: Write) -> str:
        """The write of a record, as a journal makes it."""
        path = Path(self.mktemp())
        journal = Journal(path, 16 * 1024, "us")
        self.addCleanup(journal.close)
        self.assertTrue(journal.append(Unsettled.record(writes)))
        data = path.read_bytes()[: journal._at]
        return f"9 pwrite64({JOURNAL}, {text(data)}, {len(data)}, 0) = {len(data)}"

    def test_by_the_journal(self) -> None:
        """An entry or a vote in a record that was synced may be told; one in none, in a record that
        is not synced yet, or whose sync failed or is another file's, may not."""
        other = Entry(7, 2, EntryKind.COMMAND, b"y" * 900)
        record = self.journaled(Write(entries=(other, ENTRY), hard_state=HardState(4, "member_3")))
        order = self.good(heard(APPEND), record, JOURNAL_SYNC, said(ACK), said(VOTE))
        self.assertEqual((order.entries, order.votes, order.commits), (1, 1, 1))
        self.bad(heard(APPEND), record, said(ACK), JOURNAL_SYNC)
        self.bad(heard(APPEND), JOURNAL_SYNC, record, said(ACK))
        self.bad(heard(APPEND), record, SYNC, said(ACK))
        failed = f"9 fdatasync({JOURNAL}) = -1 EIO (Input/output error)"
        self.bad(heard(APPEND), record, failed, said(ACK))
        begun, ended = f"9 fdatasync({JOURNAL} <unfinished ...>", "9 <... fdatasync resumed>) = 0"
        self.bad(heard(APPEND), record, begun, said(ACK), ended)
        self.bad(record, begun, said(VOTE), ended)
        without = self.journaled(Write(entries=(other,), hard_state=HardState(3, "member_3")))
        self.bad(heard(APPEND), without, JOURNAL_SYNC, said(ACK))
        self.bad(without, JOURNAL_SYNC, said(VOTE))

    def test_a_word_too_early(self) -> None:
        """Before the meta page returned, before the sync, before anything was written."""
        self.bad(heard(APPEND), STORED, SYNC, said(ACK), META_PAGE)
        self.bad(heard(APPEND), STORED, said(ACK), SYNC, META_PAGE)
        self.bad(heard(APPEND), said(ACK), STORED, SYNC, META_PAGE)
        self.bad(heard(APPEND), said(ACK))
        self.bad(said(VOTE), pages(vote_record(4, "member_3")), SYNC, META_PAGE)

    def test_a_word_while_the_disk_is_busy(self) -> None:
        """A call that did not return yet has made nothing durable."""
        begun = f"9 pwrite64({META}, {text(b'meta')}, 4, 4128 <unfinished ...>"
        ended = "9 <... pwrite64 resumed>) = 4"
        self.bad(heard(APPEND), STORED, SYNC, begun, said(ACK), ended)
        self.good(heard(APPEND), STORED, SYNC, begun, ended, said(ACK))
        begun, ended = f"9 fdatasync({PAGES} <unfinished ...>", "9 <... fdatasync resumed>) = 0"
        self.bad(heard(APPEND), STORED, begun, META_PAGE, ended, said(ACK))

    def test_no_sync_or_a_failed_one(self) -> None:
        """Pages without a sync after them are not durable, whatever points at them."""
        self.bad(heard(APPEND), STORED, META_PAGE, said(ACK))
        self.bad(heard(APPEND), SYNC, STORED, META_PAGE, said(ACK))
        failed = f"9 fdatasync({PAGES}) = -1 EIO (Input/output error)"
        self.bad(heard(APPEND), STORED, failed, META_PAGE, said(ACK))
        other = "9 fdatasync(99) = 0"
        self.bad(heard(APPEND), STORED, other, META_PAGE, said(ACK))

    def test_the_sync_of_others(self) -> None:
        """A transaction without the entry proves nothing for it; nor does another version of it,
        or another's vote."""
        self.bad(heard(APPEND), pages(b"else"), SYNC, META_PAGE, said(ACK))
        old = pages(stored_entry(Entry(8, 1, EntryKind.COMMAND, b"create a tenant")))
        self.bad(heard(APPEND), old, SYNC, META_PAGE, said(ACK))
        for record in (vote_record(3, "member_3"), vote_record(4, "member_1")):
            self.bad(pages(record), SYNC, META_PAGE, said(VOTE))

    def test_what_promises_nothing(self) -> None:
        """Rejections, refused votes and pre-votes need no disk."""
        rejected = changed(ACK, rejected=True)
        refused = VoteReply("member_2", "member_3", 4, False)
        pre = VoteReply("member_2", "member_3", 4, True, pre=True)
        order = self.good(heard(APPEND), said(rejected), said(refused), said(pre))
        self.assertEqual((order.entries, order.votes), (0, 0))

    def test_words_in_pieces(self) -> None:
        """Several messages in one call, one message over several calls, long ones too."""
        big = changed(APPEND, entries=(entry_8(b"x" * 3000),))
        stream = zmtp(big) + zmtp(APPEND)
        cuts = [stream[:5], stream[5:1000], stream[1000:]]
        parts = [f"7 recvfrom({IN}, {text(cut)}, 8192, 0, NULL, NULL) = {len(cut)}" for cut in cuts]
        self.good(*parts, STORED, SYNC, META_PAGE, said(ACK))
        self.bad(*parts, SYNC, META_PAGE, said(ACK))

    def test_a_trace_without_a_store(self) -> None:
        """Is no proof but an error."""
        with self.assertRaisesRegex(ValueError, "0 stores"):
            judge([])


def changed(message: AnyMessage, **changes: object) -> AnyMessage:
    return msgspec.structs.replace(message, **changes)


def entry_8(data: bytes) -> Entry:
    return Entry(8, 2, EntryKind.COMMAND, data)


class ParserTests(SynchronousTestCase):
    def test_calls(self) -> None:
        """Whole calls, calls in two parts, vectors, errors; what did not return is left out."""
        lines = [
            "1 write(3, " + text(b"ab") + ", 2) = 2",
            "1 writev(4, [{iov_base="
            + text(b"c")
            + ", iov_len=1}, {iov_base="
            + text(b"d")
            + "}], 2"
            " <unfinished ...>",
            "2 fdatasync(5) = -1 EIO (Input/output error)",
            "1 <... writev resumed>) = 2",
            "2 recvfrom(6,  <unfinished ...>",
            "2 <... recvfrom resumed>" + text(b"ef") + ", 8192, 0, NULL, NULL) = 2",
            "3 fdatasync(5 <unfinished ...>",
            "3 +++ killed by SIGKILL +++",
            "4 fdatasync(5) = ?",
        ]
        found = parse(lines)
        self.assertEqual(
            [(c.name, c.fd, c.data, c.result, c.begun, c.ended) for c in found],
            [
                ("write", 3, b"ab", 2, 0, 0),
                ("writev", 4, b"cd", 2, 1, 3),
                ("fdatasync", 5, b"", -1, 2, 2),
                ("recvfrom", 6, b"ef", 2, 4, 5),
            ],
        )
        self.assertIsInstance(attrs.evolve(found[0], begun=7), Call)
