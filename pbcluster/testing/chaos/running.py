"""Plays stories for some rounds each, and keeps what each came to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs

from pbcluster.testing.chaos import composed
from pbcluster.testing.chaos.figures import spreads
from pbcluster.testing.chaos.judge import KINDS
from pbcluster.testing.chaos.picture import draw
from pbcluster.testing.chaos.stage import Outcome, Stage
from pbcluster.testing.chaos.story import Story

Tell = Callable[[str], object]


@attrs.define
class Result:
    """All rounds of one story.

    :ivar outcomes: without the histories of the good ones. :ivar pictures: files.
    """

    story: Story
    outcomes: list[Outcome] = attrs.field(factory=list)
    pictures: list[Path] = attrs.field(factory=list)

    @property
    def good(self) -> bool:
        """Whether all rounds kept every promise."""
        return bool(self.outcomes) and all(each.good for each in self.outcomes)

    @property
    def missed(self) -> list[str]:
        """Limits that were not reached."""
        figures = [each.figures for each in self.outcomes]
        told = [limit.missed(figures) for limit in self.story.limits]
        return [each for each in told if each]

    def shown(self) -> dict[str, Any]:
        """For programs."""
        verdicts = [each.verdict for each in self.outcomes]
        figures = spreads([each.figures for each in self.outcomes])
        return {
            "story": self.story.name,
            "title": self.story.title,
            "wanted": self.story.figure,
            "rounds": len(self.outcomes),
            "unfinished": sum(bool(each.broken) for each in self.outcomes),
            "good": self.good,
            "missed": self.missed,
            "acknowledged": sum(v.acknowledged for v in verdicts),
            "reads": sum(v.reads for v in verdicts),
            "probes": sum(v.probes for v in verdicts),
            "vanished": sum(v.vanished for v in verdicts),
            "failed_requests": sum(v.failed_requests for v in verdicts),
            "broken": {kind: sum(v.counts()[kind] for v in verdicts) for kind in KINDS},
            "figures": {name: attrs.asdict(spread) for name, spread in figures.items()},
            "each": [_rounded(each.figures) for each in self.outcomes],
            "told": [line for each in self.outcomes for line in each.told()][:20],
            "pictures": [file.name for file in self.pictures],
        }


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    """Milliseconds are enough."""
    return {name: round(value, 3) for name, value in figures.items()}


@attrs.frozen(kw_only=True)
class Wish:
    """How stories are played.

    :ivar rounds: of each. :ivar long: outages last as long as in the seed's stories.
    :ivar pictures: where pictures go. :ivar picture: of each round, else of those that failed.
    :ivar durable_reads: whether tenants have them.
    :ivar keep_going: whether a story goes on, on a new cluster, after a broken promise.
    """

    rounds: int = 1
    seed: int = 0
    long: bool = False
    pictures: Path = Path("chaos-pictures")
    picture: bool = False
    durable_reads: bool = False
    keep_going: bool = False


def run(
    stories: Sequence[Story],
    wish: Wish,
    tell: Tell = print,
    after_each: Callable[[list[Result]], object] = len,
) -> list[Result]:
    """Play them; those of one shape that follow each other share a cluster. A story ends with the
    first round in which a promise was broken, unless the wish is otherwise. Of the random story
    each round is a seed of its own: the wish's, and those that follow it.

    :param tell: called with each line of progress.
    :param after_each: called after each round with what there is by then.
    """
    results: list[Result] = []
    stage: Stage | None = None
    with ExitStack() as stack:
        for story in stories:
            result = Result(story)
            results.append(result)
            tell(f"{story.name}: {story.title}")
            for number in range(1, wish.rounds + 1):
                if stage is None or stage.shape != story.shape:
                    stack.close()
                    stage = stack.enter_context(
                        Stage(story.shape, wish.seed, tell, durable_reads=wish.durable_reads)
                    )
                drawn = story.name == composed.NAME
                seed = wish.seed + number - 1 if drawn else wish.seed
                outcome = stage.play(story, 1 if drawn else number, seed, long=wish.long)
                _keep(result, outcome, wish, tell, logs=stage.cluster.logs)
                after_each(results)
                if not outcome.good:
                    stack.close()
                    stage = None
                    if not wish.keep_going:
                        break
    return results


def _keep(
    result: Result, outcome: Outcome, wish: Wish, tell: Tell, logs: Callable[[], str]
) -> None:
    """Note an outcome, draw it if it is to be, and tell it."""
    tell(_line(outcome, len(result.outcomes) + 1, wish.rounds))
    if wish.picture or not outcome.good:
        result.pictures.append(_drawn(outcome, wish.pictures))
        tell(f"  picture: {result.pictures[-1]}")
    if not outcome.good:
        for line in outcome.told():
            tell(f"  {line}")
        tell(f"  again: {again(outcome, wish)}")
        tell(logs())
    else:
        # Hours of requests would fill the memory.
        outcome = attrs.evolve(outcome, history=type(outcome.history)())
    result.outcomes.append(outcome)


def again(outcome: Outcome, wish: Wish) -> str:
    """The command that plays it again. Of rounds that are not random all former ones are, too."""
    options = " --durable-reads" * wish.durable_reads + " --long" * wish.long
    command = f"python -m pbcluster.testing.chaos --seed {outcome.seed}{options}"
    if outcome.story.name == composed.NAME:
        return f"{command} --random 1"
    return f"{command} {outcome.story.name} --rounds {outcome.number}"


def _line(outcome: Outcome, number: int, rounds: int) -> str:
    figures = [f"load {outcome.figures.get('load', 0.0):.1f}"]
    figures += [
        f"{name.removesuffix('_s').replace('_', ' ')} {value:.2f} s"
        for name, value in outcome.figures.items()
        if name.endswith("_s") and "longest" not in name
    ]
    verdict = outcome.verdict
    word = "good" if outcome.good else "BROKEN"
    return (
        f"  {number}/{rounds} {word}: {verdict.acknowledged} acknowledged, "
        f"{verdict.reads} reads, {verdict.failed_requests} failed; {', '.join(figures)}"
    )


def _drawn(outcome: Outcome, into: Path) -> Path:
    into.mkdir(parents=True, exist_ok=True)
    name = outcome.story.name
    file = into / f"{name}-{outcome.seed}-{outcome.number}.svg"
    told = [line[:150] for line in outcome.told()[:6]]
    title = f"{name}, round {outcome.number}, seed {outcome.seed}: {outcome.story.title}"
    file.write_text(draw(outcome.history, title, told or ["every promise was kept"]))
    return file
