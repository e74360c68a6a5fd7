"""What holds for every command."""

import subprocess
import sys
from collections.abc import Iterator

import click
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.cli.groups import SpreadGroup
from pbcluster.cli.main import PLACES, cli


def commands(group: click.Group, path: str = "pbcluster") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            if not command.hidden:
                yield f"{path} {name}", command


class EveryCommandTests(SynchronousTestCase):
    def test_places(self) -> None:
        """Each command stands where the table says, under its own name; unknown ones are none."""
        context = click.Context(cli)
        for name in PLACES:
            command = cli.get_command(context, name)
            assert command is not None
            self.assertEqual(command.name, name)
        self.assertIsNone(cli.get_command(context, "tenant"))

    def test_only_what_is_run_is_imported(self) -> None:
        """What asks the admin API needs no client of S3, no TLS of our own and no reactor, nor does
        what looks at a cluster."""
        for command in (["tenants", "list"], ["nodes", "list"], ["members", "list"], ["status"]):
            asked = f"from pbcluster.cli.main import cli; cli({[*command, '--help']})"
            script = f"import atexit, sys; atexit.register(lambda: print(*sys.modules)); {asked}"
            told = subprocess.run(
                [sys.executable, "-c", script],
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            ).stdout.split()
            self.assertIn("click", told)
            heavy = {"botocore", "cryptography", "twisted.internet"}
            self.assertEqual(heavy & set(told), set(), command)

    def test_spread_groups(self) -> None:
        """What stands elsewhere is found under its own name, listed in order, and not twice."""
        for name in ("members", "nodes", "tenants"):
            group = cli.get_command(click.Context(cli), name)
            assert isinstance(group, SpreadGroup)
            context = click.Context(group)
            listed = group.list_commands(context)
            self.assertEqual(listed, sorted(set(listed)))
            for each in listed:
                command = group.get_command(context, each)
                assert command is not None
                self.assertEqual(command.name, each)
            self.assertIsNone(group.get_command(context, "unknown"))
            self.assertFalse(set(group._elsewhere) & set(group.commands))

    def test_json_and_help(self) -> None:
        """Every command that is shown takes --json; its help tells what it and its options do."""
        found = dict(commands(cli))
        self.assertIn("pbcluster tenants create", found)
        for path, command in found.items():
            options = [p for p in command.params if isinstance(p, click.Option)]
            self.assertIn("--json", [name for p in options for name in p.opts], path)
            self.assertTrue(command.help, path)
            self.assertEqual([p.name for p in options if not p.help], [], path)
