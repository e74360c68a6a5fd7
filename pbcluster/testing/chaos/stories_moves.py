"""Stories of tenants that move on purpose, under load: no request fails."""

from __future__ import annotations

from pbcluster.testing.chaos.figures import Limit
from pbcluster.testing.chaos.scene import Scene
from pbcluster.testing.chaos.story import story

PAUSE = (Limit("longest_write_s", p99=1.5), Limit("longest_read_s", p99=1.5))
#: Each tenant of a drained node moves in about a second, some at a time.
DRAINED_WITHIN_S = 240.0


@story("migration", figure="0 failed requests; longest pause p99 ≤ 1.5 s", limits=PAUSE)
def migration(scene: Scene) -> None:
    """A tenant moves to another node under readers and writers."""
    phase = scene.migrate()
    if phase != "done":
        raise AssertionError(f"the move ended as {phase}")
    scene.recovered()


@story(
    "drain",
    figure="0 failed requests; longest pause p99 ≤ 1.5 s (50 tenants in the long form)",
    limits=PAUSE,
    tenants=4,
    long_tenants=50,
    writers=1,
    readers=1,
    pause_s=1.0,
    passing_every_s=0.0,
    enough=2,
)
def drain(scene: Scene) -> None:
    """All tenants are on one node, in use, and it is drained."""
    source = scene.owner()
    for other in scene.others():
        scene.drain(other, DRAINED_WITHIN_S)
    scene.undrain()
    scene.recovered()
    scene.fault_s = 0.0
    scene.figures["tenants"] = float(len(scene.tenants))
    scene.drain(source, DRAINED_WITHIN_S)
    scene.recovered()
