"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from pbcluster.cli.admin import AdminClient
from pbcluster.cli.layout import DEFAULT_DIR, MAX_NODES, ClusterDir, Plan

#: A token of the admin API that commands use instead of the cluster's own.
TOKEN_VARIABLE = "PBCLUSTER_API_TOKEN"
F = TypeVar("F", bound=Callable[..., Any])

dir_option = click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False),
    default=DEFAULT_DIR,
    show_default=True,
    help="The cluster's directory.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

_PLAN_OPTIONS = (
    click.option(
        "--nodes",
        type=int,
        help=f"Nodes, 1 to {MAX_NODES}.  [default: 2, or as many as there are]",
    ),
    click.option(
        "--members",
        type=int,
        help="Control-plane members of a new cluster: 1, 3 or 5.  [default: 3]",
    ),
    click.option(
        "--gateway-port",
        type=click.IntRange(0, 65535),
        help="Public port; 0: any free one.  [default: 8080]",
    ),
    click.option(
        "--admin-port",
        type=click.IntRange(0, 65535),
        help="Port of the admin API; 0: any free one.  [default: 8095]",
    ),
    click.option(
        "--internal-port",
        type=click.IntRange(1024, 65000),
        help="First of the row of ports used between the processes.  "
        "[default: well-known ones, or those above the public ports]",
    ),
    click.option(
        "--base-domain",
        help="Tenants answer at NAME.BASE_DOMAIN.  [default: localhost]",
    ),
    click.option(
        "--address",
        metavar="IP",
        help="An address of this machine at which others reach its processes, so that they can "
        "join: see `pbcluster join-tokens create`.  [default: loopback only, or as it was]",
    ),
    click.option(
        "--binary",
        "binaries",
        metavar="NAME=PATH",
        multiple=True,
        callback=lambda _context, _option, given: given or None,
        help="Use another build of pocketbase, litestream or weed; may be repeated.",
    ),
    click.option(
        "--node-tls/--no-node-tls",
        default=None,
        help="TLS between gateways and nodes, both with certificates of the cluster's own "
        "authority.  [default: off, or as it was]",
    ),
    click.option(
        "--insecure-plain-sockets",
        is_flag=True,
        default=None,
        help="No encryption between the processes (they stay on loopback).",
    ),
)


def plan_options(command: F) -> F:
    """The options of ``init`` and ``up`` that say what the cluster consists of."""
    for option in reversed(_PLAN_OPTIONS):
        command = option(command)
    return command


def admin_of(directory: str) -> tuple[ClusterDir, Plan, AdminClient]:
    """The cluster in ``directory`` with a client of its admin API.

    :raises ConfigError: there is no cluster, or its token cannot be read.
    """
    where = ClusterDir.at(directory)
    plan = where.load_plan()
    token = os.environ.get(TOKEN_VARIABLE, "").strip() or where.token()
    return where, plan, AdminClient.of(plan, token)
