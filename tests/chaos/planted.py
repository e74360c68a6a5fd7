"""Histories that tests of the judge plant: a builder with a clock of its own."""

from __future__ import annotations

from typing import Any

from pbcluster.testing.chaos.history import (
    CREATE,
    LOOK,
    PAIR,
    READ,
    UPDATE,
    Claim,
    Event,
    History,
    Operation,
    Row,
    value_of,
)


class Planted:
    """One tenant, one request a second, each answered after a tenth of one."""

    def __init__(self) -> None:
        self.history = History()
        self.now_s = 0.0

    def add(self, kind: str, key: str, status: int = 200, **more: Any) -> Operation:
        """One request; the next one begins a second later."""
        given = {"begun_s": self.now_s, "ended_s": self.now_s + 0.1, "client": "c"} | more
        done = Operation(tenant="t", kind=kind, key=key, status=status, **given)
        self.history.operations.append(done)
        self.now_s += 1.0
        return done

    def create(self, key: str, status: int = 200, **more: Any) -> Operation:
        return self.add(CREATE, key, status, durability="s3", **more)

    def pair(self, key: str, status: int = 200) -> Operation:
        return self.add(PAIR, key, status)

    def update(self, key: str, n: int, status: int = 200, **more: Any) -> Operation:
        return self.add(UPDATE, key, status, n=n, **more)

    def look(self, key: str, status: int = 200, **more: Any) -> Operation:
        return self.add(LOOK, key, status, found=status != 404, **more)

    def read(self, key: str, n: int, **more: Any) -> Operation:
        return self.add(READ, key, n=n, **more)

    def probe(self, node: str, **more: Any) -> Operation:
        return self.add(READ, "reg", node=node, **more)

    def claim(self, epoch: int, node: str, after_s: float = float("-inf")) -> None:
        self.history.claims.append(Claim("t", epoch, node, after_s, self.now_s))

    def event(self, text: str, *, fault: bool = False) -> None:
        self.history.events.append(Event(self.now_s, text, fault))

    def ends_with(self, *rows: Row) -> History:
        self.history.rows["t"] = rows
        return self.history


def row(key: str, half: str = "", n: int = 0, value: str | None = None) -> Row:
    """A row as it should be, but for what is given."""
    return Row(key, half, value_of(key, half) if value is None else value, n)
