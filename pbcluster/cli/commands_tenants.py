"""``tenants create|list|show|set|delete``."""

from __future__ import annotations

import math
import sys
from typing import Any

import click

from pbcluster import records
from pbcluster.cli import show
from pbcluster.cli.admin import wait_tenant_answers
from pbcluster.cli.demo import generate_password
from pbcluster.cli.options import admin_of, dir_option, json_option
from pbcluster.errors import InvalidInput

_MAX_PASSWORD_BYTES = 4096


@click.group()
def tenants() -> None:
    """Create, list, show, change and delete tenants. A tenant is named by its name or its id."""


@tenants.command()
@click.argument("name")
@click.option("--superuser", "email", required=True, help="Email of its first superuser.")
@click.option(
    "--password-stdin",
    is_flag=True,
    help="Read the superuser's password from standard input (its first line); "
    "without it one is generated and shown once.",
)
@click.option(
    "--durability",
    type=click.Choice([word.value for word in records.Durability]),
    help="sync: a write is acknowledged when it is in S3; async: at once.  [default: sync]",
)
@dir_option
@json_option
def create(
    name: str,
    email: str,
    password_stdin: bool,
    durability: str | None,
    directory: str,
    as_json: bool,
) -> None:
    """Create a tenant; returns when it answers through the gateway.

    \b
    Examples:
      pbcluster tenants create shop --superuser me@example.com
      pbcluster tenants create shop --superuser me@example.com --password-stdin < password.txt
    """
    records.check_name(name)
    password = _password_from_stdin() if password_stdin else generate_password()
    _, plan, client = admin_of(directory)
    more = {"durability": durability} if durability else {}
    created = client.create_tenant(name, email, password, **more)
    wait_tenant_answers(plan.gateway_url, f"{name}.{plan.base_domain}")
    url = plan.tenant_url(name)
    facts: dict[str, Any] = {"url": url, "dashboard": f"{url}/_/", "superuser": email}
    if not password_stdin:
        facts["password"] = password
    if as_json:
        show.print_json(created | facts)
        return
    show.say(f"tenant {name!r} answers: {url}")
    show.say(f"dashboard  {facts['dashboard']}")
    show.say(f"login      {email}")
    if not password_stdin:
        show.say(f"password   {password}   (shown only now)")


def _password_from_stdin() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, err=True))
    line = sys.stdin.readline(_MAX_PASSWORD_BYTES).rstrip("\r\n")
    if not line:
        raise InvalidInput(
            "standard input holds no password; pass it as its first line",
            field="password",
            allowed="a line that is not empty",
        )
    return line


@tenants.command(name="list")
@dir_option
@json_option
def list_command(directory: str, as_json: bool) -> None:
    """List all tenants."""
    _, plan, client = admin_of(directory)
    found = client.all("tenants")
    if as_json:
        show.print_json(found)
        return
    rows = [
        (
            str(tenant.get("name", "")),
            str(tenant.get("status", "")),
            str(tenant.get("nodeID", "")),
            str(tenant.get("epoch", "")),
            str(tenant.get("id", "")),
            plan.tenant_url(str(tenant.get("name", ""))),
        )
        for tenant in found
    ]
    show.table(("name", "status", "node", "epoch", "id", "url"), rows)


@tenants.command(name="show")
@click.argument("tenant")
@dir_option
@json_option
def show_command(tenant: str, directory: str, as_json: bool) -> None:
    """Show all that is known of one tenant."""
    _, plan, client = admin_of(directory)
    found = client.tenant(tenant)
    found["url"] = plan.tenant_url(str(found.get("name", "")))
    if as_json:
        show.print_json(found)
        return
    show.table(("field", "value"), [(name, _text(value)) for name, value in found.items()])


_MOST = 2**53 - 1
_COUNT = click.IntRange(0, _MOST)


@tenants.command(name="set")
@click.argument("tenant")
@click.option(
    "--requests-per-second", type=click.FloatRange(0, _MOST), help="Requests a second on average."
)
@click.option("--burst", type=_COUNT, help="Requests at once after a rest.")
@click.option("--concurrent-requests", type=_COUNT, help="Requests under way at once.")
@click.option("--event-streams", type=_COUNT, help="Event streams (realtime) open at once.")
@click.option("--max-body-bytes", type=_COUNT, help="Bytes of a request's body.")
@dir_option
@json_option
def set_command(tenant: str, directory: str, as_json: bool, **wanted: float | None) -> None:
    """Set quotas of a tenant; what is not given stays as it is. They count at once.

    0 is the platform's default. What is over a quota is answered 429 with Retry-After, a body that
    is too large 413.

    \b
    Examples:
      pbcluster tenants set shop --requests-per-second 50 --burst 200
      pbcluster tenants set shop --requests-per-second 0
    """
    quotas = {records.json_name(name): value for name, value in wanted.items() if value is not None}
    if not quotas:
        allowed = ", ".join(f"--{name.replace('_', '-')}" for name in wanted)
        raise InvalidInput(f"nothing to set; give one of {allowed}", field="quotas")
    if not all(math.isfinite(value) for value in quotas.values()):
        raise InvalidInput("requests-per-second must be a number", field="requests-per-second")
    _, _, client = admin_of(directory)
    changed = client.set_quotas(tenant, quotas)
    if as_json:
        show.print_json(changed)
        return
    rows = [(name, _text(value) if value else "default") for name, value in _quotas_of(changed)]
    show.table(("quota", "value"), rows)


def _quotas_of(tenant: dict[str, Any]) -> list[tuple[str, Any]]:
    quotas = tenant.get("quotas")
    return list(quotas.items()) if isinstance(quotas, dict) else []


def _text(value: Any) -> str:
    if isinstance(value, dict | list):
        return (
            ", ".join(f"{k}={v}" for k, v in value.items())
            if isinstance(value, dict)
            else (", ".join(map(str, value)))
        )
    return "" if value is None else str(value)
