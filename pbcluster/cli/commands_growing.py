"""``members add|remove|snapshot|recover``."""

from __future__ import annotations

from pathlib import Path

import click

from pbcluster import saved_state
from pbcluster.cli import growing, recovering, running, show
from pbcluster.cli.layout import ClusterDir, write_bytes
from pbcluster.cli.options import admin_of, dir_option, json_option
from pbcluster.generations import SETTLE_S


@click.command()
@click.option("--id", "name", help="Its name, never used before.  [default: the next member_N]")
@dir_option
@json_option
def add(name: str | None, directory: str, as_json: bool) -> None:
    """Start one more member and let it join; it votes once it has caught up.

    An even number of members survives no more failures than the odd one below it: add two.
    """
    with running.alone(ClusterDir.at(directory)):
        where, plan, client = admin_of(directory)
        chosen = name or growing.next_id(where, plan)
        growing.add(where, plan, client, chosen)
    show.warn(f"{chosen} joins as a learner; its log is {where.log(chosen)}")
    growing.wait_votes(client, chosen, show.warn)
    if as_json:
        show.print_json({"id": chosen, "voter": True})
        return
    show.say(f"{chosen} is a member with a vote")


@click.command()
@click.argument("member")
@click.option("--yes", is_flag=True, help="Do not ask.")
@dir_option
@json_option
def remove(member: str, yes: bool, directory: str, as_json: bool) -> None:
    """Take MEMBER out of the group for good and stop it; its id never comes back.

    A member that lost its disk is removed, and another one added in its place.
    """
    if not yes:
        click.confirm(f"remove {member} from the control plane?", abort=True)
    with running.alone(ClusterDir.at(directory)):
        where, plan, client = admin_of(directory)
        growing.remove(where, plan, client, member)
    if as_json:
        show.print_json({"removed": member})
        return
    if member in (process.id for process in plan.processes):
        show.say(
            f"{member} is no member any more and stops; its files stay in {where.data(member)}"
        )
    else:
        show.say(f"{member} is no member any more")
    now = where.load_plan()
    if now.admin_url != plan.admin_url:
        show.warn(f"the admin API of the first member is at {now.admin_url} now")


@click.command()
@click.argument("file", type=click.Path(dir_okay=False))
@dir_option
@json_option
def snapshot(file: str, directory: str, as_json: bool) -> None:
    """Save the whole control plane's state into FILE, for `members recover`.

    Do it regularly and keep the file elsewhere: it is what is left if all members lose their
    disks. Tenants' data is not in it, that is in S3.
    """
    _, _, client = admin_of(directory)
    data = client.download("/members/snapshot")
    saved = saved_state.unpack(data, "the answer")
    write_bytes(Path(file), data)
    told = {"file": file, "index": saved.index, "bytes": len(data), "clusterID": saved.cluster_id}
    if as_json:
        show.print_json(told)
        return
    show.say(f"saved the state at log index {saved.index} in {file} ({len(data)} bytes)")


@click.command()
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--of", default="", metavar="ID", help="FILE is of this other cluster.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--no-wait",
    is_flag=True,
    help="Do not wait for nodes of the former cluster to end: none of them uses this bucket.",
)
@dir_option
@json_option
def recover(file: str, of: str, yes: bool, no_wait: bool, directory: str, as_json: bool) -> None:
    """Begin the control plane anew from FILE, after the loss of ALL its members.

    Only while the cluster is stopped. The members begin with the state in FILE under a new cluster
    id, which is claimed in S3: nodes obey nobody else from then on, also if an old member comes
    back. What the old control plane acknowledged after FILE was written is lost: tenants created
    since then are unknown, their data stays in S3.
    """
    where = ClusterDir.at(directory)
    plan = where.load_plan()
    saved = saved_state.read(Path(file))
    if not yes:
        click.confirm(
            f"give up the state of all {len(plan.of('member'))} members and begin anew with "
            f"{file}, of {saved.at or 'unknown time'}, log index {saved.index}?",
            abort=True,
        )
    with running.alone(where):
        plan = where.load_plan()
        settle_s = 0.0 if no_wait else SETTLE_S
        fresh = recovering.recover(where, plan, Path(file), show.warn, of=of, settle_s=settle_s)
    if as_json:
        show.print_json({"clusterID": fresh.cluster_id, "former": plan.cluster_id})
        return
    show.say(f"the cluster is {fresh.cluster_id} now; start it: pbcluster up --dir {directory}")
