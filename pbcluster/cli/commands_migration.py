"""``tenants migrate|migration|abort-migration|placement|find``, ``nodes drain|undrain``: where
tenants are and where they go."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pbcluster.cli import show
from pbcluster.cli.admin import AdminClient
from pbcluster.cli.options import admin_of, dir_option, json_option
from pbcluster.errors import DeadlineExceeded, InvalidInput, Unavailable

POLL_S = 0.1
DEFAULT_TIMEOUT_S = 600.0
#: Phase → how much of a migration is done when it begins.
_DONE_AT = {"preparing": 0, "draining": 50, "switching": 75, "done": 100, "aborted": 100}
ENDS = ("done", "aborted")

timeout_option = click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(1, 86400),
    default=DEFAULT_TIMEOUT_S,
    show_default=True,
    help="Seconds to watch; what is under way goes on after that.",
)
no_wait_option = click.option("--no-wait", is_flag=True, help="Begin it, and return at once.")


def _path(kind: str, key: str, what: str) -> str:
    return f"/{kind}/{quote(key, safe='')}/{what}"


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        console=show.err(),
        transient=True,
    )


def watch(
    look: Callable[[], dict[str, Any]],
    progress: Callable[[dict[str, Any]], tuple[float, str]],
    timeout_s: float,
) -> dict[str, Any]:
    """Look again and again, with a progress bar on a terminal, until all of it is done.

    :param progress: what was seen → percent done, and a line.
    :raises DeadlineExceeded: it is not done after ``timeout_s`` seconds.
    """
    until = time.monotonic() + timeout_s
    with _bar() as bar:
        task = bar.add_task("", total=100)
        while True:
            seen = look()
            percent, line = progress(seen)
            bar.update(task, completed=percent, description=line)
            if percent >= 100:
                return seen
            if time.monotonic() >= until:
                raise DeadlineExceeded(f"not done after {timeout_s:.0f} s: {line}; it goes on")
            time.sleep(POLL_S)


# -- one tenant -----------------------------------------------------------------------------------


@click.command()
@click.argument("tenant")
@click.option("--to", "node", required=True, help="Id of the node that shall have it.")
@no_wait_option
@timeout_option
@dir_option
@json_option
def migrate(
    tenant: str, node: str, no_wait: bool, timeout_s: float, directory: str, as_json: bool
) -> None:
    """Move a tenant to another node while it serves; no request fails.

    \b
    Example:
      pbcluster tenants migrate shop --to node_2
    """
    _, _, client = admin_of(directory)
    record = client.request("POST", _path("tenants", tenant, "migrate"), {"targetNode": node})
    if not no_wait:
        record = watch(lambda: _migration(client, record), _migration_progress, timeout_s)
    _tell_migration(tenant, record, as_json)


def _migration(client: AdminClient, record: dict[str, Any]) -> dict[str, Any]:
    # By id: the name could belong to another tenant by now.
    return dict(client.request("GET", _path("tenants", str(record["tenantID"]), "migration")))


def _migration_progress(record: dict[str, Any]) -> tuple[float, str]:
    phase = str(record["phase"])
    percent = _DONE_AT.get(phase, 0)
    if phase == "preparing" and record.get("warmed"):
        percent = 40
    return percent, f"{phase} on {record['targetNode']}"


def _tell_migration(tenant: str, record: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show.print_json(record)
    elif record["phase"] not in ENDS:
        show.say(f"{tenant} is {record['phase']}: {record['sourceNode']} → {record['targetNode']}")
    if record["phase"] == "aborted":
        raise Unavailable(f"the migration of {tenant} was aborted: {record['reason']}")
    if record["phase"] == "done" and not as_json:
        took = record["durations"]
        held = took.get("draining", 0.0) + took.get("switching", 0.0)
        show.say(
            f"{tenant} is on {record['targetNode']}: {took['total']:.2f} s, of which its requests "
            f"were held for {held:.2f} s"
        )


@click.command()
@click.argument("tenant")
@dir_option
@json_option
def migration(tenant: str, directory: str, as_json: bool) -> None:
    """Show how far the last migration of a tenant is."""
    _, _, client = admin_of(directory)
    record = dict(client.request("GET", _path("tenants", tenant, "migration")))
    if as_json:
        show.print_json(record)
        return
    rows = [
        ("phase", record["phase"]),
        ("from", record["sourceNode"]),
        ("to", record["targetNode"]),
        ("copy", f"{record['warmBytes']} bytes" if record["warmed"] else "not yet"),
        ("gateways that held", str(record["gateways"])),
        *((f"{name}, s", f"{value:.3f}") for name, value in record["durations"].items()),
        ("reason", record["reason"]),
    ]
    show.table(("migration", record["id"]), [row for row in rows if row[1]])


@click.command(name="abort-migration")
@click.argument("tenant")
@dir_option
@json_option
def abort_migration(tenant: str, directory: str, as_json: bool) -> None:
    """End the migration of a tenant; before the switch it stays where it is."""
    _, _, client = admin_of(directory)
    record = dict(client.request("DELETE", _path("tenants", tenant, "migration")))
    if as_json:
        show.print_json(record)
    else:
        show.say(f"the migration of {tenant} was aborted")


@click.command()
@click.argument("tenant")
@dir_option
@json_option
def placement(tenant: str, directory: str, as_json: bool) -> None:
    """Show where a tenant would go if it had to leave its node, and why."""
    _, _, client = admin_of(directory)
    shown = dict(client.request("GET", _path("tenants", tenant, "placement")))
    if as_json:
        show.print_json(shown)
        return
    rows = [(shown["next"], "would get it", shown["why"])] if shown["next"] else []
    rows += [(node, "", why) for node, why in sorted(shown["reasons"].items())]
    show.table(("node", "", "reason"), rows)


@click.command()
@click.argument("tenant")
@dir_option
@json_option
def find(tenant: str, directory: str, as_json: bool) -> None:
    """Ask every node whether a tenant runs there, and put right what should not be."""
    _, _, client = admin_of(directory)
    shown = dict(client.request("GET", _path("tenants", tenant, "find")))
    if as_json:
        show.print_json(shown)
        return
    rows = [(each["nodeID"], str(each["epoch"]), each["state"]) for each in shown["found"]]
    rows += [(node, "", "does not answer") for node in shown["silent"]]
    show.table(("node", "epoch", "state"), rows)
    for line in shown["corrected"]:
        show.warn(line)


# -- nodes ----------------------------------------------------------------------------------------


def wait_drained(client: AdminClient, node: str, timeout_s: float) -> dict[str, Any]:
    """Have all tenants moved off a node.

    :param timeout_s: how long to watch; 0: not at all.
    :returns: how far it is. :raises DeadlineExceeded: some are left after that time.
    """
    seen = dict(client.request("POST", _path("nodes", node, "drain")))
    began_with = int(seen["left"])

    def progress(now: dict[str, Any]) -> tuple[float, str]:
        if not now["drainWanted"]:
            raise InvalidInput(f"the drain of {node} was ended by somebody else", field="node")
        left = int(now["left"])
        # Others may have come to it just before it was drained.
        share = 100.0 * (1 - left / max(began_with, left, 1))
        aborted = len(now["aborted"])
        return (share if left else 100.0), (
            f"{left} of {max(began_with, left)} tenants left on {node}"
            + (f", {aborted} could not move yet" if aborted else "")
        )

    if not timeout_s:
        return seen
    look = lambda: dict(client.request("GET", _path("nodes", node, "drain")))  # noqa: E731
    return watch(look, progress, timeout_s)


@click.command()
@click.argument("node")
@no_wait_option
@timeout_option
@dir_option
@json_option
def drain(node: str, no_wait: bool, timeout_s: float, directory: str, as_json: bool) -> None:
    """Move all tenants off a node, a few at a time; it gets no others until it is undrained."""
    _, _, client = admin_of(directory)
    seen = wait_drained(client, node, 0.0 if no_wait else timeout_s)
    if as_json:
        show.print_json(seen)
    elif seen["left"]:
        show.say(f"{node} is being drained: {seen['left']} tenants are left")
    else:
        show.say(f"{node} has no tenants any more")


@click.command()
@click.argument("node")
@dir_option
@json_option
def undrain(node: str, directory: str, as_json: bool) -> None:
    """Use a node again that was drained."""
    _, _, client = admin_of(directory)
    seen = dict(client.request("POST", _path("nodes", node, "undrain")))
    if as_json:
        show.print_json(seen)
    else:
        show.say(f"{node} takes tenants again")
