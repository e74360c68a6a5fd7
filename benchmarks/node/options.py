"""What all measures of a node are told."""

from __future__ import annotations

from collections.abc import Callable

import attrs


@attrs.frozen(kw_only=True)
class Options:
    """
    :ivar seconds: of each load. :ivar requests: of each way, one after the other.
    :ivar watch_s: how long idle processes are watched. :ivar large: also a database of 1 GB.
    :ivar tell: called with each line of progress.
    """

    rounds: int
    seconds: float
    requests: int
    tenants: int
    wakes: int
    watch_s: float
    large: bool
    tell: Callable[[str], object]
