"""``members list``, ``members transfer`` and ``members remove``."""

from __future__ import annotations

import click

from pbcluster.cli import show
from pbcluster.cli.options import admin_of, dir_option, json_option


@click.group()
def members() -> None:
    """Look at the control plane's members, and change who leads."""


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


@members.command()
@click.argument("member")
@click.option("--yes", is_flag=True, help="Do not ask.")
@dir_option
@json_option
def remove(member: str, yes: bool, directory: str, as_json: bool) -> None:
    """Take MEMBER out of the group for good; its id never comes back."""
    if not yes:
        click.confirm(f"remove {member} from the control plane?", abort=True)
    _, _, client = admin_of(directory)
    client.request("DELETE", f"/members/{member}", timeout_s=20.0)
    if as_json:
        show.print_json({"removed": member})
        return
    show.say(f"{member} is no member any more; stop its process")
