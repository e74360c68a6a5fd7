"""Stories of a node that is cut off, by a kernel's network: see ``kernel_net`` and
``stories_cuts``.

Here a one-way cut is what a network makes of it: no connection can be made, and those that are open
stand still. Delay is not among them: the kernel's netem, which makes it, is not everywhere.
"""

from __future__ import annotations

from pbcluster.testing.chaos.judge import Permits
from pbcluster.testing.chaos.kernel_net import LOSS, Way
from pbcluster.testing.chaos.scene import Scene
from pbcluster.testing.chaos.stage_cluster import FAR_NODE, StageCluster
from pbcluster.testing.chaos.stories_cuts import CUT_S, FROM, LONG_CUT_S
from pbcluster.testing.chaos.story import Play, Shape, story

ANY = frozenset((0, 502, 503, 504))
#: How → whether the node's words are lost, those to it, and how many of a hundred packets.
HOW = {
    "silent": (True, True, 100),
    "mute": (True, False, 100),
    "deaf": (False, True, 100),
    "lossy": (True, True, LOSS),
}


def ways(cluster: StageCluster, kinds: tuple[str, ...]) -> list[Way]:
    """What goes between the far node and processes of these kinds."""
    found: list[Way] = []
    for kind in kinds:
        if kind == "gateway":
            found.append(Way(there=(cluster.plan.process(FAR_NODE).ports["http"],)))
        else:
            own = cluster.plan.of(kind)
            found.append(Way(here=tuple(p for process in own for p in process.ports.values())))
    return found


def _story_of(kinds: tuple[str, ...], how: str) -> Play:
    def play(scene: Scene) -> None:
        if scene.owner() != FAR_NODE:
            scene.migrate(target=FAR_NODE)
            scene.fault_s = 0.0
            scene.recovered()
        going, coming, percent = HOW[how]
        scene.event(f"{FAR_NODE} and {', '.join(kinds)}: {how}", fault=True)
        net = scene.cluster.kernel
        net.lose(ways(scene.cluster, kinds), going=going, coming=coming, percent=percent)
        scene.away(LONG_CUT_S if scene.long else CUT_S)
        scene.open_ways()
        scene.recovered()

    return play


for _whom, _kinds in FROM.items():
    for _how in HOW:
        _play = _story_of(_kinds, _how)
        _play.__doc__ = f"Packets of a node and {' and '.join(_kinds)}: {_how}; then all pass."
        story(
            f"kernel-{_whom}-{_how}",
            figure="one answering owner at any time, 0 lost, 0 stale reads",
            shape=Shape(kernel=True),
            permits=Permits(writes=ANY, reads=ANY),
        )(_play)
