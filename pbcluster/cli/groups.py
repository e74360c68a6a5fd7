"""Groups of commands of which some stand in other modules, imported when they are asked for.

To import all of a group takes longer than most of its commands do. A group's help names every
command with what it does, and so imports them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click


def command_at(place: str) -> click.Command:
    """The command that a place names: ``MODULE.NAME`` within ``pbcluster.cli``."""
    module, _, name = place.partition(".")
    found: click.Command = getattr(import_module(f"pbcluster.cli.{module}"), name)
    return found


class SpreadGroup(click.Group):
    """A group with commands of its own, and others that stand elsewhere."""

    def __init__(self, *args: Any, elsewhere: Mapping[str, str], **more: Any) -> None:
        """
        :param elsewhere: command → its place, see :func:`command_at`.
        """
        super().__init__(*args, **more)
        self._elsewhere = dict(elsewhere)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See ``click.Group``."""
        return sorted({*super().list_commands(ctx), *self._elsewhere})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See ``click.Group``."""
        place = self._elsewhere.get(cmd_name)
        return command_at(place) if place is not None else super().get_command(ctx, cmd_name)
