"""The commands that begin and end a rebalancing. Pure.

They are part of ``commands.AnyCommand``; the rules of that module hold here.
"""

from __future__ import annotations

from datetime import datetime

from pbcluster.controlplane.command_base import Command


class StartRebalance(Command, frozen=True):
    """Even the nodes out, so many tenants at once. Fails while another rebalancing is under way.

    ``total_moves``: how many it seemed to need when it was asked for.
    """

    at: datetime
    rebalance_id: str
    total_moves: int
    at_once: int


class EndRebalance(Command, frozen=True):
    """No more tenants begin to move for it. ``reason``: why, if the nodes are not even yet."""

    at: datetime
    rebalance_id: str
    reason: str = ""
