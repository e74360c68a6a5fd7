"""Kill nodes of a real cluster under writers and readers, round after round; count the losses.

    python -m pbcluster.testing.soak_crossing --rounds 20

Each round kills the node that owns the tenant, by turns with everything below it and pbnode alone,
at a random moment under load, waits for the other node to answer, reads every acknowledged row
back, through the gateway and from a database restored from S3 and checked whole
(``PRAGMA integrity_check``), and starts the dead node again. Meanwhile both nodes are asked
directly who takes itself for the owner. The first broken promise ends the run with the logs.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from typing import Any

import attrs
import click

from pbcluster.testing import soak_litestream
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.owner_watch import OwnerWatch
from pbcluster.testing.workload import Client, Journal, Workload, check, prepare

EMAIL = "soak@example.com"
PASSWORD = "a password for the soak"
TENANT = "soak"
WRITERS = 4


@attrs.frozen
class Round:
    """One kill.

    :ivar write_gap_s: the longest time without an acknowledgement, from the kill on.
    :ivar probes: answers of nodes that were asked directly.
    """

    number: int
    how: str
    acked: int
    failed_reads: int
    write_gap_s: float
    read_gap_s: float
    probes: int


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
    """Kill the owner under load and verify.

    :raises Broken: a row is lost, changed or stale, the replica is not whole or lacks one, or two
        owners answered.
    """
    with_children = number % 2 == 0
    victim = str(cluster.admin.tenant(TENANT)["nodeID"])
    workload = Workload(
        cluster.gateway_url, cluster.host(TENANT), f"s{number:03}", writers=writers, readers=2
    )
    watch = OwnerWatch(cluster, TENANT)
    watch.start()
    try:
        with workload.running() as journal:
            workload.wait_for_acks(50)
            time.sleep(dice.random() * 0.2)
            killed = time.monotonic()
            cluster.kill9(victim, with_children=with_children)
            workload.wait_for_acks(50)
    finally:
        watch.stop()
    journals.append(journal)
    verdict, owners = check(client, *journals), watch.found()
    if not verdict.good or journal.stale or owners:
        told = f"{verdict}, stale: {journal.stale}, owners: {owners}"
        raise Broken(f"round {number}: {told}\n{cluster.logs()}")
    _check_replica(cluster, journals, number)
    cluster.start(victim)
    return Round(
        number=number,
        how="node and all below it" if with_children else "pbnode alone",
        acked=len(journal.acked),
        failed_reads=sum(event.kind == "read" for event in journal.failures()),
        write_gap_s=journal.longest_gap(killed, "write"),
        read_gap_s=journal.longest_gap(killed, "read"),
        probes=len(watch.history.operations),
    )


def _check_replica(cluster: RealCluster, journals: list[Journal], number: int) -> None:
    acked = {key: value for journal in journals for key, value in journal.acked.items()}
    try:
        soak_litestream.one_restore(cluster, TENANT, acked)
    except soak_litestream.Broken as error:
        raise Broken(f"round {number}: {error}\n{cluster.logs()}") from None


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
        "restores_checked": len(found),
        "probes": sum(each.probes for each in found),
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
        f"{rounds} rounds, {figures['acknowledged']} rows acknowledged, 0 lost, 0 stale, "
        f"{rounds} replicas whole, {figures['probes']} answers of nodes, none of a second owner; "
        f"longest wait for a write: p50 {gap['p50']:.2f} s, max {gap['max']:.2f} s"
    )


if __name__ == "__main__":
    main()
