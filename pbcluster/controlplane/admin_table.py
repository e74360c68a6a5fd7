"""The table of the admin API's operations: each route is registered, checked and described once.

A route stands in a class below ``admin_guard.AdminRoutes``, under :func:`endpoint`, which says who
may use it, what comes in and what goes out. From that entry come the check of its body and query
before the route runs, and its part of the OpenAPI document. Pure but for Klein's registration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import msgspec

from pbcluster.errors import InvalidInput
from pbcluster.records import Role

#: The header that has a request's id, both ways.
REQUEST_ID = "X-Request-Id"
REQUEST_ID_RULE = "1 to 64 letters, digits, '.', '_', '-'"
#: Of the header ``Idempotency-Key``.
MAX_KEY_BYTES = 200


@attrs.frozen
class Param:
    """A parameter of a query.

    :ivar kind: ``integer``, ``number``, ``boolean`` or ``string``.
    :ivar pattern: a regular expression that ECMA and Python read alike, for the whole text.
    """

    name: str
    kind: str
    description: str
    default: Any = None
    minimum: float | None = None
    maximum: float | None = None
    max_length: int | None = None
    pattern: str | None = None
    required: bool = False

    @property
    def rule(self) -> str:
        """What is allowed, in words."""
        if self.kind in ("integer", "number"):
            word = "a whole number" if self.kind == "integer" else "a number"
            return f"{word} from {self.minimum:g} to {self.maximum:g}"
        return "true or false" if self.kind == "boolean" else self.description


Query = Mapping[str, Any]


@attrs.frozen
class Operation:
    """One method of one path.

    :ivar path: with Klein's ``<string:key>``. :ivar role: the least that may; None: anybody.
    :ivar body: the type of its JSON, None: it has none. :ivar body_required: an empty body is {}.
    :ivar answers: status → type of its JSON, ``bytes``, or None for any JSON.
    :ivar here: any member answers it by itself, not the leader for it.
    :ivar conditional: it takes If-Match. :ivar description: what its summary does not say.
    """

    method: str
    path: str
    name: str
    summary: str
    role: Role | None
    query: tuple[Param, ...] = ()
    body: Any = None
    body_required: bool = True
    answers: Mapping[int, Any] = {}
    here: bool = False
    conditional: bool = False
    description: str = ""

    @property
    def tag(self) -> str:
        """The resource, for people."""
        return self.path.split("/")[3].removesuffix(".json")


def read_query(params: tuple[Param, ...], given: Mapping[bytes, list[bytes]]) -> dict[str, Any]:
    """The values of a query; what is not known is left alone.

    :raises InvalidInput: one is wrong, missing or there twice; names it and what is allowed.
    """
    return {param.name: _value(param, given.get(param.name.encode(), [])) for param in params}


def _value(param: Param, given: list[bytes]) -> Any:
    if not given and not param.required:
        return param.default
    rule = param.rule
    try:
        (raw,) = given
        text = raw.decode("utf-8")
        value = _READERS[param.kind](param, text)
    except (ValueError, OverflowError):
        told = f"{param.name} must be given once, as {rule}"
        raise InvalidInput(told, field=param.name, allowed=rule) from None
    return value


def _number(param: Param, text: str) -> float:
    plain = text.removeprefix("-")
    if param.kind == "integer":
        if not (plain.isascii() and plain.isdigit() and len(plain) < 20):
            raise ValueError
        number: float = int(text)
    else:
        if not (text.isascii() and text == text.strip() and "_" not in text):
            raise ValueError
        number = float(text)
    if not (param.minimum or 0) <= number <= (param.maximum or 0):
        raise ValueError
    return number


def _boolean(param: Param, text: str) -> bool:
    words = {"true": True, "false": False}
    if text not in words:
        raise ValueError
    return words[text]


def _string(param: Param, text: str) -> str:
    if param.max_length is not None and len(text) > param.max_length:
        raise ValueError
    return text


_READERS: dict[str, Callable[[Param, str], Any]] = {
    "integer": _number,
    "number": _number,
    "boolean": _boolean,
    "string": _string,
}


class Body(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Base of all bodies that come in."""
