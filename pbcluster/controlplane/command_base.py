"""What all commands of the replicated log have in common (``commands``). Pure."""

from __future__ import annotations

import msgspec


class Command(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Base of all commands; ``at`` is the proposer's clock."""
