"""What a story is: a name, the figure that is wanted, what it needs, and what it does. Values only.

    @story("node-kill", figure="…", limits=(Limit("write_gap_s", p50=3, max=8),), permits=…)
    def node_kill(scene: Scene) -> None:
        \"\"\"The owner of the tenant is killed with everything below it.\"\"\"
        scene.kill(scene.owner())
        scene.recovered()

Clients write and read all the while; a :class:`~pbcluster.testing.chaos.scene.Scene` is how a story
gets at the cluster. Whatever it leaves broken, the scene heals before everything is read back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from pbcluster.testing.chaos.figures import Limit
from pbcluster.testing.chaos.judge import NOTHING, Permits

if TYPE_CHECKING:
    from pbcluster.testing.chaos.scene import Scene

Play = Callable[["Scene"], None]


@attrs.frozen(kw_only=True)
class Shape:
    """The cluster that a story needs. Stories of one shape share a cluster.

    :ivar proxied: whether the processes meet through proxies.
    :ivar supervised: whether ``pbcluster up``'s supervisor runs it.
    :ivar kernel: whether nodes live in network namespaces of their own.
    """

    nodes: int = 2
    members: int = 3
    proxied: bool = False
    supervised: bool = False
    kernel: bool = False


@attrs.frozen(kw_only=True)
class Story:
    """One named scenario.

    :ivar figure: what is wanted, in words. :ivar limits: the same in numbers.
    :ivar tenants: under load at once, ``long_tenants`` in a long run (0: as many).
    :ivar writers: of each, ``readers`` alike.
    :ivar pause_s: of each client between an answer and its next request.
    :ivar passing_every_s: so often a client comes that writes one row; 0: none does.
    :ivar enough: so many good writes, and reads, of each tenant show that all is well.
    :ivar plane: whether the admin API and look-ups are used meanwhile.
    :ivar probes: whether nodes are asked directly and claims are watched.
    """

    name: str
    title: str
    figure: str
    play: Play
    shape: Shape = Shape()
    limits: tuple[Limit, ...] = ()
    permits: Permits = NOTHING
    tenants: int = 1
    long_tenants: int = 0
    writers: int = 2
    readers: int = 2
    pause_s: float = 0.02
    passing_every_s: float = 0.25
    enough: int = 20
    plane: bool = False
    probes: bool = True


#: Name → story, in the order of their modules.
STORIES: dict[str, Story] = {}


def story(name: str, *, figure: str, **more: object) -> Callable[[Play], Play]:
    """Register a function as a story; its docstring's first line is the title."""

    def register(play: Play) -> Play:
        if name in STORIES:
            raise ValueError(f"two stories are called {name!r}")
        title = " ".join((play.__doc__ or "").split("\n\n")[0].split())
        STORIES[name] = Story(
            name=name,
            title=title,
            figure=figure,
            play=play,
            **more,  # type: ignore[arg-type]
        )
        return play

    return register
