"""Stories of an S3 that is away: reads go on, writes do as their tenant wants it."""

from __future__ import annotations

import time

from pbcluster.testing.chaos.figures import Limit
from pbcluster.testing.chaos.history import WRITES
from pbcluster.testing.chaos.judge import Permits
from pbcluster.testing.chaos.scene import Scene
from pbcluster.testing.chaos.story import story

#: A write waits 5 s before its tenant degrades.
AWAY_S, LONG_AWAY_S = 8.0, 60.0
BACK_WITHIN_S = 60.0
LIMITS = (Limit("all_in_s3_s", max=15.0), Limit("longest_read_s", max=2.0))
WANTED = "0 failed reads; writes as the tenant's mode says; all in S3 within 15 s of its return"


@story("s3-away", figure=WANTED, limits=LIMITS)
def s3_away(scene: Scene) -> None:
    """S3 is away, refusing or silent. The tenant degrades: its writes wait, then are local."""
    _away(scene)


@story(
    "s3-away-reject",
    figure=WANTED,
    limits=LIMITS,
    permits=Permits(writes=frozenset((503,))),
)
def s3_away_reject(scene: Scene) -> None:
    """S3 is away, refusing or silent. The tenant refuses writes without it: 503, nothing local."""
    name = scene.tenants[0]
    scene.cluster.admin.change_tenant(name, {}, onS3Outage="reject")
    try:
        _away(scene)
    finally:
        scene.cluster.admin.change_tenant(name, {}, onS3Outage="degrade")
    local = [o for o in scene.history.of(*WRITES) if o.acked and o.durability != "s3"]
    if local:
        raise AssertionError(f"{len(local)} writes were acknowledged without S3")


def _away(scene: Scene) -> None:
    frozen = scene.dice.random() < 0.5
    scene.event(f"S3 {'frozen' if frozen else 'stopped'}", fault=True)
    if frozen:
        scene.cluster.freeze_s3()
    else:
        scene.cluster.stop_s3()
    scene.away(LONG_AWAY_S if scene.long else AWAY_S)
    acked = [o for o in scene.history.of(*WRITES) if o.acked]
    scene.cluster.start_s3()
    back = scene.event("S3 is back")
    scene.wait_in_s3(acked, BACK_WITHIN_S)
    scene.figures["all_in_s3_s"] = time.monotonic() - back
    scene.event("all of it is in S3")
    scene.wait_not_degraded(BACK_WITHIN_S)
    scene.recovered()
