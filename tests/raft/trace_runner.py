"""Plays a trace: commands on a small group of cores, and what came of each.

A trace file is a list of blocks: comment lines (``#``: why), one command, ``----``, the expected
events. ``python -m tests.raft.trace_runner --rewrite`` writes what comes out now into the files, to
be read before it is believed.

Nothing happens by itself: ``ready`` takes a core's effects, ``persist`` makes its oldest write
durable, ``deliver`` steps messages; ``run`` does all of it until nothing is left.
"""

from __future__ import annotations

import sys
from collections import deque
from pathlib import Path

from attrs import evolve

from pbcluster.errors import PBClusterError
from pbcluster.raft import (
    ConfigAction,
    ConfigChange,
    ConfigStep,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    RaftCore,
    RaftOptions,
    Ready,
    SnapshotMeta,
    StoredState,
    decode_change,
)
from pbcluster.raft import messages as m

TRACES = Path(__file__).with_name("traces")
SNAPSHOT_BYTES = 10


class FixedRandom:
    """Every draw gives the same distance from the start: timeouts are known."""

    def __init__(self, offset: int) -> None:
        self.offset = offset

    def randrange(self, start: int, stop: int, /) -> int:
        return min(start + self.offset, stop - 1)


class Seat:
    """One core, its disk and what is under way to it."""

    def __init__(self, options: RaftOptions, stored: StoredState, offset: int) -> None:
        self.options = options
        self.offset = offset
        self.stored = stored
        self.conf_applied = stored.conf
        self.pending: deque[Ready] = deque()
        self.core = self._start()

    def _start(self) -> RaftCore:
        return RaftCore(self.options, self.stored, FixedRandom(self.offset))

    def restart(self) -> None:
        self.pending.clear()
        self.options = evolve(self.options, incarnation=self.options.incarnation + 1)
        self.core = self._start()

    def write(self, ready: Ready) -> None:
        """Make a Ready durable."""
        old = self.stored
        entries = list(old.entries)
        snapshot, applied, conf = old.snapshot, old.applied, old.conf
        if ready.snapshot:
            snapshot, entries = ready.snapshot, []
            applied, conf = snapshot.index, snapshot.conf
        if ready.entries:
            entries = [e for e in entries if e.index < ready.entries[0].index]
            entries.extend(ready.entries)
        if ready.committed:
            applied, conf = ready.committed[-1].index, ready.conf
        hard = ready.hard_state or old.hard
        self.stored = StoredState(conf, hard, snapshot, tuple(entries), applied)


def show_entry(entry: Entry) -> str:
    position = f"{entry.index}/{entry.term}"
    if entry.kind is EntryKind.NOOP:
        return f"{position} noop"
    if entry.kind is EntryKind.CONFIG:
        return f"{position} config {show_change(decode_change(entry.data))}"
    return f"{position} {entry.data.decode()}"


def show_change(change: ConfigChange) -> str:
    signs = {ConfigAction.ADD_LEARNER: "+", ConfigAction.PROMOTE: "^", ConfigAction.REMOVE: "-"}
    return " ".join(signs[s.action] + s.member for s in change.steps) or "leave"


def show_conf(conf: ConfState) -> str:
    text = "voters " + ",".join(conf.voters)
    for name in ("outgoing", "learners", "learners_next"):
        if getattr(conf, name):
            text += f" {name} " + ",".join(getattr(conf, name))
    return text


