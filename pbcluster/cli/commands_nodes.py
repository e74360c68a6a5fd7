"""``nodes list``; the other commands of the group stand where it says."""

from __future__ import annotations

import click

from pbcluster.cli import show
from pbcluster.cli.groups import SpreadGroup
from pbcluster.cli.options import admin_of, dir_option, json_option


@click.group(
    cls=SpreadGroup,
    elsewhere={
        "drain": "commands_migration.drain",
        "remove": "commands_leave.remove_node",
        "undrain": "commands_migration.undrain",
    },
)
def nodes() -> None:
    """Look at the nodes as the control plane sees them."""


@nodes.command(name="list")
@dir_option
@json_option
def list_command(directory: str, as_json: bool) -> None:
    """List all nodes with their state, load and last heartbeat."""
    _, _, client = admin_of(directory)
    found = client.all("nodes")
    if as_json:
        show.print_json(found)
        return
    rows = [
        (
            str(node.get("id", "")),
            str(node.get("status", "")),
            f"{node.get('activeCount', 0)}/{node.get('capacity', 0)}",
            str(node.get("incarnation", "")),
            str(node.get("lastHeartbeat") or "never"),
            str(node.get("address", "")),
        )
        for node in found
    ]
    show.table(("id", "status", "tenants", "start", "last heartbeat", "address"), rows)
