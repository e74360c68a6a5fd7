"""What holds for every command."""

import subprocess
import sys
from collections.abc import Iterator

import click
from twisted.trial.unittest import SynchronousTestCase

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
        """What asks the admin API for tenants needs no client of S3 and no TLS of our own."""
        asked = "import sys; from pbcluster.cli.main import cli; cli(['tenants', 'list', '--help'])"
        script = f"import atexit, sys; atexit.register(lambda: print(*sys.modules)); {asked}"
        told = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
        ).stdout.split()
        self.assertIn("click", told)
        self.assertEqual({"botocore", "cryptography", "twisted.internet"} & set(told), set())

    def test_json_and_help(self) -> None:
        """Every command that is shown takes --json; its help tells what it and its options do."""
        found = dict(commands(cli))
        self.assertIn("pbcluster tenants create", found)
        for path, command in found.items():
            options = [p for p in command.params if isinstance(p, click.Option)]
            self.assertIn("--json", [name for p in options for name in p.opts], path)
            self.assertTrue(command.help, path)
            self.assertEqual([p.name for p in options if not p.help], [], path)
