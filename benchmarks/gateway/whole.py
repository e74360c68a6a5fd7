"""Measures "record" and "list": client, gateway, node and PocketBase, all real, beside nginx before
a PocketBase of the same build with the same records.

Every PocketBase has a core to itself (the one that proxies have elsewhere), as Go sees one core;
whatever else there is (the load, the gateway, the node, nginx, S3, Litestream) shares the other. So
the throughput shows whether the chain can keep PocketBase busy, as it would on machines of their
own. Latencies are taken by a load with a rate
(``paced``), at half of the smaller of both throughputs and at a rate that keeps nobody waiting for
a core: gateway and node share theirs with each other and with the load, and at half load it is
nearly full, since a wake-up then serves few requests. What is told as added is ours less nginx's of
the same round.
"""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.figures import Target
from benchmarks.gateway import peers, records, wrk
from benchmarks.gateway.options import Options
from benchmarks.gateway.ours import Checkout, Ours
from benchmarks.gateway.processes import cpu_s, free_ports, pin
from benchmarks.gateway.proxied import WARM_UP_S
from benchmarks.gateway.turns import Found, child, line, take_turns, together, told_by, url, weigh
from benchmarks.measured import Measured

NEEDS = ("nginx", "wrk", "taskset", "gcc")
CONNECTIONS = 32
#: Why added latency misses its targets where it does.
SHARED = (
    "gateway, node and load share one core, which is nearly full at half load: a wake-up serves "
    "fewer requests then, so each costs more; calm, at 500 requests a second, is told beside"
)
#: … and the rate.
FULL = "gateway, node and load share one core, which is full; PocketBase has the other"
TARGETS = (
    Target("rate", "nginx", 0.85, at_most=False, cause=FULL),
    Target("added_p50_ms", "", 0.3, cause=SHARED),
    Target("added_p99_ms", "", 2.0, cause=SHARED),
)
#: Requests a second at which nobody waits for a core.
CALM_RATE = 500
EMAIL, PASSWORD = "bench@example.com", "a password for the bench"


def is_pocketbase(pid: int) -> bool:
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return command[0].endswith(b"pocketbase") and b"serve" in command


class Chain:
    """A checkout's gateway, node and PocketBase."""

    def __init__(self, checkout: Checkout, options: Options) -> None:
        self.name = checkout.label
        self._ours = Ours(checkout, 0, {"other": options.other}, node="whole")
        told = self._ours.told
        self.port = self._ours.port
        found = [pid for pid in told["below_node"] if is_pocketbase(pid)]
        for pid in found:
            pin(pid, options.core)
        self.pocketbase = found[-1]
        at = url(self, "")
        token = records.superuser(at, peers.HOST, told["email"], told["password"])
        self.settings = records.settings(at, peers.HOST, token)
        self.record = records.fill(at, peers.HOST, token)

    def pids(self) -> list[int]:
        """Gateway and node, without what is below the latter."""
        return [*self._ours.pids(), int(self._ours.told["node_pid"])]

    def stop(self) -> None:
        self._ours.stop()


class Beside:
    """nginx before a PocketBase of the same build, with the flags, the environment and the settings
    of the one that ``chain``'s node started."""

    name = "nginx"

    def __init__(self, options: Options, chain: Chain) -> None:
        process = Path(f"/proc/{chain.pocketbase}")
        program, *flags = process.joinpath("cmdline").read_text().rstrip("\0").split("\0")
        env = dict(
            each.split("=", 1)
            for each in process.joinpath("environ").read_text().split("\0")
            if "=" in each
        )
        root, (self.port, own) = peers.make_root("pocketbase"), free_ports(2)
        directory = _flag(flags, "--dir").removesuffix("/data")
        serve = [each.replace(directory, str(root)) for each in flags if "--http=" not in each]
        env = {name: value.replace(directory, str(root)) for name, value in env.items()}
        login = [program, "superuser", "upsert", EMAIL, PASSWORD, f"--dir={root}/data"]
        login.append(f"--encryptionEnv={_flag(flags, '--encryptionEnv')}")
        Path(env.get("TMPDIR", str(root))).mkdir(exist_ok=True)
        subprocess.run(login, check=True, capture_output=True, env=env)
        peer = peers.Peer("pocketbase", root, own, log=False)
        argv = [program, *serve, f"--http=127.0.0.1:{own}"]
        self._pocketbase = peer.run(argv, options.core, env=env)
        (self.pocketbase,) = self._pocketbase.pids()
        self._nginx = peers.nginx(self.port, own, options.other)
        at = url(self, "")
        token = records.superuser(at, peers.HOST, EMAIL, PASSWORD)
        # The platform has PocketBase log less than it does by itself, which is a third of its work.
        records.call(at, peers.HOST, "PATCH", "/api/settings", chain.settings, token)
        if records.settings(at, peers.HOST, token) != chain.settings:
            raise RuntimeError("the PocketBase beside does not take the settings of the node's")
        self.record = records.fill(at, peers.HOST, token)

    def pids(self) -> list[int]:
        return self._nginx.pids()

    def stop(self) -> None:
        self._nginx.stop()
        self._pocketbase.stop()


