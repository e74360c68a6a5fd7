"""What a look-up of a remembered route costs; run by the interpreter of the checkout.

``python -m benchmarks.gateway.lookup_host`` prints JSON: case → microseconds of processor time for
one call of what every request calls first, ``Lookups.cached``.
"""

from __future__ import annotations

import json
import random
import time
from typing import Any

from twisted.internet.task import Clock

from pbcluster.gateway.lookups import Lookups
from pbcluster.gateway.routes import RouteCache
from pbcluster.gateway.tenant_id import TenantKey
from pbcluster.wire import Route

FEW, MANY = 10, 100_000
CALLS = 200_000
CASES = {
    f"{FEW} routes": (FEW, FEW),
    f"{MANY:,} routes, {FEW} asked for": (MANY, FEW),
    f"{MANY:,} routes, all asked for": (MANY, MANY),
}


def filled(count: int) -> Any:
    routes = RouteCache(300.0)
    for number in range(count):
        name = f"tenant{number:06d}"
        hosts = (f"{name}.localhost",)
        node = number % 100
        address = f"http://10.0.0.{node}:8090"
        route = Route(f"tenant_{number:020d}", name, f"node_{node}", address, 1, 1, hosts)
        routes.put(route, number + 1, 0.0)
    if len(routes) != count:
        raise SystemExit(f"the cache keeps {len(routes)} of {count} routes")
    return Lookups(Clock(), None, routes)  # type: ignore[arg-type]


def cost_us(count: int, asked: int) -> float:
    lookups, dice = filled(count), random.Random(1)
    keys = [TenantKey("name", f"tenant{dice.randrange(asked):06d}") for _ in range(CALLS)]
    cached = lookups.cached
    began = time.process_time()
    for key in keys:
        cached(key)
    return (time.process_time() - began) / CALLS * 1e6


if __name__ == "__main__":
    print(json.dumps({name: cost_us(*case) for name, case in CASES.items()}))
