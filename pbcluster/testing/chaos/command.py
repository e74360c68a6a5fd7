"""The command ``python -m pbcluster.testing.chaos``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from pbcluster.testing.chaos import stories_moves, stories_nodes
from pbcluster.testing.chaos.running import Result, Wish, run
from pbcluster.testing.chaos.story import STORIES, Story

#: Importing them registers their stories.
FAMILIES = (stories_nodes, stories_moves)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, metavar="[STORY]...")
@click.option("--list", "listed", is_flag=True, help="Name all stories, and end.")
@click.option("--rounds", default=1, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--seed", default=None, type=int, help="Of all that is random; default: the time.")
@click.option("--long", is_flag=True, help="Outages as long as in the seed's stories.")
@click.option("--picture", is_flag=True, help="A picture of each round, not only of failed ones.")
@click.option(
    "--pictures",
    default=Path("chaos-pictures"),
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where pictures go.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Figures, as JSON.")
def main(
    names: tuple[str, ...],
    listed: bool,
    rounds: int,
    seed: int | None,
    long: bool,
    picture: bool,
    pictures: Path,
    json_file: Path | None,
) -> None:
    """Play fault STORIES on a real cluster under clients, and judge every promise."""
    if listed:
        for each in STORIES.values():
            click.echo(f"{each.name:24}{each.title}")
        return
    chosen = int(time.time()) if seed is None else seed
    click.echo(f"seed {chosen}")
    wish = Wish(rounds=rounds, seed=chosen, long=long, pictures=pictures, picture=picture)
    results = run(_stories(names), wish, click.echo)
    if json_file is not None:
        json_file.write_text(json.dumps(_shown(results, chosen), indent=1) + "\n")
    if not all(result.good for result in results):
        raise SystemExit(1)


def _stories(names: tuple[str, ...]) -> list[Story]:
    for name in names:
        if name not in STORIES:
            known = ", ".join(STORIES)
            raise click.UsageError(f"there is no story {name!r}; there are: {known}")
    return [STORIES[name] for name in names or STORIES]


def _shown(results: list[Result], seed: int) -> dict[str, Any]:
    return {"seed": seed, "stories": [result.shown() for result in results]}
