"""``nodes remove`` and ``gateways list|remove``."""

from __future__ import annotations

import contextlib
import signal
from typing import Any
from urllib.parse import quote

import attrs
import click

from pbcluster.cli import initialise, procfs, running, show, state
from pbcluster.cli.commands_migration import timeout_option, wait_drained
from pbcluster.cli.layout import ClusterDir, Plan, write_file
from pbcluster.cli.options import admin_of, dir_option, json_option
from pbcluster.errors import NotFound


@click.command(name="remove")
@click.argument("node")
@click.option(
    "--force",
    is_flag=True,
    help="Do not move its tenants first: they are placed elsewhere as if it had died.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@timeout_option
@dir_option
@json_option
def remove_node(
    node: str, force: bool, yes: bool, timeout_s: float, directory: str, as_json: bool
) -> None:
    """Move all tenants off NODE, then remove it for good: its keys are revoked, its id never
    comes back.

    \b
    Example:
      pbcluster nodes remove node_2
    """
    where, plan, client = admin_of(directory)
    if not yes:
        click.confirm(f"remove {node} from the cluster for good?", abort=True)
    if not force:
        # One that joined and never came has nothing to move, and is no node yet.
        with contextlib.suppress(NotFound):
            wait_drained(client, node, timeout_s)
    path = f"/nodes/{quote(node, safe='')}{'?force=true' if force else ''}"
    told = dict(client.request("DELETE", path))
    _tell(told, _forget(where, plan, node), as_json)


@click.group()
def gateways() -> None:
    """The gateways that are let in."""


@gateways.command(name="list")
@dir_option
@json_option
def list_command(directory: str, as_json: bool) -> None:
    """List all gateways, and when and by which token each one joined."""
    _, _, client = admin_of(directory)
    found = client.all("gateways")
    if as_json:
        show.print_json(found)
        return
    rows = [
        tuple(str(row.get(name) or "") for name in ("id", "joined", "joinToken")) for row in found
    ]
    show.table(("id", "joined", "by"), rows)


@gateways.command()
@click.argument("gateway")
@click.option("--yes", is_flag=True, help="Do not ask.")
@dir_option
@json_option
def remove(gateway: str, yes: bool, directory: str, as_json: bool) -> None:
    """Remove GATEWAY for good: members and nodes refuse it, its id never comes back.

    Take it out of DNS, or of what balances load, before.
    """
    where, plan, client = admin_of(directory)
    if not yes:
        click.confirm(f"remove {gateway} from the cluster for good?", abort=True)
    told = dict(client.request("DELETE", f"/gateways/{quote(gateway, safe='')}"))
    _tell(told, _forget(where, plan, gateway), as_json)


def _forget(where: ClusterDir, plan: Plan, name: str) -> str:
    """Take it out of the plan of this directory, if it is there and not the last of its kind.

    :returns: what to tell about its process.
    """
    if plan.joined or name not in (process.id for process in plan.processes):
        return "stop it where it runs; its files there are of no use any more"
    with running.alone(where):
        gone = dict.fromkeys((*where.removed(), name))
        write_file(where.removed_file, "".join(f"{each}\n" for each in gone))
        if len(plan.of(plan.process(name).kind)) == 1:
            return "it is the last of its kind in this directory, so it stays in cluster.toml"
        rest = tuple(process for process in plan.processes if process.id != name)
        initialise.write_all(where, attrs.evolve(plan, processes=rest))
    who = state.supervisor(where)
    if who is not None:
        procfs.send(who, signal.SIGUSR1)
    return f"its process stops; its files stay in {where.data(name)}"


def _tell(told: dict[str, Any], process: str, as_json: bool) -> None:
    if as_json:
        show.print_json(told)
        return
    show.say(f"{told['id']} is removed for good: {process}")
    if told["left"]:
        show.warn(f"its {told['left']} tenants are placed elsewhere")
