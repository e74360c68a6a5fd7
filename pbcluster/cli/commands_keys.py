"""``keys rotate gateways|admin|processes|s3``."""

from __future__ import annotations

import time

import click

from pbcluster.cli import running, show
from pbcluster.cli.commands_restart import drain_options
from pbcluster.cli.layout import ClusterDir
from pbcluster.cli.options import admin_of, dir_option, json_option
from pbcluster.cli.restarting import Restarter
from pbcluster.cli.rotating import OVERLAP_S, Rotation

overlap_option = click.option(
    "--overlap",
    "overlap_s",
    type=click.FloatRange(0, 86400),
    default=OVERLAP_S,
    show_default=True,
    help="Seconds for which the former key still counts when everybody has the new one.",
)


@click.group()
def keys() -> None:
    """The keys by which the processes of a cluster know each other, and operators."""


@keys.group()
def rotate() -> None:
    """Put new keys in the place of those in use, while requests go on.

    Each time whoever checks a key first accepts both, then whoever shows it gets the new one, and
    then the former is forgotten. What was interrupted is done again by the same command. Everything
    has to run, in one directory: processes of other hosts have to be removed before.

    Keys of platform tokens are rotated by `pbcluster tokens rotate`, API tokens are replaced by
    `pbcluster api-tokens create` and `revoke`.
    """


def _done(what: str, ids: list[str], began: float, as_json: bool, text: str) -> None:
    seconds = round(time.monotonic() - began, 3)
    if as_json:
        show.print_json({"rotated": what, "processes": ids, "seconds": seconds})
    else:
        show.say(f"{text}, after {seconds:.1f} s")


@rotate.command()
@overlap_option
@dir_option
@json_option
def gateways(overlap_s: float, directory: str, as_json: bool) -> None:
    """Exchange the keys with which gateways sign requests to nodes. Nothing is restarted.

    A request that is on its way, signed with the former key, counts for --overlap seconds.
    """
    began = time.monotonic()
    with running.alone(ClusterDir.at(directory)):
        rotation, _ = _begin(directory, overlap_s)
        ids = rotation.gateways()
    _done("gateways", ids, began, as_json, f"{', '.join(ids)}: new keys")


@rotate.command()
@overlap_option
@dir_option
@json_option
def admin(overlap_s: float, directory: str, as_json: bool) -> None:
    """Exchange the cluster's own admin token. Nothing is restarted.

    The new one is in admin.token, and is not shown. Programs that have a copy of the former one get
    401 after --overlap seconds: give them API tokens instead.
    """
    began = time.monotonic()
    with running.alone(ClusterDir.at(directory)):
        rotation, _ = _begin(directory, overlap_s)
        rotation.admin()
    _done("admin", [], began, as_json, f"a new token is in {rotation.where.token_file}")


@rotate.command()
@drain_options
@dir_option
@json_option
def processes(no_drain: bool, timeout_s: float, directory: str, as_json: bool) -> None:
    """Exchange the CURVE pairs of all members, nodes and gateways. Each is restarted.

    By these they know each other on the connections of the control plane. It takes as long as
    `pbcluster restart --all`, and goes like it. At least three members have to vote.
    """
    began = time.monotonic()
    with running.alone(ClusterDir.at(directory)):
        rotation, restarter = _begin(directory, 0.0, no_drain, timeout_s)
        ids = rotation.processes(restarter)
    _done("processes", ids, began, as_json, f"{', '.join(ids)}: new keys")


@rotate.command()
@drain_options
@dir_option
@json_option
def s3(no_drain: bool, timeout_s: float, directory: str, as_json: bool) -> None:
    """Exchange the keys of the cluster's own S3. Nodes are restarted, S3 is not.

    With an S3 of yours it says what to do.
    """
    began = time.monotonic()
    with running.alone(ClusterDir.at(directory)):
        rotation, restarter = _begin(directory, 0.0, no_drain, timeout_s)
        ids = rotation.s3(restarter)
    _done("s3", ids, began, as_json, f"{', '.join(ids)} use new keys")


def _begin(
    directory: str, overlap_s: float, no_drain: bool = False, timeout_s: float = 0.0
) -> tuple[Rotation, Restarter]:
    where, plan, client = admin_of(directory)
    rotation = Rotation(where, plan, client, show.warn, overlap_s)
    rotation.check()
    return rotation, Restarter(where, client, show.warn, drain=not no_drain, drain_s=timeout_s)
