"""Stories without a fault: the first request to a new tenant, and one to a tenant that is known."""

from __future__ import annotations

import time

from pbcluster.testing.chaos.clients import asked
from pbcluster.testing.chaos.figures import Limit, quantile
from pbcluster.testing.chaos.history import LOOK, READ, Operation
from pbcluster.testing.chaos.scene import Scene
from pbcluster.testing.chaos.story import story
from pbcluster.testing.workload import Client

READS_S, LONG_READS_S = 3.0, 20.0


@story(
    "first-request",
    figure="answered, and within 2 s of the tenant's creation",
    limits=(Limit("first_answer_s", max=2.0),),
)
def first_request(scene: Scene) -> None:
    """A tenant is created, and asked before anything of it runs: the request waits, and is
    answered."""
    name = f"new{scene.dice.randrange(10**9)}"
    began = scene.event(f"{name} created", fault=True)
    scene.cluster.admin.request("POST", "/tenants", {"name": name})
    client = Client(scene.cluster.gateway_url, scene.cluster.host(name))
    asked_s = time.monotonic()
    status, _, detail = asked(client, "GET", "/api/health")
    client.close()
    scene.history.operations.append(
        Operation(
            tenant=name,
            kind=READ,
            key="health",
            begun_s=asked_s,
            ended_s=time.monotonic(),
            status=status,
            client="the first client",
            detail=detail,
        )
    )
    scene.event(f"its first answer is {status}")
    scene.figures["first_answer_s"] = time.monotonic() - began
    scene.cluster.admin.delete_tenant(name)


@story("cache-hit", figure="answered; how fast is told", readers=4)
def cache_hit(scene: Scene) -> None:
    """A tenant whose route the gateway knows and whose process runs is read and written."""
    began = scene.event("measured from here", fault=True)
    scene.pass_s(LONG_READS_S if scene.long else READS_S)
    reads = [o.took_s for o in scene.history.of(LOOK, READ) if o.begun_s > began]
    scene.figures["read_p50_s"] = quantile(reads, 0.5)
    scene.figures["read_p99_s"] = quantile(reads, 0.99)
