"""``tokens issue|keys|rotate``, and ``tenants domains list|add|remove``."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import click

from pbcluster.cli import show
from pbcluster.cli.admin import AdminClient
from pbcluster.cli.options import admin_of, dir_option, json_option
from pbcluster.errors import Conflict, InvalidInput

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SPAN = re.compile(r"([0-9]{1,9})([smhd]?)")
SPAN_RULE = "a number with s, m, h or d, like 90s, 30m, 1h or 90d"
#: A tenant's version also changes when it starts or stops; more conflicts than that are no chance.
_TRIES = 5


def seconds_of(text: str) -> int:
    """``90s``, ``30m``, ``1h``, ``90d`` or a number of seconds.

    :raises InvalidInput: it is none of them.
    """
    match = _SPAN.fullmatch(text)
    if match is None:
        raise InvalidInput(
            f"expires {text!r} is not allowed: {SPAN_RULE}", field="expires", allowed=SPAN_RULE
        )
    return int(match[1]) * _UNITS_S[match[2] or "s"]


@click.group()
def tokens() -> None:
    """Platform tokens: they name a tenant where the host name of a request does not."""


@tokens.command()
@click.argument("tenant")
@click.option(
    "--expires", default="1h", show_default=True, help="How long it is valid, like 30m; 1m to 90d."
)
@dir_option
@json_option
def issue(tenant: str, expires: str, directory: str, as_json: bool) -> None:
    """Issue a token that names TENANT (a name or id); it is shown only now.

    It is sent to a gateway as `Authorization: Bearer TOKEN`. PocketBase's own token then goes into
    `X-PocketBase-Authorization`.
    """
    lifetime_s = seconds_of(expires)
    _, _, client = admin_of(directory)
    issued = client.request("POST", "/tokens", {"tenant": tenant, "expiresIn": lifetime_s})
    if as_json:
        show.print_json(issued)
        return
    # One line that can be piped, whatever its length.
    sys.stdout.write(issued["token"] + "\n")
    show.warn(f"names {issued['tenantID']} until {issued['expires']}")


@tokens.command()
@dir_option
@json_option
def keys(directory: str, as_json: bool) -> None:
    """List the keys that verify tokens: which signs, and how long former ones count."""
    _, _, client = admin_of(directory)
    found = client.all("tokens/keys")
    if as_json:
        show.print_json(found)
        return
    fields = ("kid", "status", "created", "retired", "tokensUntil")
    rows = [tuple(str(key.get(field) or "") for field in fields) for key in found]
    show.table(("key", "status", "created", "retired", "tokens until"), rows)


@tokens.command()
@click.option(
    "--now",
    is_flag=True,
    help="All tokens issued so far are refused from now on; without it they stay valid until they "
    "end.",
)
@dir_option
@json_option
def rotate(now: bool, directory: str, as_json: bool) -> None:
    """Sign with a new key from now on."""
    _, _, client = admin_of(directory)
    made = client.request("POST", "/tokens/keys", {"now": now})
    if as_json:
        show.print_json(made)
        return
    show.say(f"key {made['kid']} signs now")
    show.say("no token issued before is valid any more" if now else "tokens issued before stay")


@click.group()
def domains() -> None:
    """Custom domains of a tenant: further host names at which it answers."""


@domains.command(name="list")
@click.argument("tenant")
@dir_option
@json_option
def list_command(tenant: str, directory: str, as_json: bool) -> None:
    """List the custom domains of TENANT."""
    _, _, client = admin_of(directory)
    _show(client.tenant(tenant), as_json)


@domains.command()
@click.argument("tenant")
@click.argument("domain")
@dir_option
@json_option
def add(tenant: str, domain: str, directory: str, as_json: bool) -> None:
    """Let TENANT answer at DOMAIN too, at once. Its DNS must lead to a gateway."""
    _, _, client = admin_of(directory)
    wanted = domain.lower()
    _show(changed(client, tenant, lambda now: [*now, *({wanted} - set(now))]), as_json)


@domains.command()
@click.argument("tenant")
@click.argument("domain")
@dir_option
@json_option
def remove(tenant: str, domain: str, directory: str, as_json: bool) -> None:
    """Let TENANT answer at DOMAIN no more, at once."""
    _, _, client = admin_of(directory)
    unwanted = domain.lower()

    def without(now: list[str]) -> list[str]:
        if unwanted not in now:
            allowed = ", ".join(now) or "none: it has no custom domain"
            raise InvalidInput(
                f"{domain!r} is no custom domain of {tenant}; it has: {allowed}",
                field="domain",
                allowed=allowed,
            )
        return [each for each in now if each != unwanted]

    _show(changed(client, tenant, without), as_json)


def changed(
    client: AdminClient, tenant: str, change: Callable[[list[str]], list[str]]
) -> dict[str, Any]:
    """Change the custom domains of a tenant as they are now; what others change meanwhile stays.

    :returns: the tenant's record.
    :raises Conflict: another tenant has the domain, or the tenant is changed again and again.
    """
    for _ in range(_TRIES):
        found = client.tenant(tenant)
        body = {
            "customDomains": change(list(found["customDomains"])),
            "version": found["version"],
        }
        try:
            return dict(client.request("PUT", f"/tenants/{quote(found['id'], safe='')}", body))
        except Conflict as error:
            if client.tenant(found["id"])["version"] == found["version"]:
                raise  # not the version was wrong
            last = error
    raise last


def _show(tenant: dict[str, Any], as_json: bool) -> None:
    found = list(tenant["customDomains"])
    if as_json:
        show.print_json({"id": tenant["id"], "name": tenant["name"], "customDomains": found})
        return
    for domain in found:
        show.say(domain)
    if not found:
        show.warn(f"{tenant['name']} has no custom domain")
