"""``tenants create|list|show|set|give-away``; ``login`` and ``logs``: ``commands_inside``."""

from __future__ import annotations

import math
import sys
from typing import Any
from urllib.parse import quote

import click

from pbcluster import records
from pbcluster.cli import commands_inside, show
from pbcluster.cli.admin import wait_tenant_answers
from pbcluster.cli.demo import generate_password
from pbcluster.cli.groups import SpreadGroup
from pbcluster.cli.options import admin_of, dir_option, json_option
from pbcluster.errors import InvalidInput

_MAX_PASSWORD_BYTES = 4096


_DURABILITIES = click.Choice([word.value for word in records.Durability])
_OUTAGES = click.Choice([word.value for word in records.OnOutage])
_SWITCH = click.Choice(["on", "off"])
_DURABLE_READS_HELP = "on: reads and events wait, too, until what they may show is in S3."
_OUTAGE_HELP = (
    "While S3 is away, acknowledge writes that one disk has, marked local (degrade), or refuse "
    "them (reject)."
)


def _settings(given: dict[str, str | None]) -> dict[str, Any]:
    """The options that were given, as fields of the admin API."""
    names = {
        "logs": "logs",
        "durability": "durability",
        "durable_reads": "durableReads",
        "on_s3_outage": "onS3Outage",
    }
    found: dict[str, Any] = {
        names[name]: word for name, word in given.items() if word is not None and name in names
    }
    if "durableReads" in found:
        found["durableReads"] = found["durableReads"] == "on"
    places = {name: given[name] for name in _PLACES if given.get(name) is not None}
    return found | ({"placement": places} if places else {})


_PLACES = ("region", "zone", "spread")


def _place_options(command: Any) -> Any:
    """Where a tenant must be."""
    for name, what in (
        ("spread", "Group whose tenants are kept on different nodes where that is possible."),
        ("zone", "Zone in which its node must be."),
        ("region", "Region in which its node must be."),
    ):
        command = click.option(f"--{name}", help=what)(command)
    return command


