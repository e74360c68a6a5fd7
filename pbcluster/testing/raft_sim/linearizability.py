"""Could these operations have happened one at a time? (Herlihy and Wing; search after Wing and
Gong, with Lowe's memory of what was tried.)

An operation is an interval: it took effect at one moment between its call and its return. One whose
outcome the client never learned may have taken effect at any moment after its call, or never. Keys
are independent, so each is searched alone. A history is judged, not explained: the answer is the
first key for which no order exists.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import frozen

#: Steps of the search for one key before it gives up and says so.
MAX_STEPS = 200_000
#: The end of an operation that never returned.
NEVER = 2**62
#: The result of an assignment that expected another epoch.
REFUSED = "refused"
#: A list that only grows, a register, and a number that is raised by who knows it.
State = tuple[tuple[str, ...], str, int]
EMPTY: State = ((), "", 0)


@frozen
class Operation:
    """``kind`` is get, add, put or assign; the value of an assign is the number it expects.

    ``result``: the state that was read; the list's length after an add; True of a put; the number
    after an assign, or ``REFUSED``; None if unknown. A get without a result says nothing and should
    be left out.
    """

    name: str
    kind: str
    key: str
    value: str
    called: int
    returned: int
    result: Any


def _step(operation: Operation, state: State) -> tuple[bool, State]:
    """Whether ``operation`` may happen in ``state``, and the state after it."""
    kind, result = operation.kind, operation.result
    if kind == "get":
        return result == state, state
    items, register, number = state
    if kind == "add":
        items = (*items, operation.value)
        return result in (None, len(items)), (items, register, number)
    if kind == "put":
        return True, (items, operation.value, number)
    if number != int(operation.value):
        return result in (None, REFUSED), state
    return result in (None, number + 1), (items, register, number + 1)


class SearchGaveUp(Exception):
    """The history is too tangled to judge; it is neither good nor bad."""


def first_bad_key(history: Iterable[Operation]) -> str | None:
    """The first key whose operations fit no order; None if all do.

    :raises SearchGaveUp: ``MAX_STEPS`` were not enough.
    """
    keys: dict[str, list[Operation]] = {}
    for operation in history:
        keys.setdefault(operation.key, []).append(operation)
    for key in sorted(keys):
        if not is_linearizable(keys[key]):
            return key
    return None


def is_linearizable(operations: list[Operation]) -> bool:
    """Whether the operations of one key, which begins empty, fit an order."""
    ordered = sorted(operations, key=lambda one: (one.called, one.returned))
    must = 0
    for position, operation in enumerate(ordered):
        if operation.returned != NEVER:
            must |= 1 << position
    state = EMPTY
    tried: set[tuple[int, State]] = {(0, state)}
    stack: list[tuple[int, State]] = [(0, state)]
    steps = 0
    while stack:
        done, state = stack.pop()
        if done & must == must:
            return True
        # Nothing may come after an operation that returned before it was called.
        horizon = min(
            (one.returned for i, one in enumerate(ordered) if not done >> i & 1), default=NEVER
        )
        for position, operation in enumerate(ordered):
            if operation.called > horizon:
                break
            if done >> position & 1:
                continue
            steps += 1
            if steps > MAX_STEPS:
                raise SearchGaveUp(f"{len(ordered)} operations on one key")
            fits, after = _step(operation, state)
            following = (done | 1 << position, after)
            if fits and following not in tried:
                tried.add(following)
                stack.append(following)
    return False