def show_message(message: m.AnyMessage) -> str:
    head = f"{message.sender}->{message.to} {type(message).__name__} t{message.term}"
    match message:
        case m.Append():
            body = f" after {message.prev_index}/{message.prev_term} commit {message.commit}"
            return head + body + "".join(f" [{show_entry(e)}]" for e in message.entries)
        case m.AppendReply(rejected=True):
            return f"{head} rejected {message.index} hint {message.hint_index}/{message.hint_term}"
        case m.AppendReply():
            return f"{head} durable {message.index}"
        case m.VoteRequest():
            flags = " pre" * message.pre + " transfer" * message.transfer
            return f"{head}{flags} last {message.last_index}/{message.last_term}"
        case m.VoteReply():
            return f"{head}{' pre' * message.pre} {'granted' if message.granted else 'refused'}"
        case m.Heartbeat():
            return f"{head} commit {message.commit} round {message.round}"
        case m.HeartbeatReply():
            return f"{head} round {message.round}"
        case m.SnapshotChunk():
            end = message.offset + len(message.data)
            return f"{head} {message.meta.index}/{message.meta.term} bytes {message.offset}..{end}"
        case m.SnapshotReply():
            return f"{head} {message.index} next {message.next_offset}"
        case m.ReadRequest():
            return f"{head} {show_context(message.context)}"
        case m.ReadReply():
            end = "refused" if message.refused else f"index {message.index}"
            return f"{head} {show_context(message.context)} {end}"
    return head


def show_context(context: int) -> str:
    return f"read {context >> 32}.{context & 0xFFFFFFFF}"


