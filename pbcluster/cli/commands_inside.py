"""``tenants login|logs``: ways into a tenant for operators.

A token is shown once, on standard output, and stands in no file and no argument. What a tenant
printed comes escaped from its node; it is escaped here again, since a terminal obeys what it is
shown.
"""

from __future__ import annotations

import json
import time
import unicodedata
from typing import Any

import click

from pbcluster.cli import show
from pbcluster.cli.admin import AdminClient
from pbcluster.cli.options import admin_of, dir_option, json_option
from pbcluster.errors import CallerError, PBClusterError

MOST_MINUTES = 60
MOST_LINES = 500
FOLLOW_POLL_S = 1.0
#: While one follows, the control plane or the node may be away so long.
FOLLOW_PATIENCE_S = 60.0
#: By which PocketBase's dashboard keeps its sign-in in the browser.
_KEPT_AS = "__pb_superusers__/_"
_SUPERUSERS = {"collectionId": "pbc_3142635823", "collectionName": "_superusers"}


@click.command()
@click.argument("tenant")
@click.option("--as", "email", default="", help="Email of the superuser.  [default: its first one]")
@click.option(
    "--minutes",
    type=click.IntRange(1, MOST_MINUTES),
    default=15,
    show_default=True,
    help="How long the token is valid; it cannot be renewed.",
)
@dir_option
@json_option
def login(tenant: str, email: str, minutes: int, directory: str, as_json: bool) -> None:
    """Get a short token of one of a tenant's superusers; it is shown once.

    The audit trail tells who asked, when and from where. The tenant is woken if it sleeps.

    \b
    Examples:
      pbcluster tenants login shop
      pbcluster tenants login shop --as ann@example.com --minutes 5
    """
    _, plan, client = admin_of(directory)
    found = client.login(tenant, email, minutes * 60)
    name = str(found.get("host", "")).partition(".")[0]
    url = plan.tenant_url(name)
    found |= {"url": url, "dashboard": f"{url}/_/"}
    if as_json:
        show.print_json(found)
        return
    show.say(f"superuser  {printable(str(found['email']))}")
    show.say(f"token      {found['token']}   (shown only now, until {found['expires']})")
    show.say(f"API        {url}/api/ with the header Authorization: TOKEN")
    show.say(f"dashboard  {found['dashboard']}: open it, then run in the browser's console")
    show.say(f"           {sign_in(found)}")


def sign_in(found: dict[str, Any]) -> str:
    """JavaScript that makes the dashboard's page use the token, for the browser's console.

    :param found: as ``AdminClient.login`` gave it.
    """
    record = {"id": found["recordID"], "email": found["email"], **_SUPERUSERS}
    kept = json.dumps(json.dumps({"token": found["token"], "record": record}))
    return f"localStorage.setItem({json.dumps(_KEPT_AS)}, {kept}); location.reload()"


@click.command()
@click.argument("tenant")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is printed from now on.")
@click.option(
    "-n",
    "most",
    type=click.IntRange(1, MOST_LINES),
    default=100,
    show_default=True,
    help="So many of the last lines.",
)
@dir_option
@json_option
def logs(tenant: str, follow: bool, most: int, directory: str, as_json: bool) -> None:
    """Show what a tenant's PocketBase printed last, on the node that has it now.

    Nodes keep the last lines in memory. Tokens are left out, control characters are escaped. What
    PocketBase logs into its own database is seen in its dashboard (`tenants set NAME --logs`).

    \b
    Examples:
      pbcluster tenants logs shop
      pbcluster tenants logs shop -f -n 10
    """
    _, _, client = admin_of(directory)
    found = client.log_lines(tenant, "", most)
    _show(found, as_json)
    while follow:
        time.sleep(FOLLOW_POLL_S)
        found = _next(client, tenant, found)
        _show(found, as_json)


def _next(client: AdminClient, tenant: str, last: dict[str, Any]) -> dict[str, Any]:
    """What came since ``last``; waits while the control plane or the node is away.

    :raises PBClusterError: it stays away, or the tenant is gone.
    """
    until = time.monotonic() + FOLLOW_PATIENCE_S
    told = False
    while True:
        try:
            found = client.log_lines(tenant, str(last["cursor"]), MOST_LINES)
        except CallerError:
            raise
        except PBClusterError as error:
            if time.monotonic() >= until:
                raise
            if not told:
                show.warn(f"waiting: {error}")
            told = True
            time.sleep(FOLLOW_POLL_S)
            continue
        if found["nodeID"] != last["nodeID"]:
            show.warn(f"the tenant is on {found['nodeID']} now")
        if found["missed"]:
            show.warn(f"{found['missed']} lines were printed too fast and are gone")
        return found


def _show(found: dict[str, Any], as_json: bool) -> None:
    lines = [printable(str(line)) for line in found["lines"]]
    for line in lines:
        if as_json:
            click.echo(json.dumps({"node": found["nodeID"], "line": line}))
        else:
            show.say(line)


def printable(text: str) -> str:
    """``text`` on one line, without what a terminal would obey."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        each
        if each == "\t" or unicodedata.category(each)[0] not in "CZ" or each == " "
        else each.encode("unicode_escape").decode("ascii")
        for each in text
    )
