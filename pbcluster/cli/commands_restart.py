"""``restart``: processes are replaced one after the other while requests go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import attrs
import click

from pbcluster.cli import running, show
from pbcluster.cli.commands_migration import DEFAULT_TIMEOUT_S
from pbcluster.cli.options import admin_of, dir_option, json_option
from pbcluster.cli.restarting import Restarter
from pbcluster.errors import InvalidInput

F = TypeVar("F", bound=Callable[..., Any])

_DRAIN_OPTIONS = (
    click.option(
        "--no-drain",
        is_flag=True,
        help="Do not drain a node: it lets running tenants go as it ends, for a while "
        "(drain_on_stop_s); requests to those that are left wait until it is back.",
    ),
    click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(1, 86400),
        default=DEFAULT_TIMEOUT_S,
        show_default=True,
        help="Seconds that the drain of one node may take.",
    ),
)


def drain_options(command: F) -> F:
    """The options of commands that restart nodes."""
    for option in reversed(_DRAIN_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("process", required=False)
@click.option("--all", "everything", is_flag=True, help="Every member, node and gateway in turn.")
@drain_options
@dir_option
@json_option
def restart(
    process: str | None,
    everything: bool,
    no_drain: bool,
    timeout_s: float,
    directory: str,
    as_json: bool,
) -> None:
    """Replace PROCESS by a new one, or all of them in turn, while requests go on.

    The new ones run the installed release with the settings of cluster.toml as they are now: so it
    is also how a setting is changed, and how a release is brought in.

    \b
    gateway  the new one takes the listening sockets over and serves before
             the former one drains; no connection is refused
    node     its tenants move to other nodes, it is replaced, and takes
             tenants again; where no other node takes them, requests wait
             until it is back
    member   one that leads hands over; the next one's turn comes when all
             follow the log again
    s3_1     not part of --all: while it starts writes wait, or are refused

    If one does not come to serve, the command says so and stops there; nothing further is touched,
    and the rest goes on. Only processes of this directory are restarted: run it on each host.

    \b
    Examples:
      pbcluster restart gateway_1
      pbcluster restart --all
    """
    if everything == bool(process):
        raise InvalidInput("name one process, or say --all", field="process", allowed="one of both")
    where, plan, client = admin_of(directory)
    restarter = Restarter(where, client, show.warn, drain=not no_drain, drain_s=timeout_s)
    with running.alone(where):
        if process:
            done = [restarter.one(plan, plan.process(process))]
        else:
            done = list(restarter.all(plan))
    rows = [attrs.asdict(one) for one in done]
    if as_json:
        show.print_json({"restarted": rows} if everything else rows[0])
        return
    show.table(
        ("process", "pid", "seconds", "tenants moved"),
        [
            (one.id, str(one.pid), f"{one.seconds:.1f}", str(one.moved) if one.moved else "")
            for one in done
        ],
    )
