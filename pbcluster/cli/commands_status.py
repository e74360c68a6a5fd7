"""``status``."""

from __future__ import annotations

import click

from pbcluster.cli import show
from pbcluster.cli.layout import ClusterDir
from pbcluster.cli.options import dir_option, json_option
from pbcluster.cli.status import status as look
from pbcluster.cli.status import summary


@click.command()
@dir_option
@json_option
def status(directory: str, as_json: bool) -> None:
    """Show every process of a cluster: where it is, what it does, who leads."""
    where = ClusterDir.at(directory)
    found = look(where)
    if as_json:
        show.print_json(found.content)
        return
    show.say(f"cluster    {where.root}   {found.phase}")
    for line in summary(where.load_plan()):
        show.say(line)
    rows = [
        (
            row["id"] + (" (leader)" if row["leader"] else ""),
            row["state"],
            str(row["pid"] or ""),
            row["address"],
            row["admin"] or "",
        )
        for row in found.content["processes"]
    ]
    show.say("")
    show.table(("process", "state", "pid", "address", "admin"), rows)
