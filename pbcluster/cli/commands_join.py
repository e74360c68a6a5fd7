"""``join-tokens create|list|revoke`` on the first host, ``join`` on the others."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import sys
from pathlib import Path
from urllib.parse import quote

import click

from pbcluster import authority
from pbcluster.cli import join_token, joining, parcels, show
from pbcluster.cli.admin import AdminClient
from pbcluster.cli.commands_tokens import seconds_of
from pbcluster.cli.layout import ClusterDir, Plan, write_file
from pbcluster.cli.options import admin_of, dir_option, json_option
from pbcluster.errors import ConfigError, InvalidInput
from pbcluster.records import ProcessRole

#: Where ``join`` looks for its token if no option says.
TOKEN_VARIABLE = "PBCLUSTER_JOIN_TOKEN"


@click.group(name="join-tokens")
def join_tokens() -> None:
    """Tokens by which a process of another machine joins: one each, for a while, once."""


@join_tokens.command()
@click.option(
    "--role",
    type=click.Choice([role.value for role in ProcessRole]),
    required=True,
    help="What the process is.",
)
@click.option("--id", "name", help="Its id, never used before.  [default: a random one]")
@click.option(
    "--ttl", default="1h", show_default=True, help="How long it is valid, like 30m; 1m to 30d."
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False),
    help="Write the token into this file (mode 0600) instead of printing it.",
)
@dir_option
@json_option
def create(
    role: str, name: str | None, ttl: str, out: str | None, directory: str, as_json: bool
) -> None:
    """Make a token by which one process joins; it is shown only now.

    Run it where the cluster was made: the token seals the secrets that the process needs.

    \b
    Examples:
      pbcluster join-tokens create --role node --out node.token
      pbcluster join-tokens create --role member --id member_london --ttl 30m
    """
    lifetime_s = seconds_of(ttl)
    where, plan, client = admin_of(directory)
    parcels.check_open(where, plan)
    chosen = name or f"{role}_{secrets.token_hex(3)}"
    ca = (where.authority / "ca.pem").read_bytes()
    token = join_token.new(role, chosen, authority.fingerprint(ca), _urls(plan, client))
    parcel = join_token.seal(token, parcels.make(where, plan, role, chosen))
    body = {
        "tokenID": token.id,
        "role": role,
        "id": chosen,
        "sha256": hashlib.sha256(token.shown.encode()).hexdigest(),
        "parcel": base64.b64encode(parcel).decode(),
        "expiresIn": lifetime_s,
    }
    made = client.request("POST", "/join-tokens", body)
    text = join_token.encode(token)
    if out is not None:
        write_file(Path(out), text + "\n", 0o600)
    if as_json:
        show.print_json(made | ({"file": out} if out else {"token": text}))
        return
    if out is None:
        # One line that can be piped.
        sys.stdout.write(text + "\n")
    show.warn(
        f"{made['id']}: {role} {chosen}, until {made['expires']}; on the other machine: "
        f"pbcluster join --token-file FILE --dir {chosen}"
    )


def _urls(plan: Plan, client: AdminClient) -> tuple[str, ...]:
    """Admin APIs of all members, those of the first host before the others."""
    others = (str(member.get("admin", "")) for member in client.all("members"))
    return tuple(dict.fromkeys((*plan.admin_urls, *(url for url in others if url))))


@join_tokens.command(name="list")
@dir_option
@json_option
def list_command(directory: str, as_json: bool) -> None:
    """List the tokens; none of them is shown itself."""
    _, _, client = admin_of(directory)
    found = client.all("join-tokens")
    if as_json:
        show.print_json(found)
        return
    fields = ("id", "role", "processID", "status", "created", "createdBy", "expires")
    rows = [tuple(str(token.get(field) or "") for field in fields) for token in found]
    show.table(("id", "role", "for", "", "created", "by", "expires"), rows)


@join_tokens.command()
@click.argument("token_id")
@dir_option
@json_option
def revoke(token_id: str, directory: str, as_json: bool) -> None:
    """Revoke a token by its id; a process that joined by it stays."""
    _, _, client = admin_of(directory)
    gone = client.request("DELETE", f"/join-tokens/{quote(token_id, safe='')}")
    if as_json:
        show.print_json(gone)
    else:
        show.say(f"nobody joins by {token_id} any more")


@click.command(name="join")
@click.option(
    "--token",
    help="The token. Everybody on this machine sees it in the process list: better use one of "
    "the other ways.",
)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, allow_dash=True),
    help=f"File with the token, - for standard input.  [default: the variable {TOKEN_VARIABLE}]",
)
@click.option(
    "--address",
    metavar="IP",
    help="Address of this machine by which the others reach it.  [default: the one by which it "
    "reaches the first host]",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65000),
    help="Port of a node or gateway, or the first of a member's four; 0: any free ones.  "
    "[default: 8090, 8080; 8095, 5555, 5556 and 7000]",
)
@dir_option
@json_option
def join_command(
    token: str | None,
    token_file: str | None,
    address: str | None,
    port: int | None,
    directory: str,
    as_json: bool,
) -> None:
    """Make a directory for one process of a cluster whose first host is another machine.

    Keys are made here and stay here. Nothing is started. After a failure the same command goes on.

    \b
    Examples:
      pbcluster join --token-file node.token --dir /srv/node --address 10.0.0.2
      pbcluster up --dir /srv/node --detach
    """
    wanted = join_token.decode(_token_text(token, token_file))
    where = ClusterDir.at(directory)
    plan = joining.join(where, wanted, address, port, show.warn)
    process = plan.processes[0]
    if as_json:
        told = {"dir": str(where.root), "id": process.id, "role": process.kind}
        show.print_json(told | {"address": plan.address, "ports": process.ports})
        return
    show.say(f"{process.id} is a {process.kind} of the cluster {plan.cluster_id}")
    show.say(f"start it:   pbcluster up --dir {directory}")
    service = {"member": "pbcp", "node": "pbnode", "gateway": "pbgateway"}[process.kind]
    config = where.config(process.id)
    show.say(f"or:         twistd --nodaemon --reactor=pbuvloop {service} --config {config}")


def _token_text(token: str | None, file: str | None) -> str:
    """:raises InvalidInput: none was given, or two. :raises ConfigError: it cannot be read."""
    variable = os.environ.get(TOKEN_VARIABLE, "")
    if token and file:
        raise InvalidInput("give --token or --token-file, not both", field="token", allowed="one")
    if file == "-":
        return sys.stdin.read(join_token.MAX_TEXT + 1)
    if file:
        try:
            with Path(file).open(encoding="ascii", errors="replace") as stream:
                return stream.read(join_token.MAX_TEXT + 1)
        except OSError as error:
            raise ConfigError(f"cannot read {file}: {error.strerror}") from None
    if not (token or variable):
        rule = f"--token-file FILE, or the variable {TOKEN_VARIABLE}"
        raise InvalidInput(f"there is no token: give {rule}", field="token", allowed=rule)
    return token or variable
