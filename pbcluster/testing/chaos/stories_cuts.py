"""Stories of a node that is cut off, by the harness's proxies: from whom, and how.

From the control plane only, from S3 only, from the gateways only, from all. Connections are
*reset*; or the network is *silent*; or one way only: what the node says does not arrive (*mute*),
or what it is told does not (*deaf*); or partial: everything comes later (*slow*), or connections
break at some of their packets (*lossy*).

The node opens the connections to the control plane and to S3, the gateway those to the node, so
mute and deaf are the other way round on them. ``stories_kernel`` has the same by a kernel's
network.
"""

from __future__ import annotations

from collections.abc import Callable

from pbcluster.testing.chaos.judge import Permits
from pbcluster.testing.chaos.scene import Scene
from pbcluster.testing.chaos.story import Play, Shape, story
from pbcluster.testing.proxies import ProxyNet

ANY = frozenset((0, 502, 503, 504))
#: Longer than a take-over takes, shorter than writes wait for S3 before their tenant degrades.
CUT_S, LONG_CUT_S = 4.5, 15.0
SLOW_S, LOSS = 0.15, 0.05

FROM = {
    "plane": ("member",),
    "s3": ("s3",),
    "gateways": ("gateway",),
    "all": ("member", "s3", "gateway"),
}


def _slow(net: ProxyNet, a: str, b: str, node: str) -> None:
    net.delay(a, b, SLOW_S)


def _lossy(net: ProxyNet, a: str, b: str, node: str) -> None:
    net.drop(a, b, LOSS)


def _mute(net: ProxyNet, a: str, b: str, node: str) -> None:
    (net.mute if a == node else net.deafen)(a, b)


def _deaf(net: ProxyNet, a: str, b: str, node: str) -> None:
    (net.deafen if a == node else net.mute)(a, b)


HOW: dict[str, Callable[[ProxyNet, str, str, str], None]] = {
    "reset": lambda net, a, b, node: net.cut(a, b),
    "silent": lambda net, a, b, node: net.blackhole(a, b),
    "mute": _mute,
    "deaf": _deaf,
    "slow": _slow,
    "lossy": _lossy,
}


def cut(scene: Scene, node: str, kinds: tuple[str, ...], how: str) -> None:
    """Do it to every way between a node and processes of these kinds."""
    others = {name for kind in kinds for name in scene.cluster.ids(kind)}
    net = scene.cluster.net
    for a, b in net.pairs():
        if node in (a, b) and others & {a, b}:
            HOW[how](net, a, b, node)


def _story_of(kinds: tuple[str, ...], how: str) -> Play:
    def play(scene: Scene) -> None:
        node = scene.owner()
        scene.event(f"{node} and {', '.join(kinds)}: {how}", fault=True)
        cut(scene, node, kinds, how)
        scene.away(LONG_CUT_S if scene.long else CUT_S)
        scene.open_ways()
        scene.recovered()

    return play


for _whom, _kinds in FROM.items():
    for _how in HOW:
        _play = _story_of(_kinds, _how)
        _play.__doc__ = f"The owner and {' and '.join(_kinds)}: {_how}; then all is well again."
        story(
            f"cut-{_whom}-{_how}",
            figure="one answering owner at any time, 0 lost, 0 stale reads",
            shape=Shape(proxied=True),
            permits=Permits(writes=ANY, reads=ANY),
        )(_play)
