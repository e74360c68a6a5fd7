"""A story that dice compose: some faults, one after the other or at once, then all is well again.

The dice come from the seed, so that a seed has the same faults in the same order; when they meet
which request is the machine's affair, and a seed that failed may pass the next time. What is
promised under any of them: nothing acknowledged is lost or read stale, nobody owns a tenant beside
another, and when all is well again the tenant answers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from pbcluster.errors import PBClusterError
from pbcluster.testing.chaos.judge import Permits
from pbcluster.testing.chaos.scene import Scene
from pbcluster.testing.chaos.stories_cuts import FROM, HOW, cut
from pbcluster.testing.chaos.story import Shape, story

NAME = "random"
STEPS = (2, 5)
#: Between the beginning of a fault and what comes next.
HOLD_S = (0.2, 2.5)
#: A fault is over before the next one begins as often as this, else it goes on beside it.
ENDED_SHARE = 0.6
ANY = frozenset((0, 502, 503, 504))

Undo = Callable[[], None]


def _nothing() -> None:
    """There is nothing to undo."""


def _node(scene: Scene) -> str:
    """Mostly the owner: there is more to break."""
    nodes = scene.cluster.ids("node")
    with contextlib.suppress(PBClusterError):
        if scene.dice.random() < 0.75:
            return scene.owner()
    return scene.dice.choice(nodes)


def _kill_node(scene: Scene) -> Undo:
    node = _node(scene)
    if scene.cluster.pid(node) is None:
        return _nothing
    scene.kill(node, with_children=scene.dice.random() < 0.5)
    return lambda: scene.start(node, wait=False)


def _freeze_node(scene: Scene) -> Undo:
    node = _node(scene)
    if scene.cluster.pid(node) is None:
        return _nothing
    scene.freeze(node)
    return lambda: scene.thaw(node)


def _cut_node(scene: Scene) -> Undo:
    node, whom = _node(scene), scene.dice.choice(sorted(FROM))
    how = scene.dice.choice(sorted(HOW))
    scene.event(f"{node} and {whom}: {how}", fault=True)
    cut(scene, node, FROM[whom], how)
    return scene.open_ways


def _kill_member(scene: Scene) -> Undo:
    members = scene.cluster.ids("member")
    if any(scene.cluster.pid(member) is None for member in members):
        return _nothing  # two of three would be a majority
    member = scene.leader() if scene.dice.random() < 0.7 else scene.dice.choice(members)
    scene.kill(member)
    return lambda: scene.start(member, wait=False)


def _freeze_s3(scene: Scene) -> Undo:
    (s3,) = scene.cluster.ids("s3")
    scene.freeze(s3)
    return lambda: scene.thaw(s3)


def _migrate(scene: Scene) -> Undo:
    with contextlib.suppress(PBClusterError):  # the target is down, or a move is under way
        name, target = scene.tenants[0], scene.others()[0]
        scene.event(f"{name} is to move to {target}", fault=True)
        scene.cluster.admin.request("POST", f"/tenants/{name}/migrate", {"targetNode": target})
    return _nothing


FAULTS: tuple[Callable[[Scene], Undo], ...] = (
    *(_kill_node, _freeze_node, _cut_node, _cut_node),
    *(_kill_member, _freeze_s3, _migrate),
)


@story(
    NAME,
    figure="one answering owner at any time, 0 lost, 0 stale reads",
    shape=Shape(proxied=True),
    permits=Permits(writes=ANY, reads=ANY),
)
def composed(scene: Scene) -> None:
    """Faults that dice choose, one after the other or at once; the seed names them."""
    open_: list[Undo] = []
    for _ in range(scene.dice.randint(*STEPS)):
        open_.append(scene.dice.choice(FAULTS)(scene))
        scene.pass_s(scene.dice.uniform(*HOLD_S))
        while open_ and scene.dice.random() < ENDED_SHARE:
            open_.pop(scene.dice.randrange(len(open_)))()
    for undo in open_:
        undo()
