"""The command ``python -m pbcluster.testing.chaos``."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import attrs
import click

from pbcluster import __version__
from pbcluster.binaries import VERSIONS
from pbcluster.testing.chaos import (
    composed,
    kernel_net,
    stories_all,
    stories_cuts,
    stories_kernel,
    stories_moves,
    stories_nodes,
    stories_plane,
    stories_requests,
    stories_s3,
)
from pbcluster.testing.chaos.running import Result, Wish, run
from pbcluster.testing.chaos.story import STORIES, Story

#: Importing them registers their stories.
MODULES = (
    stories_requests,
    stories_moves,
    stories_nodes,
    stories_plane,
    stories_s3,
    stories_all,
    stories_cuts,
    stories_kernel,
    composed,
)
#: What ``--short`` plays; the suite does, too, on one cluster.
SHORT = ("node-kill", "cut-plane-mute", "leader-kill", "migration")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, metavar="[STORY]...")
@click.option("--list", "listed", is_flag=True, help="Name all stories and what is wanted; end.")
@click.option("--short", is_flag=True, help=f"These: {', '.join(SHORT)}.")
@click.option("--random", "random_", type=click.IntRange(1, 100_000), help="So many random ones.")
@click.option(
    "--rounds", default=1, show_default=True, type=click.IntRange(1, 10_000), help="Of each story."
)
@click.option("--seed", default=None, type=int, help="Of all that is random; default: the time.")
@click.option(
    "--long", is_flag=True, help="Outages as long as in the seed's stories, 50 tenants in a drain."
)
@click.option(
    "--durable-reads", is_flag=True, help="Tenants have them: nothing that was read may vanish."
)
@click.option("--keep-going", is_flag=True, help="Play all rounds, whatever is broken in one.")
@click.option("--picture", is_flag=True, help="A picture of each round, not only of failed ones.")
@click.option(
    "--pictures",
    default=Path("chaos-pictures"),
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where pictures go.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path),
    help="Write the figures to this file, after each round.",
)
def main(
    names: tuple[str, ...],
    listed: bool,
    short: bool,
    random_: int | None,
    rounds: int,
    seed: int | None,
    long: bool,
    durable_reads: bool,
    keep_going: bool,
    picture: bool,
    pictures: Path,
    json_file: Path | None,
) -> None:
    """Play fault STORIES on a real cluster under clients, and judge what was promised.

    A STORY is a name of --list or a pattern such as 'cut-*'; without any, all are played once. Each
    round ends with everything read back, through the gateway and from a database restored from S3.
    The first round that breaks a promise ends its story, shows why, the logs' ends, the command
    that repeats it, and leaves a picture. Exit status 1 then. Figures that are not what is wanted
    are told, and are no failure.

    \b
    Examples:
      python -m pbcluster.testing.chaos --short
      python -m pbcluster.testing.chaos node-kill --rounds 20 --json kills.json
      python -m pbcluster.testing.chaos 'cut-*' --picture
      python -m pbcluster.testing.chaos --random 50 --seed 1
      python -m pbcluster.testing.chaos plane-dead --long
    """
    if listed:
        for each in STORIES.values():
            click.echo(f"{each.name:24}{each.title}\n{'':24}wanted: {each.figure}")
        return
    chosen = int(time.time()) if seed is None else seed
    click.echo(f"seed {chosen}")
    where = _machine()
    stories = _stories(SHORT if short else names, everything=not (short or random_))
    wish = Wish(
        rounds=rounds,
        seed=chosen,
        long=long,
        pictures=pictures,
        picture=picture,
        durable_reads=durable_reads,
        keep_going=keep_going,
    )
    plays = [(_possible(stories), wish)]
    if random_:
        plays.append(([STORIES[composed.NAME]], attrs.evolve(wish, rounds=random_)))
    results: list[Result] = []
    for those, how in plays:
        before = tuple(results)

        def keep(now: list[Result], before: tuple[Result, ...] = before) -> None:
            """An hour's figures are there also if the next one never ends."""
            if json_file is not None:
                _write(json_file, _shown([*before, *now], chosen, where, long=long))

        results += run(those, how, click.echo, keep)
    _tell(results)
    if not all(result.good for result in results):
        raise SystemExit(1)


def _stories(names: tuple[str, ...], *, everything: bool) -> list[Story]:
    """Those that are meant, each once. :raises UsageError: a name fits none."""
    found: dict[str, Story] = {}
    for name in names or (("*",) if everything else ()):
        fitting = {each: STORIES[each] for each in STORIES if fnmatchcase(each, name)}
        if not fitting:
            known = ", ".join(STORIES)
            raise click.UsageError(f"there is no story {name!r}; there are: {known}")
        found |= fitting
    return list(found.values())


def _possible(stories: list[Story]) -> list[Story]:
    """Without those that this machine does not allow, which are told."""
    reason = kernel_net.unavailable()
    if reason and any(each.shape.kernel for each in stories):
        click.echo(f"stories in network namespaces are left out: {reason}")
        return [each for each in stories if not each.shape.kernel]
    return stories


def _tell(results: list[Result]) -> None:
    for result in results:
        word = "good" if result.good else "BROKEN"
        missed = f"; not reached: {'; '.join(result.missed)}" if result.missed else ""
        click.echo(f"{result.story.name:24}{len(result.outcomes)} rounds, {word}{missed}")


def _write(file: Path, shown: dict[str, Any]) -> None:
    file.write_text(json.dumps(shown, indent=1) + "\n", encoding="utf-8")


def _shown(results: list[Result], seed: int, where: str, *, long: bool) -> dict[str, Any]:
    words = ["python", "-m", "pbcluster.testing.chaos", *sys.argv[1:]]
    return {
        "seed": seed,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": where,
        "versions": {"pbcluster": __version__, **VERSIONS},
        "long": long,
        "command": shlex.join(_command_words(words)),
        "stories": [result.shown() for result in results],
    }


def _machine() -> str:
    """Its cores, its processor's name, and how busy it is now."""
    model = "an unknown processor"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores of {model}, load average {load:.1f} at the start"


def _command_words(words: list[str]) -> list[str]:
    """Without where the figures and pictures went."""
    kept: list[str] = []
    for word in words:
        if kept and kept[-1] in ("--json", "--pictures"):
            kept.pop()
        else:
            kept.append(word)
    return kept
