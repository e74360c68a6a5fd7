"""Measure "lookups": what finding a remembered route costs, with few and with many remembered."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import click

from benchmarks.figures import Target
from benchmarks.gateway.lookup_host import CASES
from benchmarks.gateway.options import Options
from benchmarks.measured import Measured

FEW, *MANY = CASES
#: The same few of many: only the number of those that nobody asks for differs.
TARGETS = (Target("lookup_us", FEW, 1.2),)
NEEDS = ()


def measure(options: Options) -> Measured:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CASES}
    checkout = options.checkouts[0]
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory(prefix="bench-overlay-") as overlay:
            command = [checkout.python, "-P", "-m", "benchmarks.gateway.lookup_host"]
            done = subprocess.run(
                command,
                env=checkout.environment(Path(overlay)),
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode:
            raise RuntimeError(f"the look-ups of {checkout.root} failed:\n{done.stderr}")
        told = json.loads(done.stdout)
        click.echo(f"round {number + 1} of {options.rounds}: {told}", err=True)
        for name, cost_us in told.items():
            found[name].append({"lookup_us": cost_us})
    return Measured(
        "lookups", "Finding a remembered route", found, (MANY[0],), TARGETS, compared=False
    )
