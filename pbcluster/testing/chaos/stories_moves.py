"""Stories of tenants that move on purpose, under load: no request fails."""

from __future__ import annotations

from pbcluster.testing.chaos.figures import Limit
from pbcluster.testing.chaos.scene import Scene
from pbcluster.testing.chaos.story import story

PAUSE = (Limit("longest_write_s", p99=1.5), Limit("longest_read_s", p99=1.5))


@story("migration", figure="0 failed requests; longest pause p99 ≤ 1.5 s", limits=PAUSE)
def migration(scene: Scene) -> None:
    """A tenant moves to another node under readers and writers."""
    phase = scene.migrate()
    if phase != "done":
        raise AssertionError(f"the move ended as {phase}")
    scene.recovered()
