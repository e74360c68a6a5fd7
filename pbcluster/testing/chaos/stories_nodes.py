"""Stories of nodes that die or stand still."""

from __future__ import annotations

from pbcluster.testing.chaos.figures import Limit
from pbcluster.testing.chaos.judge import Permits
from pbcluster.testing.chaos.scene import Scene
from pbcluster.testing.chaos.story import story

#: What was in the hands of a node that died: nobody knows whether it was done.
IN_ITS_HANDS = Permits(writes=frozenset((0, 502, 503, 504)), most_writes=8)
GAP = (Limit("write_gap_s", p50=3.0, max=8.0), Limit("read_gap_s", max=8.0))
#: Of a node that stands still nobody notices an end of connections.
FROZEN_GAP = (Limit("write_gap_s", max=8.0), Limit("read_gap_s", max=8.0))


@story(
    "node-kill",
    figure="first good answer p50 ≤ 3 s, max ≤ 8 s; 0 lost",
    limits=GAP,
    permits=IN_ITS_HANDS,
)
def node_kill(scene: Scene) -> None:
    """kill -9 of the node of a tenant under writes, by turns with all below it and pbnode alone."""
    victim = scene.owner()
    scene.kill(victim, with_children=scene.dice.random() < 0.5)
    scene.recovered()
    scene.start(victim)


@story(
    "node-frozen",
    figure="one answering owner, 0 lost, 0 stale",
    limits=FROZEN_GAP,
    permits=IN_ITS_HANDS,
)
def node_frozen(scene: Scene) -> None:
    """SIGSTOP of a node past its replacement, then SIGCONT while clients and probes go on."""
    victim = scene.owner()
    scene.freeze(victim)
    scene.wait_owner_is_not(victim)
    scene.recovered()
    scene.thaw(victim)
    scene.recovered()
