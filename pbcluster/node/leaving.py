"""A node that is stopped lets its tenants go first, so that nobody notices.

After SIGTERM, before anything else ends: the control plane is told that this node leaves, again and
again, since a new leader knows nothing of it. It moves the running tenants away as a drain does,
while this node serves them. What holds:

* It takes no longer than its limit; what is left then is stopped as at any end, and is away until
  it is rescued or this node is back.
* It ends at once where it is of no use: nothing runs here, or no other node can take a tenant (the
  only node; or the whole cluster is being stopped); and soon where nothing moves on.

Idle tenants are not waited for: nothing of them runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pbcluster.node.lifecycle import State
from pbcluster.node.parts import pause
from pbcluster.node.tenants import Tenants

#: The control plane is told again after so long.
TELL_EVERY_S = 0.5
LOOK_EVERY_S = 0.05
#: Nobody left within this time: somebody or something is in the way. Longer than the rest that a
#: tenant has after a move.
STALLED_S = 7.0

log = Logger()


def running(tenants: Tenants) -> int:
    """Tenants that run here, or whose hand-over is not known to have ended."""
    over = (State.ABSENT, State.FAILED)
    return sum(each.state not in over or bool(each.assignment.handing_over) for each in tenants)


async def leave(
    clock: IReactorTime,
    announce: Callable[[], Awaitable[bool]],
    left: Callable[[], int],
    limit_s: float,
) -> int:
    """Return when this node may stop.

    :param announce: tells the control plane that this node leaves; whether there is another node
        for its tenants.
    :param left: how many tenants run here.
    :param limit_s: 0: leave at once.
    :returns: how many are left.
    """
    began = moved_at = clock.seconds()
    told_at: float | None = None
    count = left()
    if count and limit_s:
        log.info("{count} tenants leave before this node stops", count=count)
    while (now := clock.seconds()) - began < limit_s and count:
        if told_at is None or now - told_at >= TELL_EVERY_S:
            told_at = now
            if not await announce():
                log.info("there is no other node for {count} tenants", count=count)
                break
        await pause(clock, LOOK_EVERY_S)
        now, before, count = clock.seconds(), count, left()
        if count < before:
            moved_at = now
        if now - moved_at >= STALLED_S:
            log.warn("{count} tenants do not leave", count=count)
            break
    return count
