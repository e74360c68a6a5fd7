"""Bodies of the admin API: decoded, and checked against their type field by field. Pure.

What does not fit the documented type is refused with 400 and the field's name. What fits the type
but cannot be (a password of too many bytes, a domain below the base domain) is refused with 422
where a route says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from pbcluster.errors import CallerError, InvalidInput

B = TypeVar("B")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*?)`(?: - at `\$(.*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*?)`(?: - at `\$(.*)`)?", re.DOTALL)
_AT = re.compile(r"^(.*?)(?: - at `\$(.*)`)?$", re.DOTALL)
_KINDS = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "object": "an object",
    "array": "a list",
}


def parse(body: bytes) -> Any:
    """Decoded JSON, RFC 8259. :raises CallerError: it is none."""
    try:
        value = json.loads(body, parse_constant=_no_constant, parse_float=_number)
        json.dumps(value).encode()
        _text_of(value).encode()
    except (ValueError, RecursionError):
        raise CallerError("the body is not valid JSON") from None
    return value


def _text_of(value: Any) -> str:
    """Fails if a text in it has half of a surrogate pair: it has no encoding."""
    return json.dumps(value, ensure_ascii=False)


def _number(text: str) -> float:
    """A number with a point or an exponent; a whole one is one (JSON Schema, section 4.2.3)."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _no_constant(name: str) -> Any:
    """NaN and Infinity are Python's, not JSON's."""
    raise ValueError(name)


def typed(body: bytes, kind: type[B], rules: Mapping[str, str]) -> B:
    """The value of a body.

    :param kind: a msgspec type. :param rules: field → what is allowed, in words.
    :raises CallerError: it is no JSON. :raises InvalidInput: names the field.
    """
    value = parse(body)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _named(str(error), kind, rules) from None


def _named(told: str, kind: Any, rules: Mapping[str, str]) -> InvalidInput:
    if found := _UNKNOWN.fullmatch(told):
        name = found[1][:100]
        allowed = ", ".join(_fields(kind, found[2] or ""))
        return InvalidInput(
            f"unknown field {name!r}; allowed are: {allowed}", field=name, allowed=allowed
        )
    if found := _MISSING.fullmatch(told):
        name = found[1]
        allowed = rules.get(name, "")
        more = f": {allowed}" if allowed else ""
        return InvalidInput(f"{name} is missing{more}", field=name, allowed=allowed)
    found = _AT.fullmatch(told)
    assert found is not None
    name = _leaf(found[2] or "") or "body"
    allowed = rules.get(name) or _plain(found[1])
    return InvalidInput(f"{name} must be {allowed}", field=name, allowed=allowed)


def _leaf(path: str) -> str:
    """``.quotas.burst`` → burst; ``.customDomains[0]`` → customDomains."""
    names = [part.partition("[")[0] for part in path.split(".") if part]
    return names[-1] if names else ""


def _plain(told: str) -> str:
    """msgspec's words in ours."""
    if found := re.match(r"Expected `(\w+)`, got", told):
        return _KINDS.get(found[1], found[1])
    if found := re.match(r"Expected `(\w+)` (>=|<=) (\S+)$", told):
        word = "at least" if found[2] == ">=" else "at most"
        return f"{word} {found[3]}"
    return told[:200].replace("Expected ", "").replace("`", "")


def _fields(kind: Any, path: str) -> list[str]:
    """The fields of the object at ``path``."""
    at = msgspec.inspect.type_info(kind)
    for name in (part.partition("[")[0] for part in path.split(".") if part):
        at = _field(at, name)
    at = _struct(at)
    return [field.encode_name for field in getattr(at, "fields", ())]


def _struct(at: Any) -> Any:
    if isinstance(at, msgspec.inspect.UnionType):
        kinds = [t for t in at.types if isinstance(t, msgspec.inspect.StructType)]
        return kinds[0] if kinds else at
    return at


def _field(at: Any, name: str) -> Any:
    for field in getattr(_struct(at), "fields", ()):
        if field.encode_name == name:
            return field.type
    return at
