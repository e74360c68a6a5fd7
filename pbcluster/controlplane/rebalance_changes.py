"""How commands about rebalancing change the registry. Pure.

There is one rebalancing at a time; the last one stays, for who looks.
"""

from __future__ import annotations

import msgspec

from pbcluster.controlplane import commands as c
from pbcluster.controlplane.outcomes import Outcome
from pbcluster.controlplane.registry_records import Change, RegistryRecords
from pbcluster.errors import Conflict
from pbcluster.records import RebalanceRecord


class RebalanceChanges(RegistryRecords):
    """One method a command; each raises what refuses it, and has changed nothing then.

    :ivar rebalance: the last one; None: there never was one.
    """

    rebalance: RebalanceRecord | None = None

    def _start_rebalance(self, index: int, command: c.StartRebalance) -> Change:
        known = self.rebalance
        if known is not None and known.id == command.rebalance_id:
            return Change(Outcome(index))
        if known is not None and known.ended is None:
            raise Conflict(f"rebalancing {known.id} is under way", id=known.id)
        self.rebalance = RebalanceRecord(
            id=command.rebalance_id,
            started=command.at,
            total_moves=command.total_moves,
            at_once=command.at_once,
            version=index,
        )
        return Change(Outcome(index))

    def _end_rebalance(self, index: int, command: c.EndRebalance) -> Change:
        known = self.rebalance
        if known is None or known.id != command.rebalance_id or known.ended is not None:
            raise Conflict(f"rebalancing {command.rebalance_id} is not under way")
        self.rebalance = msgspec.structs.replace(
            known, ended=command.at, reason=command.reason, version=index
        )
        return Change(Outcome(index))
