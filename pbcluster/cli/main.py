"""The entry point ``pbcluster``: all commands under one name, every failure as one sentence.

Exit codes: 0 done; 1 it could not be done; 2 the request or the configuration is wrong.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from pbcluster import __version__
from pbcluster.cli import (
    commands_access,
    commands_bucket,
    commands_cluster,
    commands_join,
    commands_keys,
    commands_leave,
    commands_lives,
    commands_members,
    commands_migration,
    commands_nodes,
    commands_rebalance,
    commands_restart,
    commands_tenants,
    commands_tokens,
    show,
)
from pbcluster.errors import ConfigError, InvalidInput, PBClusterError

EXIT_FAILED = 1
EXIT_WRONG = 2


class _Commands(click.Group):
    """A group whose commands end with a sentence and an exit code, never with a traceback."""

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
@click.version_option(__version__, prog_name="pbcluster")
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


for _command in (
    *commands_cluster.COMMANDS,
    *commands_restart.COMMANDS,
    commands_tenants.tenants,
    commands_nodes.nodes,
    commands_members.members,
    commands_tokens.tokens,
    commands_keys.keys,
    commands_bucket.bucket,
    commands_access.api_tokens,
    commands_access.audit,
    commands_rebalance.rebalance,
    commands_join.join_tokens,
    commands_join.join_command,
    commands_leave.gateways,
):
    cli.add_command(_command)
for _command in commands_migration.TENANT_COMMANDS:
    commands_tenants.tenants.add_command(_command)
for _command in commands_migration.NODE_COMMANDS:
    commands_nodes.nodes.add_command(_command)
commands_nodes.nodes.add_command(commands_leave.remove_node)
commands_tenants.tenants.add_command(commands_tokens.domains)
for _command in commands_lives.COMMANDS:
    commands_tenants.tenants.add_command(_command)


def main() -> None:
    """Run the command line."""
    cli(prog_name="pbcluster")


if __name__ == "__main__":
    main()
