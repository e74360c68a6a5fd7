"""Kill -9 the leader of the control plane under writers and readers, round after round; judge it.

    python -m pbcluster.testing.soak_members --rounds 100

Three real members and stand-in nodes (no S3, no PocketBase). Each round kills the leader at a
random moment while tenants are created and read at all members, and starts it again at once. A gap
is the longest time without an acknowledged creation from the kill on, over all clients. Every
operation is judged at the end. Exit status 1 if anything was lost, doubled, stale, changed or
invented, or refused.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import click

from pbcluster.cli.admin import AdminClient
from pbcluster.cli.layout import LOOPBACK
from pbcluster.errors import PBClusterError
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.histories import Verdict, judge, longest_wait
from pbcluster.testing.lookups import Lookups
from pbcluster.testing.members_workload import MembersWorkload, all_tenants
from pbcluster.testing.stand_in_nodes import StandInNodes

MEMBERS = 3
#: Tenants are spread over so many stand-in nodes, so that no list of one node's gets long.
NODES = 16
#: Acknowledgements before a kill, and after it until a round is over.
ACKS_BEFORE, ACKS_AFTER = 10, 20
PAUSE_S = 0.1
CAUGHT_UP_WITHIN_S = 30.0


@attrs.frozen
class Kill:
    """One kill.

    :ivar victim: who was killed. :ivar gap_ms: how long nobody wrote.
    :ivar terms: how many terms later there was a leader; more than one: votes were split.
    """

    number: int
    victim: str
    gap_ms: float
    terms: int


@attrs.frozen
class Found:
    """What a whole run showed."""

    kills: list[Kill]
    verdict: Verdict
    refusals: list[str]

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return self.verdict.good and not self.refusals

    def figures(self) -> dict[str, Any]:
        """For people and programs."""
        gaps = sorted(kill.gap_ms for kill in self.kills)
        return {
            "kills": len(gaps),
            "gap_ms": {
                "min": gaps[0],
                "median": statistics.median(gaps),
                "p99": gaps[-(-99 * len(gaps) // 100) - 1],
                "max": gaps[-1],
            },
            "over_1_s": sum(gap > 1000 for gap in gaps),
            "split_votes": sum(kill.terms > 1 for kill in self.kills),
            "acknowledged": self.verdict.acknowledged,
            "reads": self.verdict.reads,
            "lookups": self.verdict.lookups,
            "lost": len(self.verdict.lost),
            "doubled": len(self.verdict.doubled),
            "stale": len(self.verdict.stale),
            "changed": len(self.verdict.changed),
            "invented": len(self.verdict.invented),
            "refused": len(self.refusals),
        }


def admin_ports(cluster: RealCluster) -> dict[str, int]:
    """Member → port of its admin API."""
    return {member.id: member.ports["admin"] for member in cluster.plan.of("member")}


def workload_of(cluster: RealCluster, **more: Any) -> MembersWorkload:
    """Clients of all members; they do not run yet."""
    return MembersWorkload(
        admin_ports(cluster),
        cluster.where.token(),
        lambda: Lookups(cluster.where, cluster.plan),
        **more,
    )


def leading(cluster: RealCluster) -> tuple[str, int]:
    """The member that says that it leads, and its term; empty and 0 while none does."""
    token = cluster.where.token()
    for member, port in admin_ports(cluster).items():
        try:
            url = f"{cluster.plan.admin_scheme}://{LOOPBACK}:{port}"
            health = AdminClient(url, token, ca=cluster.plan.admin_ca).health(timeout_s=1.0)
        except PBClusterError:
            continue
        if health.get("leader") is True:
            return member, int(health["term"])
    return "", 0


def leader_of(cluster: RealCluster) -> str:
    """The member that says that it leads; empty while none does."""
    return leading(cluster)[0]


def leaderships(cluster: RealCluster, lines: int = 6) -> str:
    """The last lines of each member's log that tell who leads."""
    told = []
    for member in cluster.ids("member"):
        log = cluster.where.log(member).read_text(encoding="utf-8", errors="replace")
        found = [line for line in log.splitlines() if "raft_member" in line]
        told += [f"--- {member}", *found[-lines:]]
    return "\n".join(told)


