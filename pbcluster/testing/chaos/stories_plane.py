"""Stories of the control plane: its leader dies, or all of it is away. No tenant's request
fails."""

from __future__ import annotations

from pbcluster.testing.chaos.figures import Limit
from pbcluster.testing.chaos.judge import Permits
from pbcluster.testing.chaos.scene import Scene
from pbcluster.testing.chaos.story import Shape, story

#: Its own clients may be refused meanwhile; how long is a figure.
ITS_OWN = Permits(plane=True)
AWAY_S, LONG_AWAY_S = 6.0, 600.0
LONG_FROZEN_S = 60.0


@story(
    "leader-kill",
    figure="longest gap of admin API and look-ups < 1 s, p50 ≤ 0.35 s; 0 failed tenant requests",
    limits=(Limit("admin_gap_s", p50=0.35, max=1.0), Limit("lookup_gap_s", p50=0.35, max=1.0)),
    permits=ITS_OWN,
    plane=True,
)
def leader_kill(scene: Scene) -> None:
    """kill -9 of the leader of the control plane under clients of it and of a tenant."""
    leader = scene.leader()
    scene.kill(leader)
    scene.recovered()
    scene.start(leader)
    scene.whole_group()


@story("plane-dead", figure="0 failed requests of known tenants (10 min in the long form)")
def plane_dead(scene: Scene) -> None:
    """All members are killed with SIGKILL, stay away, and start again with what they have."""
    members = scene.cluster.ids("member")
    for member in members:
        scene.kill(member)
    scene.away(LONG_AWAY_S if scene.long else AWAY_S)
    scene.start(*members)
    scene.recovered()


@story("plane-frozen", figure="0 failed requests of known tenants")
def plane_frozen(scene: Scene) -> None:
    """All members stand still, keep their connections open, and go on."""
    scene.freeze(*scene.cluster.ids("member"))
    scene.away(LONG_FROZEN_S if scene.long else AWAY_S)
    scene.thaw()
    scene.recovered()


@story(
    "leader-cut",
    figure="0 failed tenant requests, 0 lost",
    shape=Shape(proxied=True),
    permits=ITS_OWN,
    plane=True,
)
def leader_cut(scene: Scene) -> None:
    """The leader is cut from the other members, one way or both, and comes back."""
    leader, net = scene.leader(), scene.cluster.net
    how = scene.dice.choice(("both ways", "its own words", "the others' words"))
    scene.event(f"{leader} is cut off, {how}", fault=True)
    members = set(scene.cluster.ids("member"))
    for a, b in net.pairs():
        if {a, b} <= members and leader in (a, b):
            # Each member opens a connection to each: a link there is one direction of their talk.
            said = how == "both ways" or (a == leader) == (how == "its own words")
            if said:
                net.blackhole(a, b)
    scene.pass_s(2.0)
    scene.open_ways()
    scene.whole_group()
    scene.recovered()
