"""Planted bugs: the simulator's own test. Each must be caught, by a property that it names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from attrs import frozen


@frozen
class Mutant:
    """``replacement`` takes the place of ``owner.attribute``; one of ``caught_by`` must break."""

    name: str
    caught_by: tuple[str, ...]
    owner: Any
    attribute: str
    replacement: Any

    @contextmanager
    def planted(self) -> Iterator[None]:
        """The bug is in the code within this context."""
        original = self.owner.__dict__[self.attribute]
        setattr(self.owner, self.attribute, self.replacement)
        try:
            yield
        finally:
            setattr(self.owner, self.attribute, original)


def planting(
    mutants: list[Mutant], owner: Any, attribute: str, *caught_by: str
) -> Callable[[Any], Any]:
    """Register the decorated function as a mutant of its own name."""

    def register(function: Any) -> Any:
        kind = type(owner.__dict__[attribute])
        replacement = kind(function) if kind in (staticmethod, classmethod) else function
        mutants.append(Mutant(function.__name__, caught_by, owner, attribute, replacement))
        return function

    return register
