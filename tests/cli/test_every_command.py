"""What holds for every command."""

from collections.abc import Iterator

import click
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.cli.main import cli


def commands(group: click.Group, path: str = "pbcluster") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            if not command.hidden:
                yield f"{path} {name}", command


class EveryCommandTests(SynchronousTestCase):
    def test_json_and_help(self) -> None:
        """Every command that is shown takes --json; its help tells what it and its options do."""
        found = dict(commands(cli))
        self.assertIn("pbcluster tenants create", found)
        for path, command in found.items():
            options = [p for p in command.params if isinstance(p, click.Option)]
            self.assertIn("--json", [name for p in options for name in p.opts], path)
            self.assertTrue(command.help, path)
            self.assertEqual([p.name for p in options if not p.help], [], path)
