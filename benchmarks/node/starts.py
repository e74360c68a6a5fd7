"""``python -m benchmarks.node.starts``: what each sandbox costs at a warm start of PocketBase.

One start after the other, the ways by turns, so that all of them meet the same machine.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from benchmarks import measured, report
from benchmarks.figures import percentile
from benchmarks.measured import Measured

LABELS = {"min_ms": "shortest start, ms", "p50_ms": "start, p50, ms", "p90_ms": "start, p90, ms"}


def measure(count: int) -> Measured:
    """``count`` starts each way."""
    spent = starts(count)
    rounds = {
        name: [
            {
                "min_ms": min(values),
                "p50_ms": percentile(values, 0.5),
                "p90_ms": percentile(values, 0.9),
            }
        ]
        for name, values in spent.items()
    }
    title = "Starts of PocketBase on a warm directory, without a sandbox and with each"
    notes = (f"{count} starts each. What counts is whether the differences exceed the noise.",)
    return Measured(
        "starts",
        title,
        rounds,
        ours=tuple(rounds),
        notes=notes,
        compared=False,
        labels=LABELS,
    )


def starts(rounds: int) -> dict[str, list[float]]:
    """Milliseconds of the starts, by the way."""
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred

    net: Any = reactor
    failures: list[Any] = []
    found: dict[str, list[float]] = {}

    def run() -> None:
        done = Deferred.fromCoroutine(warm_starts(net, rounds))
        done.addCallbacks(found.update, failures.append)
        done.addBoth(lambda _: net.stop())

    net.callWhenRunning(run)
    net.run()
    if failures:
        failures[0].raiseException()
    return found


async def warm_starts(reactor: Any, rounds: int) -> dict[str, list[float]]:
    """Start and stop PocketBase each way by turns; what cannot be used here is left out."""
    from pbcluster import binaries
    from pbcluster.node.interfaces import WorkloadSpec
    from pbcluster.node.sandbox.sandbox import Sandbox, SandboxSettings
    from pbcluster.node.workload import PocketBaseWorkloads

    root = Path(tempfile.mkdtemp(prefix="pbstarts-"))
    root.chmod(0o711)
    binary = binaries.locate("pocketbase", {})
    ways = {}
    (root / "tenants").mkdir()
    for name, settings in (
        ("none", SandboxSettings(insecure=True)),
        ("Landlock", SandboxSettings(mode="landlock")),
        ("Landlock, a user of its own", SandboxSettings(mode="landlock", users=(30000, 59999))),
        ("bubblewrap", SandboxSettings(mode="bubblewrap")),
    ):
        sandbox = Sandbox(settings, root, binary)
        with contextlib.suppress(Exception):
            sandbox.prepare()
            ways[name] = PocketBaseWorkloads(
                reactor, binary=binary, data_dir=root, lock_fd=lambda _: None, sandbox=sandbox
            )
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, workloads in ways.items():
            tenant_id = f"tenant_{list(ways).index(name)}"
            spec = WorkloadSpec(
                tenant_id=tenant_id, directory=root / "tenants" / tenant_id, encryption_key="k" * 32
            )
            began = time.perf_counter()
            running = await workloads.start(spec)
            spent[name].append((time.perf_counter() - began) * 1000)
            await running.stop()
    shutil.rmtree(root)
    # The first one makes the database.
    return {name: values[1:] for name, values in spent.items()}


@click.command(help=__doc__)
@click.option("--starts", "count", default=25, show_default=True, type=click.IntRange(2, 1000))
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="All figures.")
def main(count: int, json_file: Path | None) -> None:
    found = measure(count)
    click.echo(report.text(found) + "\n")
    measured.write(json_file, [found])


if __name__ == "__main__":
    main()