def _flag(flags: list[str], name: str) -> str:
    return next(each.partition("=")[2] for each in flags if each.startswith(f"{name}="))


def measure_record(options: Options) -> Measured:
    return _measure(options, "record", lambda system: f"/{system.record}", "one record")


def measure_list(options: Options) -> Measured:
    return _measure(options, "list", lambda system: "?perPage=20", "a list of 20 records")


def _measure(options: Options, name: str, tail: Any, what: str) -> Measured:
    def path(system: Any) -> str:
        return f"/api/collections/{records.COLLECTION}/records{tail(system)}"

    with together() as to:
        chains = [to.add(Chain(each, options)) for each in options.checkouts]
        systems = [*chains, to.add(Beside(options, chains[0]))]
        found = take_turns(
            systems, options.rounds, lambda each, number: _fast(each, path(each), number, options)
        )
        rates = [statistics.median(f["rate"] for f in rounds) for rounds in found.values()]
        rate = min(rates) / 2
        click.echo(f"latencies at {rate:,.0f} requests a second", err=True)
        slow = _latencies(systems, path, rate, options)
    for system in systems:
        for number in range(options.rounds):
            _merge(found[system.name][number], slow[system.name][number], slow["nginx"][number])
    return Measured(
        name,
        f"Client, gateway, node, PocketBase: {what}",
        found,
        options.labels,
        TARGETS,
        notes=(
            f"Half load is {rate:,.0f} requests a second, calm {CALM_RATE}. CPU is of gateway and "
            "node together, or of nginx; that of PocketBase is counted apart.",
        ),
    )


def _fast(system: Any, path: str, number: int, options: Options) -> dict[str, float]:
    """The figures of as many requests as go through."""

    def load(seconds: float) -> Any:
        return wrk.run(
            url(system, path),
            {"Host": peers.HOST},
            connections=CONNECTIONS,
            seconds=seconds,
            core=options.other,
        )

    if number == 0:
        load(WARM_UP_S)
    before = cpu_s(system.pocketbase)
    figures = weigh(system.pids(), lambda: load(options.seconds))
    used = cpu_s(system.pocketbase) - before
    # At half load they are taken again, comparably.
    del figures["p50_ms"], figures["p99_ms"]
    return figures | {"pocketbase_us": used / figures["requests"] * 1e6}


def _latencies(systems: Sequence[Any], path: Any, rate: float, options: Options) -> Found:
    """Of each round, in which the systems take turns every half second."""
    found: Found = {system.name: [] for system in systems}
    for number in range(options.rounds):
        # Nobody always comes first.
        turn = number % len(systems)
        ordered = [*systems[turn:], *systems[:turn]]
        calm = _latency(ordered, path, CALM_RATE, options)
        told = _latency(ordered, path, rate, options)
        for name, figures in told.items():
            figures |= {f"calm_{which}": value for which, value in calm[name].items()}
            found[name].append(figures)
            click.echo(f"round {number + 1} of {options.rounds}: {name}: {line(figures)}", err=True)
    return found


def _latency(
    systems: Sequence[Any], path: Any, rate: float, options: Options
) -> dict[str, dict[str, float]]:
    job = {
        "targets": {each.name: {"port": each.port, "path": path(each)} for each in systems},
        "host": peers.HOST,
        "rate": rate,
        "seconds": options.seconds,
        "connections": CONNECTIONS,
    }
    told = told_by(child("paced", job, options.other), options.seconds * len(systems) + 60)
    for name, each in told.items():
        if each["failed"] > each["requests"] / 1000:
            raise RuntimeError(f"{name}: {each['failed']} requests failed")
    return {
        name: {"p50_ms": each["p50_s"] * 1000, "p99_ms": each["p99_s"] * 1000}
        for name, each in told.items()
    }


def _merge(figures: dict[str, float], own: dict[str, float], nginx: dict[str, float]) -> None:
    figures.update(own)
    if own is not nginx:
        figures.update({f"added_{name}": own[name] - nginx[name] for name in nginx})
