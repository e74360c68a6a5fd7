"""``members list|transfer``; the other commands of the group stand where it says."""

from __future__ import annotations

import click

from pbcluster.cli import show
from pbcluster.cli.groups import SpreadGroup
from pbcluster.cli.options import admin_of, dir_option, json_option


@click.group(
    cls=SpreadGroup,
    elsewhere={
        "add": "commands_growing.add",
        "recover": "commands_growing.recover",
        "remove": "commands_growing.remove",
        "snapshot": "commands_growing.snapshot",
    },
)
def members() -> None:
    """The control plane's members: look, add, remove, hand over, save, recover."""


@members.command(name="list")
@dir_option
@json_option
def list_command(directory: str, as_json: bool) -> None:
    """List all members: who leads, how far each one's log is."""
    _, _, client = admin_of(directory)
    found = client.all("members")
    if as_json:
        show.print_json(found)
        return
    rows = [
        (
            str(member.get("id", "")),
            str(member.get("role", "")) + ("" if member.get("voter") else " (learner)"),
            str(member.get("index", "")),
            str(member.get("behind", "")),
            str(member.get("state", "")),
        )
        for member in found
    ]
    show.table(("id", "role", "log index", "behind", "replication"), rows)


@members.command()
@click.argument("member")
@dir_option
@json_option
def transfer(member: str, directory: str, as_json: bool) -> None:
    """Hand leadership over to MEMBER; requests go on meanwhile."""
    _, _, client = admin_of(directory)
    client.request("POST", "/members/transfer", {"to": member})
    if as_json:
        show.print_json({"to": member})
        return
    show.say(f"{member} is asked to lead; `pbcluster members list` shows who does")
