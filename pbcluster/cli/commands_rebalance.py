"""``rebalance``: evens the nodes out, a few tenants at a time."""

from __future__ import annotations

from typing import Any

import click

from pbcluster.cli import show
from pbcluster.cli.admin import AdminClient
from pbcluster.cli.commands_migration import no_wait_option, timeout_option, watch
from pbcluster.cli.options import admin_of, dir_option, json_option
from pbcluster.errors import Conflict, InvalidInput, Unavailable

#: As the admin API allows.
MAX_AT_ONCE = 16


@click.command()
@click.option("--dry-run", is_flag=True, help="Show the moves, make none.")
@click.option("--status", is_flag=True, help="Show how far the last one is.")
@click.option("--cancel", is_flag=True, help="Begin no more moves; those under way end.")
@click.option(
    "--at-once",
    type=click.IntRange(1, MAX_AT_ONCE),
    default=4,
    show_default=True,
    help="Tenants that move at once.",
)
@no_wait_option
@timeout_option
@dir_option
@json_option
def rebalance(
    dry_run: bool,
    status: bool,
    cancel: bool,
    at_once: int,
    no_wait: bool,
    timeout_s: float,
    directory: str,
    as_json: bool,
) -> None:
    """Even the nodes out by the fewest moves; no request fails.

    It goes on when this command ends, whoever leads; a second one watches it.

    \b
    Example:
      pbcluster rebalance --dry-run
      pbcluster rebalance --at-once 2
    """
    if dry_run + status + cancel > 1:
        rule = "one of --dry-run, --status and --cancel"
        raise InvalidInput(f"say {rule}", field="dry-run", allowed=rule)
    _, _, client = admin_of(directory)
    if dry_run:
        _tell_plan(dict(client.request("GET", "/rebalance")), as_json)
        return
    if status or cancel:
        seen = _status(client) if status else dict(client.request("DELETE", "/rebalance"))
    else:
        seen = _begun(client, at_once)
        if not no_wait:
            seen = watch(lambda: _status(client), _progress, timeout_s)
    _tell(seen, as_json)
    if seen["state"] == "ended" and not (status or cancel):
        raise Unavailable(f"the nodes are not even: {seen['reason']}")


def _status(client: AdminClient) -> dict[str, Any]:
    return dict(client.request("GET", "/rebalance/status"))


def _begun(client: AdminClient, at_once: int) -> dict[str, Any]:
    """Begin one, or find that one is under way."""
    try:
        return dict(client.request("POST", "/rebalance", {"atOnce": at_once}))
    except Conflict:
        seen = _status(client)
        show.warn("a rebalancing is under way already")
        return seen


def _progress(seen: dict[str, Any]) -> tuple[float, str]:
    left, total = int(seen["left"]), int(seen["totalMoves"])
    if seen["state"] != "running":
        return 100.0, str(seen["state"])
    # It ends a moment after its last move, when a new plan is empty.
    share = 100.0 * (1 - left / max(total, left, 1))
    return min(share, 99.0), f"{left} of {max(total, left)} moves left"


def _tell_plan(plan: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show.print_json(plan)
        return
    rows = [(each["name"], each["sourceNode"], each["targetNode"]) for each in plan["moves"]]
    show.table(("tenant", "from", "to"), rows)
    show.warn(f"{plan['totalMoves']} moves" if rows else "the nodes are even")


def _tell(seen: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show.print_json(seen)
    elif seen["state"] == "running":
        show.say(f"the nodes are evened out: {seen['left']} of {seen['totalMoves']} moves left")
    elif seen["state"] == "done":
        show.say("the nodes are even")
    else:
        show.say(f"it ended: {seen['reason']}")
