"""A leader that is about to stop lets the member that is furthest lead, so that nobody waits for an
election.

It is a courtesy: if it does not come about in time, the others elect.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from pbcluster.controlplane.raft_driver import RaftDriver
from pbcluster.raft import MemberId, Status

LOOK_S = 0.01


def successor_of(status: Status) -> MemberId | None:
    """Who has most of the log of all that may lead; None: nobody else may."""
    others = [
        (match, member)
        for member, (match, state) in status.progress.items()
        if state == "replicate" and member in status.conf.voters and member != status.member
    ]
    return max(others)[1] if others else None


async def hand_over(
    driver: RaftDriver, leads: Callable[[], bool], clock: IReactorTime, within_s: float
) -> None:
    """Let another member lead, if this one does; returns when it leads no more, or after
    ``within_s``.

    :param leads: whether this member leads.
    """
    status = driver.status()
    if status is None or not leads():
        return
    successor = successor_of(status)
    if successor is None:
        return
    driver.transfer_leadership(successor)
    until = clock.seconds() + within_s
    while leads() and clock.seconds() < until:
        await deferLater(clock, LOOK_S)
