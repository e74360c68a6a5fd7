"""What a gate of the core may answer with: a Deferred, a coroutine, or what else can be awaited.

Nothing is waited for here.
"""

from __future__ import annotations

from collections.abc import Awaitable
from inspect import iscoroutine
from typing import Any

from twisted.internet.defer import Deferred


def as_deferred(answer: Awaitable[Any]) -> Deferred[Any]:
    """The Deferred that fires as ``answer`` does."""
    if isinstance(answer, Deferred):
        return answer
    if iscoroutine(answer):
        return Deferred.fromCoroutine(answer)

    async def wait() -> Any:
        return await answer

    return Deferred.fromCoroutine(wait())
