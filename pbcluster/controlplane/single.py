"""Consensus of one: a control plane with a single member.

The same order as with several: a proposal gets its index, its entry is written and synced, then it
is applied and answered; proposals that arrive while the disk is busy share the next sync. Nothing
is applied before it is durable, so that no answer and no broadcast tells of what a crash could
undo.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger

from pbcluster.controlplane import commands
from pbcluster.controlplane.commands import AnyCommand, Keyed
from pbcluster.controlplane.registry import Applied, Outcome, Registry
from pbcluster.controlplane.store import Batch, Entry, LogStore, StoredSnapshot
from pbcluster.errors import Busy, NotLeader, StorageCorrupt, Unavailable

#: Proposals that are not yet durable. At 4,000 transactions a second this is a quarter second.
MAX_PENDING = 4096
#: Entries after which a snapshot replaces the log: replay at the start stays below a second.
SNAPSHOT_EVERY = 10_000
#: A single member's log knows one term.
TERM = 1

log = Logger()


class SingleMember:
    """``Consensus`` without anybody to agree with."""

    def __init__(
        self,
        reactor: IReactorFromThreads,
        store: LogStore,
        base_domain: str,
        endpoint: Callable[[], str],
        failed: Callable[[str], None],
        *,
        snapshot_every: int = SNAPSHOT_EVERY,
    ) -> None:
        """
        :param endpoint: gives this member's request endpoint.
        :param failed: called with the reason when the store can no longer be written: the process
            must end, since nobody knows what is on the disk.
        """
        self._reactor = reactor
        self._store = store
        self._registry = Registry(base_domain)
        self._endpoint = endpoint
        self._failed = failed
        self._snapshot_every = snapshot_every
        self._pending: dict[int, tuple[Keyed, Deferred[Outcome]]] = {}
        self._next_index = 1
        self._since_snapshot = 0
        self._callbacks: list[Callable[[Applied], None]] = []
        self._open = False

    @property
    def registry(self) -> Registry:
        """Applied state."""
        return self._registry

    @property
    def is_leader(self) -> bool:
        """Always, once it has started."""
        return self._open

    @property
    def leader_endpoint(self) -> str:
        """This member's own."""
        return self._endpoint() if self._open else ""

    async def start(self) -> None:
        """Recover and begin. :raises StorageCorrupt: names what fails its check."""
        found = self._store.recover()
        base_domain = self._registry.base_domain
        try:
            if found.snapshot is not None:
                self._registry = Registry.from_bytes(base_domain, found.snapshot.data)
            for entry in found.entries:
                self._registry.apply(entry.index, commands.decode(entry.data))
        except msgspec.DecodeError as error:
            raise StorageCorrupt(f"a stored command or snapshot cannot be read: {error}") from None
        self._next_index = self._registry.applied_index + 1
        self._since_snapshot = len(found.entries)
        self._store.start()
        self._open = True
        log.info("recovered the registry up to index {index}", index=self._next_index - 1)

    async def stop(self) -> None:
        """Finish what is being written and close."""
        self._open = False
        self._store.close()

    def subscribe(self, callback: Callable[[Applied], None]) -> None:
        """Call ``callback`` after each applied command."""
        self._callbacks.append(callback)

    async def leader_known(self, timeout_s: float) -> None:
        """It is this one, or nobody."""

    def subscribe_leadership(self, callback: Callable[[bool], None]) -> None:
        """Nothing to tell: it leads from its start to its end."""

    async def propose(self, command: AnyCommand, key: str = "") -> Outcome:
        """Commit and apply ``command``; see :class:`Consensus`."""
        if not self._open:
            raise NotLeader("this member is not serving", leader="")
        if len(self._pending) >= MAX_PENDING:
            raise Busy(f"{MAX_PENDING} proposals wait already", retry_after_s=0.1)
        if self._store.nearly_full():
            raise Busy("the store is nearly full: changes are refused, reads go on")
        keyed = Keyed(key, command)
        # First of all: what has no encoding must not take an index, or the log would have a hole.
        data = commands.encode(keyed)
        index = self._next_index
        self._next_index += 1
        answer: Deferred[Outcome] = Deferred()
        self._pending[index] = (keyed, answer)
        entry = Entry(index, TERM, data)

        def written(error: BaseException | None) -> None:
            self._reactor.callFromThread(self._durable, index, error)

        self._store.submit(Batch((entry,)), written)
        outcome = await answer
        if outcome.error is not None:
            raise outcome.error.exception()
        return outcome

    async def read_barrier(self) -> None:
        """A single member's applied state is what was committed, but for what is being written."""
        if not self._open:
            raise NotLeader("this member is not serving", leader="")

    def _durable(self, index: int, error: BaseException | None) -> None:
        if error is not None:
            self._open = False
            waiting, self._pending = self._pending, {}
            for _, answer in waiting.values():
                answer.errback(Unavailable("the log cannot be written"))
            if waiting:
                self._failed(f"the log cannot be written: {error}")
            return
        keyed, answer = self._pending.pop(index)
        applied = self._registry.apply(index, keyed)
        self._since_snapshot += 1
        for callback in self._callbacks:
            try:
                callback(applied)
            except Exception:
                # The command is committed: whoever proposed it must hear so.
                log.failure("a subscriber failed at index {index}", index=index)
        if self._open and self._since_snapshot >= self._snapshot_every:
            self._snapshot()
        answer.callback(applied.outcome)

    def _snapshot(self) -> None:
        self._since_snapshot = 0
        snapshot = StoredSnapshot(self._registry.applied_index, TERM, self._registry.to_bytes())

        def written(error: BaseException | None) -> None:
            if error is not None:
                self._reactor.callFromThread(self._failed, f"no snapshot can be written: {error}")

        self._store.submit(Batch(snapshot=snapshot), written)
