"""``api-tokens create|list|revoke`` and ``audit``."""

from __future__ import annotations

import sys
from urllib.parse import quote, urlencode

import click

from pbcluster import records
from pbcluster.cli import show
from pbcluster.cli.commands_tokens import seconds_of
from pbcluster.cli.options import admin_of, dir_option, json_option

_MOST_ENTRIES = 10_000
_PER_PAGE = 500


@click.group(name="api-tokens")
def api_tokens() -> None:
    """Tokens of the admin API: for people and programs that shall not have the cluster's own.

    A command uses the one in the environment variable PBCLUSTER_API_TOKEN, if it is set.
    """


@api_tokens.command()
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice([role.value for role in records.Role]),
    required=True,
    help="viewer: look; operator: also work with tenants and nodes; admin: everything.",
)
@click.option(
    "--expires", default="90d", show_default=True, help="How long it is valid, like 12h; from 1m."
)
@dir_option
@json_option
def create(name: str, role: str, expires: str, directory: str, as_json: bool) -> None:
    """Make a token named NAME; it is shown only now.

    \b
    Examples:
      pbcluster api-tokens create ci --role operator --expires 30d
      curl -H "Authorization: Bearer TOKEN" http://127.0.0.1:8095/api/cp/tenants
    """
    body = {"name": name, "role": role, "expiresIn": seconds_of(expires)}
    _, _, client = admin_of(directory)
    made = client.request("POST", "/api-tokens", body)
    if as_json:
        show.print_json(made)
        return
    # One line that can be piped.
    sys.stdout.write(made["token"] + "\n")
    show.warn(f"{made['id']}, {made['role']}, valid until {made['expires']}")


@api_tokens.command(name="list")
@dir_option
@json_option
def list_command(directory: str, as_json: bool) -> None:
    """List all tokens; none of them is shown itself."""
    _, _, client = admin_of(directory)
    found = client.all("api-tokens")
    if as_json:
        show.print_json(found)
        return
    fields = ("id", "name", "role", "created", "createdBy", "expires")
    rows = [
        (*(str(token.get(field) or "") for field in fields), "ended" if token["expired"] else "")
        for token in found
    ]
    show.table(("id", "name", "role", "created", "by", "expires", ""), rows)


@api_tokens.command()
@click.argument("token_id")
@dir_option
@json_option
def revoke(token_id: str, directory: str, as_json: bool) -> None:
    """Let TOKEN_ID, as `list` shows it, be valid no more, at once."""
    _, _, client = admin_of(directory)
    revoked = client.request("DELETE", f"/api-tokens/{quote(token_id, safe='')}")
    if as_json:
        show.print_json(revoked)
        return
    show.say(f"{revoked['id']} ({revoked['name']}) is valid no more")


@click.command()
@click.option(
    "-n",
    "count",
    type=click.IntRange(1, _MOST_ENTRIES),
    default=30,
    show_default=True,
    help="So many entries, the newest.",
)
@click.option(
    "--filter",
    "wanted",
    default="",
    help="Only those that match, like \"action ~ 'tenant' && at > '2026-11-26'\".",
)
@dir_option
@json_option
def audit(count: int, wanted: str, directory: str, as_json: bool) -> None:
    """Show who changed what, when and from where, the newest last."""
    _, _, client = admin_of(directory)
    found: list[dict[str, object]] = []
    for page in range(1, -(-count // _PER_PAGE) + 1):
        query = urlencode({"page": page, "perPage": min(count, _PER_PAGE), "filter": wanted})
        items = client.request("GET", f"/audit?{query}")["items"]
        found += items
        if len(items) < min(count, _PER_PAGE):
            break
    found = found[:count][::-1]
    if as_json:
        show.print_json(found)
        return
    fields = ("at", "actor", "address", "action", "target", "detail", "outcome")
    show.table(
        ("when", "who", "from", "what", "of", "", "outcome"),
        [tuple(str(entry.get(field) or "") for field in fields) for entry in found],
    )
