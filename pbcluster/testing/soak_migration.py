"""Moves a tenant under load again and again, and kills the control plane's leader in each phase.

Round by round the leader is killed in *preparing*, *draining*, *switching*, or not at all. The
phase is waited for, then SIGKILL follows at once; a round tells in which phase the migration was
when the leader was gone, since a phase of a small tenant lasts some milliseconds. After each round
nothing may have failed; at the end every acknowledged row is read back.
"""

from __future__ import annotations

import random
import statistics
import time
from collections import Counter
from typing import Any

import attrs
import click

from pbcluster.errors import PBClusterError
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.moving_tenants import ENDS, MovingTenant, Round
from pbcluster.testing.workload import Client, prepare

TENANT = "soak"
EMAIL, PASSWORD = "me@example.com", "long enough 1"
#: In which phase the leader is killed; empty: it is not.
KILLS = ("preparing", "draining", "switching", "")
POLL_S = 0.002
LEADER_WITHIN_S = 30.0


class Broken(Exception):
    """Something that was promised did not hold."""


@attrs.frozen
class Killed:
    """One round. :ivar phase: in which the leader died, as the record shows; empty: none was."""

    phase: str
    round: Round


def leader_of(cluster: RealCluster) -> str:
    """The member that leads, empty if nobody does now."""
    try:
        members = cluster.admin.all("members")
    except PBClusterError:
        return ""
    return next((str(each["id"]) for each in members if each["role"] == "leader"), "")


def wait_leader(cluster: RealCluster) -> str:
    """The member that leads, as soon as one does."""
    cluster.wait_until(lambda: bool(leader_of(cluster)), "a leader", LEADER_WITHIN_S)
    return leader_of(cluster)


def kill_in(cluster: RealCluster, moved: MovingTenant, leader: str, phase: str) -> str:
    """Kill the leader as soon as the migration is in ``phase`` or beyond.

    :returns: the phase that was seen last before.
    """
    order = ("preparing", "draining", "switching", *ENDS)
    until = time.monotonic() + LEADER_WITHIN_S
    while time.monotonic() < until:
        seen = str(moved.look()["phase"])
        if order.index(seen) >= order.index(phase):
            cluster.kill9(leader)
            return seen
        time.sleep(POLL_S)
    raise Broken(f"the migration did not come to {phase}")


def one_round(cluster: RealCluster, moved: MovingTenant, kill: str, pause_s: float) -> Killed:
    """One migration. :raises Broken: a request failed, or it did not end as done."""
    leader, phase = wait_leader(cluster), ""
    target = moved.other_node()
    before = len(moved.journal.failures())
    began = time.monotonic()
    moved.begin(target)
    if kill:
        time.sleep(pause_s)
        phase = kill_in(cluster, moved, leader, kill)
    done = moved.end(began)
    if kill:
        cluster.start(leader)
    failed = moved.journal.failures()[before:]
    if failed or done.phase != "done":
        raise Broken(f"{kill or 'no kill'}: {done}, failed: {failed[:5]}\n{cluster.logs()}")
    return Killed(phase, done)


def soak(
    rounds: int, seed: int, tell: Any = print, *, rate: float = 50.0, kills: bool = True
) -> list[Killed]:
    """Run it. :param tell: called with each line of progress. :param rate: writes and reads in a
    second, each. :param kills: whether leaders are killed at all."""
    dice = random.Random(seed)
    found: list[Killed] = []
    with RealCluster(nodes=2, members=3) as cluster:
        cluster.start()
        cluster.create_tenant(TENANT, EMAIL, PASSWORD)
        client = Client(cluster.gateway_url, cluster.host(TENANT))
        client.sign_in(EMAIL, PASSWORD)
        prepare(client)
        moved = MovingTenant(cluster, TENANT, writes_per_s=rate, reads_per_s=rate)
        with moved.workload.running():
            moved.workload.wait_for_acks(20)
            for number in range(rounds):
                kill = KILLS[number % len(KILLS)] if kills else ""
                done = one_round(cluster, moved, kill, dice.random() * 0.02)
                found.append(done)
                tell(
                    f"round {number + 1}/{rounds}: longest request {done.round.pause_s:.3f} s"
                    + (f", leader killed in {done.phase}" if kill else "")
                )
        faults = moved.faults(client)
        if faults:
            raise Broken("; ".join(faults[:5]) + f"\n{cluster.logs()}")
        tell(f"{len(moved.journal.acked)} rows acknowledged, 0 lost, 0 requests failed")
    return found


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=50, show_default=True, type=click.IntRange(1, 9999))
@click.option("--rate", default=20.0, show_default=True, type=click.FloatRange(1, 500))
@click.option("--seed", default=None, type=int, help="Of the random moments; default: the time.")
def main(rounds: int, rate: float, seed: int | None) -> None:
    """The command."""
    chosen = int(time.time()) if seed is None else seed
    click.echo(f"seed {chosen}")
    try:
        found = soak(rounds, chosen, click.echo, rate=rate)
    except Broken as error:
        raise click.ClickException(str(error)) from None
    pauses = [each.round.pause_s for each in found]
    phases = Counter(each.phase for each in found if each.phase)
    click.echo(
        f"{rounds} migrations, leaders killed in {dict(phases)}; longest request of each: "
        f"p50 {statistics.median(pauses):.3f} s, max {max(pauses):.3f} s"
    )


if __name__ == "__main__":
    main()