class Stage:
    """The group of one trace. Each public method is a command; it gives its events."""

    def __init__(self) -> None:
        self.seats: dict[str, Seat] = {}
        self.net: list[m.AnyMessage] = []
        self.quiet = False

    # -- setting up -------------------------------------------------------------------------------

    def members(self, *words: str) -> list[str]:
        """members a b c [learner d] [logs 1,1,2 (terms, for all)] [option=value ...]"""
        ids = [w for w in words if "=" not in w]
        values = dict(w.split("=") for w in words if "=" in w)
        learners = tuple(i[1:] for i in ids if i.startswith("+"))
        conf = ConfState(tuple(i for i in ids if not i.startswith("+")), (), learners)
        options = {key: int(value) for key, value in values.items()}
        for offset, member in enumerate(conf.members()):
            given = RaftOptions(member=member, **options)
            self.seats[member] = Seat(given, StoredState(conf), offset)
        return [show_conf(conf)]

    def stored(self, member: str, terms: str, term: str, commit: str = "0") -> list[str]:
        """stored a 1,1,2 3 [commit]: restart with a log of these terms and hard term 3."""
        seat = self.seats[member]
        entries = tuple(
            Entry(i, int(t), EntryKind.COMMAND, f"{i}@{t}".encode())
            for i, t in enumerate(terms.split(","), 1)
            if t
        )
        hard = HardState(int(term), "", int(commit))
        seat.stored = StoredState(seat.stored.conf, hard, SnapshotMeta(), entries, 0)
        seat.restart()
        return []

    # -- inputs -----------------------------------------------------------------------------------

    def tick(self, member: str, count: str = "1") -> list[str]:
        for _ in range(int(count)):
            self.seats[member].core.tick()
        return self._state(member)

    def gap(self, member: str, count: str) -> list[str]:
        self.seats[member].core.tick_gap(int(count))
        return self._state(member)

    def campaign(self, member: str) -> list[str]:
        self.seats[member].core.campaign()
        return self._state(member)

    def propose(self, member: str, *texts: str) -> list[str]:
        done = [self.seats[member].core.propose(text.encode()) for text in texts]
        return [f"proposed {one.index}/{one.term}" for one in done]

    def config(self, member: str, *steps: str) -> list[str]:
        signs = {"+": ConfigAction.ADD_LEARNER, "^": ConfigAction.PROMOTE}
        change = ConfigChange(
            tuple(ConfigStep(signs.get(s[0], ConfigAction.REMOVE), s[1:]) for s in steps)
        )
        one = self.seats[member].core.propose_config(change)
        return [f"proposed {one.index}/{one.term}"]

    def read(self, member: str) -> list[str]:
        return [show_context(self.seats[member].core.read_index())]

    def transfer(self, member: str, target: str) -> list[str]:
        self.seats[member].core.transfer_leadership(target)
        return []

    def tell(self, member: str) -> list[str]:
        core = self.seats[member].core
        index = core.untold_commit()
        core.tell_commit(index)
        return [f"{index} is due"]

    def compact(self, member: str, index: str, keep: str = "0") -> list[str]:
        core = self.seats[member].core
        term = core._raft.log.term(int(index)) or 0
        meta = SnapshotMeta(int(index), term, core.conf, SNAPSHOT_BYTES, 7)
        core.compact(meta, int(index) - int(keep))
        return [f"log begins after {core._raft.log.compacted_index}"]

    def unreachable(self, member: str, other: str) -> list[str]:
        self.seats[member].core.report_unreachable(other)
        return []

    def lost(self, member: str, other: str) -> list[str]:
        self.seats[member].core.connection_lost(other)
        return []

    def crash(self, member: str) -> list[str]:
        """Everything not persisted is lost; what is under way to it may still arrive."""
        self.seats[member].restart()
        return self._state(member)

    # -- effects ----------------------------------------------------------------------------------

    def ready(self, member: str) -> list[str]:
        """Take one Ready: send its messages; the write waits for ``persist``."""
        seat = self.seats[member]
        if not seat.core.has_ready():
            return ["nothing"]
        ready = seat.core.ready()
        seat.pending.append(ready)
        events = [f"{member} is {ready.role.value} t{ready.term} leader {ready.leader or '-'}"]
        events += [f"{member} send {show_message(one)}" for one in ready.messages]
        self.net.extend(ready.messages)
        for chunk in ready.chunks_to_send:
            message = chunk.message(b"s" * chunk.length_bytes)
            self.net.append(message)
            events.append(f"{member} send {show_message(message)}")
        if ready.snapshot:
            events.append(f"{member} write snapshot {ready.snapshot.index}/{ready.snapshot.term}")
        events += [f"{member} write {show_entry(entry)}" for entry in ready.entries]
        if ready.hard_state:
            hard = ready.hard_state
            events.append(f"{member} write t{hard.term} vote {hard.vote or '-'} c{hard.commit}")
        events += [f"{member} apply {show_entry(entry)}" for entry in ready.committed]
        if any(entry.kind is EntryKind.CONFIG for entry in ready.committed):
            events.append(f"{member} membership {show_conf(ready.conf)}")
        events += [f"{member} {show_context(r.context)} at {r.index}" for r in ready.reads]
        events += [f"{member} {show_context(c)} cancelled" for c in ready.cancelled_reads]
        if ready.committed:
            seat.core.applied(ready.committed[-1].index)
        for part in ready.chunks_received:
            end = part.offset + len(part.data)
            events.append(f"{member} stage {part.meta.index} bytes {part.offset}..{end}")
            if part.last:
                seat.core.install_snapshot(part.meta)
        return events

    def persist(self, member: str, count: str = "1") -> list[str]:
        """persist a [n]: the oldest writes are durable: what waited for them goes out."""
        seat = self.seats[member]
        events: list[str] = [] if seat.pending else ["nothing"]
        for _ in range(min(int(count), len(seat.pending))):
            events += self._persist_one(member)
        return events

    def _persist_one(self, member: str) -> list[str]:
        seat = self.seats[member]
        ready = seat.pending.popleft()
        seat.write(ready)
        self.net.extend(ready.after)
        seat.core.persisted(ready.token)
        return [f"{member} send {show_message(one)}" for one in ready.after]

    def deliver(self, link: str, count: str = "100") -> list[str]:
        """deliver a->b [n]: the oldest messages on that link."""
        events = []
        for message in self._take(link, int(count)):
            events.append(f"{message.to} gets {show_message(message)}")
            self.seats[message.to].core.step(message)
        return events

    def double(self, link: str) -> list[str]:
        """double a->b: everything on that link is there twice, the copies at the end."""
        sender, to = link.split("->")
        copies = [one for one in self.net if one.sender == sender and one.to == to]
        self.net += copies
        return [f"again {show_message(one)}" for one in copies]

    def drop(self, link: str, count: str = "100") -> list[str]:
        """drop a->b [n]: lose them; * for anyone."""
        return [f"lost {show_message(one)}" for one in self._take(link, int(count))]

    def run(self, *without: str) -> list[str]:
        """Until nothing is left to do. ``run a b``: links to and from others are cut."""
        group = without or tuple(self.seats)
        events: list[str] = []
        for _ in range(1000):
            before = len(events)
            for member in group:
                while self.seats[member].core.has_ready():
                    events += self.ready(member)
                while self.seats[member].pending:
                    events += self._persist_one(member)
            for message in self.net:
                if message.to in group and message.sender in group:
                    self.seats[message.to].core.step(message)
                    events.append(f"{message.to} gets {show_message(message)}")
            self.net = []
            if len(events) == before:
                return events
        raise AssertionError("the group does not come to rest")

    def settle(self, *without: str) -> list[str]:
        """``run`` without telling."""
        self.run(*without)
        return [line for member in without or self.seats for line in self._state(member)]

    # -- looking ----------------------------------------------------------------------------------

    def status(self, member: str) -> list[str]:
        status = self.seats[member].core.status()
        lines = [
            f"{member} is {status.role.value} t{status.term} leader {status.leader or '-'} last "
            f"{status.last_index} commit {status.commit} applied {status.applied}",
            f"{member} membership {show_conf(status.conf)}",
        ]
        lines += [f"  {o} match {p[0]} {p[1]}" for o, p in status.progress.items()]
        return lines

    def log(self, member: str) -> list[str]:
        log = self.seats[member].core._raft.log
        return [" ".join(f"{e.index}/{e.term}" for e in log.read(log.compacted_index + 1, 2**62))]

    def _state(self, member: str) -> list[str]:
        status = self.seats[member].core.status()
        return [f"{member} is {status.role.value} t{status.term} leader {status.leader or '-'}"]

    def _take(self, link: str, count: int) -> list[m.AnyMessage]:
        sender, to = link.split("->")
        taken: list[m.AnyMessage] = []
        kept = []
        for message in self.net:
            fits = message.sender == sender or sender == "*"
            if fits and (message.to == to or to == "*") and len(taken) < count:
                taken.append(message)
            else:
                kept.append(message)
        self.net = kept
        return taken


