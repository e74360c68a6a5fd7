"""``tenants archive|activate|delete``."""

from __future__ import annotations

import sys
from typing import Any

import click

from pbcluster import records
from pbcluster.cli import show
from pbcluster.cli.options import admin_of, dir_option, json_option
from pbcluster.errors import InvalidInput, NotFound


@click.command()
@click.argument("tenant")
@dir_option
@json_option
def archive(tenant: str, directory: str, as_json: bool) -> None:
    """Archive a tenant: nothing of it runs and no node has a copy; its data stays in S3.

    Requests to it are answered 503 until `pbcluster tenants activate`. Its name stays taken.
    """
    _, _, client = admin_of(directory)
    archived = client.archive_tenant(tenant)
    done = archived.get("status") == records.TenantStatus.ARCHIVED.value
    if as_json:
        show.print_json(archived | {"archived": done})
        return
    label = _label(archived, tenant)
    show.say(f"archived {label}" if done else f"{label} is being archived; it answers no more")


@click.command()
@click.argument("tenant")
@dir_option
@json_option
def activate(tenant: str, directory: str, as_json: bool) -> None:
    """Let an archived tenant answer again: its next request wakes it."""
    _, _, client = admin_of(directory)
    active = client.activate_tenant(tenant)
    if as_json:
        show.print_json(active)
        return
    show.say(f"{_label(active, tenant)} is {active.get('status')}; its next request wakes it")


@click.command()
@click.argument("tenant")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--purge-now",
    is_flag=True,
    help="Remove its data from S3 at once, not after the time that deleted tenants are kept; "
    "for a tenant that is deleted already give its id.",
)
@dir_option
@json_option
def delete(tenant: str, yes: bool, purge_now: bool, directory: str, as_json: bool) -> None:
    """Delete a tenant for good. Asks before it does, unless --yes is given."""
    _, _, client = admin_of(directory)
    found = _found(client, tenant, gone=purge_now)
    label = _label(found, tenant)
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidInput(
                f"deleting {label} cannot be undone: say --yes", field="yes", allowed="--yes"
            )
        click.confirm(f"Delete tenant {label} with all its data?", abort=True, err=True)
    # By id: the name could belong to another tenant by now.
    deleted = client.delete_tenant(str(found.get("id") or tenant), purge_now=purge_now)
    done = deleted.get("status") == records.TenantStatus.DELETED.value
    if as_json:
        show.print_json(deleted | {"deleted": done})
    else:
        show.say(f"deleted {label}" if done else f"{label} is being deleted; it answers no more")


def _found(client: Any, tenant: str, *, gone: bool) -> dict[str, Any]:
    """The tenant's record; of one that is deleted, which nobody shows any more, its id alone."""
    try:
        return dict(client.tenant(tenant))
    except NotFound:
        if gone and records.is_tenant_id(tenant):
            return {"id": tenant, "name": tenant}
        raise


def _label(found: dict[str, Any], tenant: str) -> str:
    return f"{found.get('name', tenant)} ({found.get('id', '')})"
