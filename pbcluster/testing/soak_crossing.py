"""Kill nodes of a real cluster under writers and readers, round after round; count the losses.

    python -m pbcluster.testing.soak_crossing --rounds 20

Each round kills the node that owns the tenant, by turns with everything below it and pbnode alone,
at a random moment under load, waits for the other node to answer, reads every acknowledged row
back, and starts the dead node again. The first broken promise ends the run with the logs.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from typing import Any

import attrs
import click

from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.workload import Client, Journal, Workload, check, prepare

EMAIL = "soak@example.com"
PASSWORD = "a password for the soak"
TENANT = "soak"
WRITERS = 4


@attrs.frozen
class Round:
    """One kill.

    :ivar write_gap_s: the longest time without an acknowledgement, from the kill on.
    """

    number: int
    how: str
    acked: int
    failed_reads: int
    write_gap_s: float
    read_gap_s: float


class Broken(Exception):
    """A promise was broken; the text says which."""


def one_round(
    cluster: RealCluster,
    client: Client,
    journals: list[Journal],
    number: int,
    dice: random.Random,
    *,
    writers: int = WRITERS,
) -> Round:
    """Kill the owner under load and verify. :raises Broken: a row is lost, changed or stale."""
    with_children = number % 2 == 0
    victim = str(cluster.admin.tenant(TENANT)["nodeID"])
    workload = Workload(
        cluster.gateway_url, cluster.host(TENANT), f"s{number:03}", writers=writers, readers=2
    )
    with workload.running() as journal:
        workload.wait_for_acks(50)
        time.sleep(dice.random() * 0.2)
        killed = time.monotonic()
        cluster.kill9(victim, with_children=with_children)
        workload.wait_for_acks(50)
    journals.append(journal)
    verdict = check(client, *journals)
    if not verdict.good or journal.stale:
        raise Broken(f"round {number}: {verdict}, stale: {journal.stale}\n{cluster.logs()}")
    cluster.start(victim)
    return Round(
        number=number,
        how="node and all below it" if with_children else "pbnode alone",
        acked=len(journal.acked),
        failed_reads=sum(event.kind == "read" for event in journal.failures()),
        write_gap_s=journal.longest_gap(killed, "write"),
        read_gap_s=journal.longest_gap(killed, "read"),
    )


def soak(rounds: int, seed: int, tell: Any = print, *, writers: int = WRITERS) -> list[Round]:
    """Run it. :param tell: called with each line of progress. :raises Broken: see the module."""
    dice = random.Random(seed)
    found: list[Round] = []
    journals: list[Journal] = []
    with RealCluster(nodes=2) as cluster:
        cluster.start()
        cluster.create_tenant(TENANT, EMAIL, PASSWORD)
        client = Client(cluster.gateway_url, cluster.host(TENANT))
        client.sign_in(EMAIL, PASSWORD)
        prepare(client)
        for number in range(rounds):
            done = one_round(cluster, client, journals, number, dice, writers=writers)
            found.append(done)
            tell(
                f"round {number + 1}/{rounds}: {done.how} killed, {done.acked} rows acknowledged, "
                f"0 lost; longest wait for a write {done.write_gap_s:.2f} s, for a read "
                f"{done.read_gap_s:.2f} s, {done.failed_reads} failed reads"
            )
    return found


def figures_of(found: list[Round]) -> dict[str, Any]:
    """What all rounds came to, for people and programs; times in seconds."""

    def spread(gaps: list[float]) -> dict[str, float]:
        return {"p50": round(statistics.median(gaps), 3), "max": round(max(gaps), 3)}

    return {
        "rounds": len(found),
        "acknowledged": sum(each.acked for each in found),
        "lost": 0,
        "stale": 0,
        "failed_reads": sum(each.failed_reads for each in found),
        "write_gap_s": spread([each.write_gap_s for each in found]),
        "read_gap_s": spread([each.read_gap_s for each in found]),
    }


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=20, show_default=True, type=click.IntRange(1, 999))
@click.option("--writers", default=WRITERS, show_default=True, type=click.IntRange(1, 500))
@click.option("--seed", default=None, type=int, help="Of the random moments; default: the time.")
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON; progress to stderr.")
def main(rounds: int, writers: int, seed: int | None, as_json: bool) -> None:
    """The command."""
    chosen = int(time.time()) if seed is None else seed
    click.echo(f"seed {chosen}", err=as_json)
    try:
        found = soak(rounds, chosen, lambda line: click.echo(line, err=as_json), writers=writers)
    except Broken as error:
        if as_json:
            click.echo(json.dumps({"seed": chosen, "good": False, "broken": str(error)}))
        raise click.ClickException(f"seed {chosen}: {error}") from None
    figures = figures_of(found)
    if as_json:
        told = {"seed": chosen, "writers": writers, "good": True} | figures
        click.echo(json.dumps(told | {"each": [attrs.asdict(each) for each in found]}))
        return
    gap = figures["write_gap_s"]
    click.echo(
        f"{rounds} rounds, {figures['acknowledged']} rows acknowledged, 0 lost, 0 stale; "
        f"longest wait for a write: p50 {gap['p50']:.2f} s, max {gap['max']:.2f} s"
    )


if __name__ == "__main__":
    main()