class Block:
    """Comment, command and expected events."""

    def __init__(self) -> None:
        self.comment: list[str] = []
        self.command = ""
        self.expected: list[str] = []

    def text(self, events: list[str]) -> str:
        return "\n".join([*self.comment, self.command, "----", *events]) + "\n"


def parse(text: str) -> list[Block]:
    blocks = []
    for chunk in text.strip().split("\n\n"):
        block = Block()
        lines = chunk.split("\n")
        while lines and lines[0].startswith("#"):
            block.comment.append(lines.pop(0))
        if lines:
            block.command = lines.pop(0)
            if lines and lines[0] == "----":
                lines.pop(0)
            block.expected = lines
        blocks.append(block)
    return blocks


def play(blocks: list[Block]) -> list[list[str]]:
    """The events of every block."""
    stage = Stage()
    played = []
    for block in blocks:
        if not block.command:
            played.append([])
            continue
        name, *words = block.command.split()
        try:
            events = getattr(stage, name)(*words)
        except PBClusterError as error:
            events = [f"error {type(error).__name__}: {error}"]
        played.append(events)
    return played


def rewrite() -> None:
    for path in sorted(TRACES.glob("*.txt")):
        blocks = parse(path.read_text())
        texts = []
        for block, events in zip(blocks, play(blocks), strict=True):
            texts.append(block.text(events) if block.command else "\n".join(block.comment) + "\n")
        path.write_text("\n".join(texts))


if __name__ == "__main__" and sys.argv[1:] == ["--rewrite"]:
    rewrite()
