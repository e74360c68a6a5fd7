"""What the registry must hold and clients must be told: a replay of everything committed.

Independent of what members say: each committed entry is applied once, in order, to a registry of
the checker's own; and beside the registry's memory of repeated commands there is one that forgets
nothing.
"""

from __future__ import annotations

from pbcluster.controlplane import commands
from pbcluster.controlplane.outcomes import Outcome
from pbcluster.controlplane.registry import Applied, Registry
from pbcluster.raft import ConfState, Entry, EntryKind, MemberId
from pbcluster.raft.confchange import after
from pbcluster.testing.raft_sim.operations import genesis
from pbcluster.testing.raft_sim.properties import Broken


class Reference:
    """The one true state at each index."""

    def __init__(self) -> None:
        self._registry = genesis()
        #: The membership, which begins with the first members.
        self.conf = ConfState()
        #: By index: the state's bytes, and the effects of the command there.
        self.images: dict[int, bytes] = {1: self._registry.to_bytes()}
        self.effects: dict[int, Applied] = {}
        #: Idempotency key → what its first and only execution came to.
        self.outcomes: dict[str, Outcome] = {}

    def apply(self, entry: Entry) -> None:
        """The next entry was committed.

        :raises Broken: a command was executed twice.
        """
        index = entry.index
        if entry.kind is EntryKind.COMMAND:
            keyed = commands.decode(entry.data)
            effects = self.effects[index] = self._registry.apply(index, keyed)
            if keyed.key and not effects.repeated:
                if keyed.key in self.outcomes:
                    raise Broken("exactly_once", f"{keyed.key} was executed twice")
                self.outcomes[keyed.key] = effects.outcome
        else:
            self._other(entry)
        self.images[index] = self._registry.to_bytes()

    def _other(self, entry: Entry) -> None:
        before = self.conf
        conf = after(before, entry.data) if entry.kind is EntryKind.CONFIG else before
        if conf == before:
            self._registry.skip(entry.index)
            return
        self.conf = conf
        left = set(before.members()) - set(conf.members())
        self.effects[entry.index] = self._registry.members_changed(entry.index, left)

    def has_left(self, member: MemberId) -> bool:
        """Whether a committed change took ``member`` out of the group."""
        return self._registry.roster.is_former(member)

    def differs(self, registry: Registry) -> bool:
        """Whether a member's registry is not what it should be at its index."""
        return registry.to_bytes() != self.images.get(registry.applied_index)
