"""Measure "workers": one worker beside two, on two cores that they share with the load."""

from __future__ import annotations

from typing import Any

from benchmarks.gateway import peers, wrk
from benchmarks.gateway.options import Options
from benchmarks.gateway.ours import Ours
from benchmarks.gateway.processes import free_ports
from benchmarks.gateway.proxied import CONNECTIONS, WARM_UP_S
from benchmarks.gateway.turns import take_turns, together, url, weigh
from benchmarks.measured import Measured

NEEDS = ("nginx", "wrk", "taskset")
TITLE = f"Workers of one gateway, {CONNECTIONS} connections"


def measure(options: Options) -> Measured:
    checkout = options.checkouts[0]
    with together() as to:
        (upstream_port,) = free_ports(1)
        to.add(peers.upstream(upstream_port, None))
        systems: list[Any] = []
        for count in (1, 2):
            cores = {"gateway": None, "other": options.other}
            ours = to.add(Ours(checkout, upstream_port, cores, settings={"workers": count}))
            ours.name = f"{count} worker{'s' * (count > 1)}"
            if not ours.has_option("workers"):
                reason = "pbgateway of this checkout has no option --workers"
                return Measured("workers", TITLE, {}, (), skipped=reason)
            systems.append(ours)

        def one(system: Any, number: int) -> dict[str, float]:
            def load(seconds: float) -> Any:
                return wrk.run(
                    url(system),
                    {"Host": peers.HOST},
                    connections=CONNECTIONS,
                    seconds=seconds,
                    core=None,
                )

            if number == 0:
                load(WARM_UP_S)
            return weigh(system.pids(), lambda: load(options.seconds))

        found = take_turns(systems, options.rounds, one)
    return Measured(
        "workers",
        TITLE,
        found,
        ("2 workers",),
        notes=(
            "Nothing is pinned: workers, load and upstream share all cores, so that the second "
            "worker takes what the others leave.",
        ),
    )