def caught_up(cluster: RealCluster) -> bool:
    """Whether the leader knows every member to have the whole log but for what is under way."""
    try:
        return all(m["behind"] < ACKS_AFTER for m in cluster.admin.all("members"))
    except PBClusterError:
        return False


@contextmanager
def members_only(**more: Any) -> Iterator[RealCluster]:
    """Running members and stand-in nodes, ready to create tenants."""
    with RealCluster(nodes=NODES, members=MEMBERS, **more) as cluster:
        cluster.start(*cluster.ids("member"))
        with StandInNodes(cluster.where, cluster.plan) as nodes:
            cluster.wait_until(nodes.registered, "the stand-in nodes to register")
            yield cluster


def one_kill(
    cluster: RealCluster, workload: MembersWorkload, number: int, dice: random.Random
) -> Kill:
    """Kill the leader under load and let it come back."""
    workload.wait_for_acks(ACKS_BEFORE)
    time.sleep(dice.random() * 0.2)
    cluster.wait_until(lambda: leader_of(cluster) != "", "a leader")
    victim, term = leading(cluster)
    seen, killed = len(workload.history), time.monotonic()
    cluster.kill9(victim)
    cluster.start(victim, wait=False)
    workload.wait_for_acks(ACKS_AFTER)
    gap_s = longest_wait(workload.history[seen:], killed)
    cluster.wait_serving(victim)
    cluster.wait_until(lambda: caught_up(cluster), f"{victim} to catch up", CAUGHT_UP_WITHIN_S)
    return Kill(number, victim, round(gap_s * 1000, 1), leading(cluster)[1] - term)


def soak(rounds: int, seed: int, tell: Callable[[str], object] = print) -> Found:
    """Run it.

    :param tell: called with each line of progress.
    """
    dice = random.Random(seed)
    kills: list[Kill] = []
    with members_only() as cluster:
        workload = workload_of(cluster, pause_s=PAUSE_S, seed=seed)
        with workload.running():
            for number in range(1, rounds + 1):
                kill = one_kill(cluster, workload, number, dice)
                kills.append(kill)
                tell(
                    f"kill {number}/{rounds}: {kill.victim}, next write after "
                    f"{kill.gap_ms:.0f} ms and {kill.terms} terms, {workload.acked} acknowledged"
                )
                if kill.gap_ms > 1000:
                    tell(f"over a second; the members say\n{leaderships(cluster)}")
        final = all_tenants(cluster.admin.all("tenants"))
        return Found(kills, judge(workload.history, final), workload.refusals)


def report(found: Found) -> str:
    """The figures as text."""
    figures = found.figures()
    gaps = figures["gap_ms"]
    told = [
        f"{figures['kills']} leaders killed, {figures['acknowledged']} tenants acknowledged, "
        f"{figures['reads']} reads, {figures['lookups']} look-ups",
        "from the kill to the next write, ms: "
        + ", ".join(f"{name} {value:.0f}" for name, value in gaps.items())
        + f"; over 1 s: {figures['over_1_s']}; votes split: {figures['split_votes']}",
        ", ".join(
            f"{name} {figures[name]}"
            for name in ("lost", "doubled", "stale", "changed", "invented", "refused")
        ),
    ]
    verdict = found.verdict
    for kind in ("lost", "doubled", "stale", "changed", "invented"):
        told += [f"{kind}: {sentence}" for sentence in getattr(verdict, kind)[:20]]
    return "\n".join([*told, *found.refusals[:20]])


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=100, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--seed", default=None, type=int, help="Of the random moments; default: the time.")
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON; progress to stderr.")
def main(rounds: int, seed: int | None, as_json: bool) -> None:
    """The command."""
    chosen = int(time.time()) if seed is None else seed
    click.echo(f"seed {chosen}", err=as_json)
    found = soak(rounds, chosen, lambda line: click.echo(line, err=as_json))
    click.echo(json.dumps({"seed": chosen} | found.figures()) if as_json else report(found))
    if not found.good:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
