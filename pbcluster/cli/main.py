"""The entry point ``pbcluster``: all commands under one name, every failure as one sentence.

Exit codes: 0 done; 1 it could not be done; 2 the request or the configuration is wrong.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from pbcluster import compiled
from pbcluster.cli import show
from pbcluster.cli.groups import command_at
from pbcluster.errors import ConfigError, InvalidInput, PBClusterError

EXIT_FAILED = 1
EXIT_WRONG = 2


#: Command → where it stands. To import them all takes longer than most of them do.
PLACES = {
    "api-tokens": "commands_access.api_tokens",
    "audit": "commands_access.audit",
    "bucket": "commands_bucket.bucket",
    "down": "commands_cluster.down",
    "gateways": "commands_leave.gateways",
    "init": "commands_cluster.init_command",
    "join": "commands_join.join_command",
    "join-tokens": "commands_join.join_tokens",
    "keys": "commands_keys.keys",
    "members": "commands_members.members",
    "nodes": "commands_nodes.nodes",
    "rebalance": "commands_rebalance.rebalance",
    "restart": "commands_restart.restart",
    "status": "commands_status.status",
    "supervise": "commands_cluster.supervise",
    "tenants": "commands_tenants.tenants",
    "tokens": "commands_tokens.tokens",
    "up": "commands_cluster.up",
}


class _Commands(click.Group):
    """A group whose commands are imported when they are asked for, and end with a sentence and an
    exit code, never with a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(PLACES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in PLACES:
            return None
        return command_at(PLACES[cmd_name])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PBClusterError as error:
            show.warn(f"pbcluster: {error}")
            ctx.exit(EXIT_WRONG if isinstance(error, ConfigError | InvalidInput) else EXIT_FAILED)
        except BrokenPipeError:
            # Whoever read our output has enough; nothing more may be written at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(EXIT_FAILED)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(compiled.version(), prog_name="pbcluster", message="%(prog)s %(version)s")
def cli() -> None:
    """Many PocketBase backends on many machines, as one platform.

    A cluster on this machine lives in one directory (--dir, default ./cluster); processes of other
    machines join it by `pbcluster join`:

    \b
      pbcluster up                        start everything, Ctrl-C stops it
      pbcluster tenants create shop --superuser me@example.com
      pbcluster status                    what runs where
      pbcluster restart --all             replace every process in turn; requests go on
      pbcluster down                      stop a cluster started with --detach

    Every command takes --json for output that programs read.
    """


def main() -> None:
    """Run the command line."""
    cli(prog_name="pbcluster")


if __name__ == "__main__":
    main()
