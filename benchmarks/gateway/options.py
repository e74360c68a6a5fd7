"""What all measures are told."""

from __future__ import annotations

import attrs

from benchmarks.gateway.ours import Checkout


@attrs.frozen
class Options:
    """
    :ivar seconds: of each load in each round. :ivar core: of the proxies. :ivar other: of the rest.
    :ivar system: only systems whose name holds one of these, by commas; empty: all.
    """

    checkouts: list[Checkout]
    rounds: int
    seconds: float
    core: int
    other: int
    system: str = ""

    def wants(self, name: str) -> bool:
        return not self.system or any(part in name for part in self.system.split(","))

    @property
    def labels(self) -> tuple[str, ...]:
        """Of those for which there are targets; the others are told beside them."""
        return tuple(checkout.label for checkout in self.checkouts if checkout.judged)