@click.group(
    cls=SpreadGroup,
    elsewhere={
        "abort-migration": "commands_migration.abort_migration",
        "activate": "commands_lives.activate",
        "archive": "commands_lives.archive",
        "delete": "commands_lives.delete",
        "domains": "commands_tokens.domains",
        "find": "commands_migration.find",
        "migrate": "commands_migration.migrate",
        "migration": "commands_migration.migration",
        "placement": "commands_migration.placement",
    },
)
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
    type=_DURABILITIES,
    help="sync: a write is acknowledged when it is in S3; async: at once.  [default: sync]",
)
@click.option("--durable-reads", type=_SWITCH, help=_DURABLE_READS_HELP + "  [default: off]")
@click.option("--on-s3-outage", type=_OUTAGES, help=_OUTAGE_HELP + "  [default: degrade]")
@_place_options
@dir_option
@json_option
def create(
    name: str,
    email: str,
    password_stdin: bool,
    directory: str,
    as_json: bool,
    **settings: str | None,
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
    created = client.create_tenant(name, email, password, **_settings(settings))
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
@click.option("--max-file-bytes", type=_COUNT, help="Bytes of its uploaded files and backups.")
@click.option("--max-db-bytes", type=_COUNT, help="Bytes of its database.")
@click.option(
    "--logs",
    type=click.Choice([word.value for word in records.TenantLogs]),
    help="What its PocketBase logs into its own database, from its next start on.",
)
@click.option(
    "--durability",
    type=_DURABILITIES,
    help="sync: a write is acknowledged when it is in S3; async: at once.",
)
@click.option("--durable-reads", type=_SWITCH, help=_DURABLE_READS_HELP)
@click.option("--on-s3-outage", type=_OUTAGES, help=_OUTAGE_HELP)
@_place_options
@dir_option
@json_option
def set_command(
    tenant: str,
    directory: str,
    as_json: bool,
    logs: str | None,
    durability: str | None,
    durable_reads: str | None,
    on_s3_outage: str | None,
    region: str | None,
    zone: str | None,
    spread: str | None,
    **wanted: float | None,
) -> None:
    """Set quotas and durability of a tenant; what is not given stays as it is.

    Quotas count at once; 0 is the platform's default. What is over a quota is answered 429 with
    Retry-After, a body that is too large 413, a write to a database that is too large 507. A quota
    below what is used already is accepted: `tenants show` tells it as overQuota. A new durability
    counts once all writes until then are in S3. Region, zone and spread count when the tenant needs
    a node again; an empty word takes a wish back.

    \b
    Examples:
      pbcluster tenants set shop --requests-per-second 50 --burst 200
      pbcluster tenants set shop --requests-per-second 0
      pbcluster tenants set shop --max-db-bytes 1073741824 --logs info
      pbcluster tenants set shop --durability async --durable-reads off
    """
    quotas = {records.json_name(name): value for name, value in wanted.items() if value is not None}
    given = {
        "logs": logs,
        "durability": durability,
        "durable_reads": durable_reads,
        "on_s3_outage": on_s3_outage,
        "region": region,
        "zone": zone,
        "spread": spread,
    }
    settings = _settings(given)
    if not quotas and not settings:
        allowed = ", ".join(f"--{name.replace('_', '-')}" for name in (*wanted, *given))
        raise InvalidInput(f"nothing to set; give one of {allowed}", field="quotas")
    if not all(math.isfinite(value) for value in quotas.values()):
        raise InvalidInput("requests-per-second must be a number", field="requests-per-second")
    _, _, client = admin_of(directory)
    if "placement" in settings:
        settings["placement"] = client.tenant(tenant)["placement"] | settings["placement"]
    changed = client.change_tenant(tenant, quotas, **settings)
    if as_json:
        show.print_json(changed)
        return
    rows = [(name, _text(value) if value else "default") for name, value in _quotas_of(changed)]
    if settings:
        names = (
            *("logs", "durability", "wantedDurability", "durableReads", "onS3Outage"),
            "placement",
        )
        rows += [
            (name, _text(changed.get(name))) for name in names if changed.get(name) is not None
        ]
    show.table(("setting", "value"), rows)
    if changed.get("overQuota"):
        show.warn(f"more than that is in use already: {_text(changed['overQuota'])}")


def _quotas_of(tenant: dict[str, Any]) -> list[tuple[str, Any]]:
    quotas = tenant.get("quotas")
    return list(quotas.items()) if isinstance(quotas, dict) else []


@tenants.command(name="give-away")
@click.argument("tenant")
@click.option("--accept-loss", is_flag=True, help="Writes that only its node has may be lost.")
@dir_option
@json_option
def give_away(tenant: str, accept_loss: bool, directory: str, as_json: bool) -> None:
    """Let another node have a degraded tenant whose node does not come back.

    Its node acknowledged writes, marked local, while S3 was away. They are lost by this.
    """
    if not accept_loss:
        raise InvalidInput(
            "writes that only the tenant's node has are lost by this: say --accept-loss",
            field="accept-loss",
            allowed="--accept-loss",
        )
    _, _, client = admin_of(directory)
    given = client.give_away(tenant)
    if as_json:
        show.print_json(given)
    else:
        show.say(f"{tenant} goes to another node; what only {given.get('nodeID')} had is lost")


@tenants.command()
@click.argument("tenant")
@click.argument("name")
@dir_option
@json_option
def rename(tenant: str, name: str, directory: str, as_json: bool) -> None:
    """Let TENANT be called NAME, and answer at NAME.BASE_DOMAIN, at once. Its id stays.

    It answers no more by its former name, which is free for another tenant then.
    """
    records.check_name(name)
    _, plan, client = admin_of(directory)
    path = f"/tenants/{quote(tenant, safe='')}/rename"
    renamed = client.request("POST", path, {"name": name})
    if as_json:
        show.print_json(renamed)
        return
    show.say(f"{renamed['id']} answers at {plan.tenant_url(name)}")


tenants.add_command(commands_inside.login)
tenants.add_command(commands_inside.logs)


def _text(value: Any) -> str:
    if isinstance(value, dict | list):
        return (
            ", ".join(f"{k}={v}" for k, v in value.items())
            if isinstance(value, dict)
            else (", ".join(map(str, value)))
        )
    return "" if value is None else str(value)
