"""Planted bugs: the simulator's own test. Each must be caught, by a property that it names.

A mutant replaces one function or method of production code, or of what is simulated under it, for
the time of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from attrs import frozen

from pbcluster.raft import core


@frozen
class Mutant:
    """``replacement`` takes the place of ``owner.attribute``; one of ``caught_by`` must fire."""

    name: str
    caught_by: tuple[str, ...]
    owner: Any
    attribute: str
    replacement: Any

    @contextmanager
    def planted(self) -> Iterator[None]:
        """The bug is in the code within this context."""
        original = self.owner.__dict__[self.attribute]
        handlers = [kind for kind, handle in core._HANDLERS.items() if handle is original]
        setattr(self.owner, self.attribute, self.replacement)
        for kind in handlers:
            core._HANDLERS[kind] = self.replacement
        try:
            yield
        finally:
            setattr(self.owner, self.attribute, original)
            for kind in handlers:
                core._HANDLERS[kind] = original


def planting(
    mutants: list[Mutant], owner: Any, attribute: str, *caught_by: str
) -> Callable[[Any], Any]:
    """Register the decorated function as a mutant of its own name."""

    def register(function: Any) -> Any:
        of_class = isinstance(owner.__dict__[attribute], classmethod)
        replacement = classmethod(function) if of_class else function
        mutants.append(Mutant(function.__name__, caught_by, owner, attribute, replacement))
        return function

    return register
