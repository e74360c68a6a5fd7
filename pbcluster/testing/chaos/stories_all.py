"""Stories of everything: killed at once, or restarted one after the other."""

from __future__ import annotations

import time

from pbcluster.cli.restarting import Restarter
from pbcluster.testing.chaos.figures import Limit
from pbcluster.testing.chaos.judge import Permits
from pbcluster.testing.chaos.scene import Scene
from pbcluster.testing.chaos.story import Shape, story

#: Nobody answers: connections end or are refused.
NOBODY = frozenset((0, 502, 503, 504))


@story(
    "kill-everything",
    figure="all acknowledged writes there; serving within 20 s",
    limits=(Limit("serving_s", max=20.0),),
    permits=Permits(writes=NOBODY, reads=NOBODY),
)
def kill_everything(scene: Scene) -> None:
    """kill -9 of every process at once, then the start of all."""
    scene.kill_everything()
    scene.start()
    scene.recovered()
    scene.figures["serving_s"] = time.monotonic() - scene.fault_s


@story(
    "rolling-restart",
    figure="0 failed requests",
    shape=Shape(supervised=True),
)
def rolling_restart(scene: Scene) -> None:
    """``pbcluster restart --all``: every member, node and gateway in turn, under load."""
    cluster = scene.cluster
    began = scene.event("the restart begins", fault=True)
    restarter = Restarter(cluster.where, cluster.admin, lambda line: None)
    for done in restarter.all(cluster.where.load_plan()):
        scene.event(f"{done.id} is new")
    scene.figures["restart_s"] = time.monotonic() - began
    scene.recovered()
