"""Measure "workers": one worker beside two, each process with a third of a core of its own.

Where cores are free, a second worker should do as much as the first. The load and the upstream
need the rest of the machine, so "free" is made: each worker is bound to a share (``shares``).
"""

from __future__ import annotations

from typing import Any

from benchmarks.figures import Target
from benchmarks.gateway import peers, wrk
from benchmarks.gateway.options import Options
from benchmarks.gateway.ours import Ours
from benchmarks.gateway.processes import free_ports
from benchmarks.gateway.proxied import CONNECTIONS, WARM_UP_S
from benchmarks.gateway.shares import NoShares, Shares
from benchmarks.gateway.turns import take_turns, together, url, weigh
from benchmarks.measured import Measured

NEEDS = ("nginx", "wrk", "taskset")
#: Of a core, for each process. Two workers, their load and the upstream fit into two cores then.
SHARE = 0.35
TITLE = f"Workers of one gateway, {SHARE} of a core each, {CONNECTIONS} connections"
TARGETS = (Target("rate", "1 worker", 1.8, at_most=False),)


def measure(options: Options) -> Measured:
    checkout = options.checkouts[0]
    with together() as to:
        (upstream_port,) = free_ports(1)
        to.add(peers.upstream(upstream_port, None))
        try:
            shares = to.add(Shares(SHARE))
        except NoShares as error:
            return Measured("workers", TITLE, {}, (), skipped=str(error))
        systems: list[Any] = []
        for count in (1, 2):
            cores = {"gateway": None, "other": None}
            ours = to.add(Ours(checkout, upstream_port, cores, settings={"workers": count}))
            ours.name = f"{count} worker{'s' * (count > 1)}"
            if not ours.has_option("workers"):
                reason = "pbgateway of this checkout has no option --workers"
                return Measured("workers", TITLE, {}, (), skipped=reason)
            try:
                shares.give(ours.pids())
            except NoShares as error:
                return Measured("workers", TITLE, {}, (), skipped=str(error))
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
        TARGETS,
        notes=(
            f"Each process of a gateway may have {SHARE} of a core (a control group of its own), "
            "so that there is room for two of them, their load and the upstream; latencies are "
            "those of processes that wait for their next share.",
        ),
    )
