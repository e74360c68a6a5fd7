"""Signals that a service acts on itself; Twisted has its own for the end (SIGTERM, SIGINT).

The handler is Python's, so that it runs under every reactor: uvloop calls Python's handlers from
its loop, others between two instructions of the main thread. It only wakes the loop; the work is
done there.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any


def on_signal(
    reactor: Any, number: signal.Signals, act: Callable[[], object]
) -> Callable[[], None]:
    """Call ``act`` in the reactor's thread at each such signal. Main thread only.

    :param reactor: ``IReactorFromThreads``.
    :returns: puts things back as they were.
    """
    before = signal.signal(number, lambda _number, _frame: reactor.callFromThread(act))

    def restore() -> None:
        signal.signal(number, before)

    return restore
