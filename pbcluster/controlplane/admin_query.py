"""Lists of the admin API in the manner of PocketBase's: pages, sorting, filters, chosen fields.

    ?page=2&perPage=50&sort=-created,name&filter=status = 'active' && epoch > 3&fields=id,name

A filter is one to ten conditions ``FIELD OPERATOR VALUE`` with ``&&`` and ``||`` between them;
``&&`` binds closer, there are no parentheses. Operators are PocketBase's ``=``, ``!=``, ``>``,
``>=``, ``<``, ``<=``, ``~`` (contains, letters of any case) and ``!~``. A value is a text in single
or double quotes without any inside, a number, ``true`` or ``false``, as the field wants it. Times
are compared as texts, ``YYYY-MM-DDTHH:MM:SS.ffffffZ``, so that ``'2026-11'`` is a value too.

The language of filters is regular and has no code in it: :func:`filter_pattern` is in the OpenAPI
document, and :func:`parse_filter` takes exactly what it matches. Pure.
"""

from __future__ import annotations

import enum
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs
import msgspec

from pbcluster.controlplane.admin_table import Param
from pbcluster.errors import InvalidInput

MAX_PER_PAGE = 500
MAX_CONDITIONS = 10
MAX_SORTS = 5
MAX_FILTER = 1000

Getter = Callable[[Any], Any]
Test = Callable[[Any], bool]

_TEXT = "('[^'\"]*'|\"[^'\"]*\")"
_VALUES = {
    "text": _TEXT,
    "time": _TEXT,
    "number": r"-?[0-9]{1,15}(\.[0-9]{1,9})?",
    "bool": "(true|false)",
}
_EVERY = ("=", "!=", ">=", "<=", ">", "<", "~", "!~")
_OPERATORS = {"text": _EVERY, "time": _EVERY, "number": _EVERY[:6], "bool": _EVERY[:2]}
_ORDERS = {"=": operator.eq, "!=": operator.ne, ">=": operator.ge, "<=": operator.le}
_ORDERS |= {">": operator.gt, "<": operator.lt}
_CONDITION = re.compile(
    r" *([A-Za-z][A-Za-z0-9]{0,39}) *(=|!=|>=|<=|>|<|~|!~)"
    r" *('[^'\"]*'|\"[^'\"]*\"|[A-Za-z0-9.-]+) *"
)


@attrs.frozen
class Fields:
    """The fields of the items of a list.

    :ivar kinds: name → ``text``, ``number``, ``bool`` or ``time``, of those that can be sorted and
        filtered by. :ivar get: gives a field's value of an item.
    :ivar shown: names of all fields of an item as it is shown.
    """

    kinds: Mapping[str, str]
    get: Callable[[str], Getter]
    shown: Sequence[str]

    def params(self) -> tuple[Param, ...]:
        """The parameters of a list's query."""
        names = "|".join(self.kinds)
        shown = "|".join(self.shown)
        return (
            Param("page", "integer", "Which page, from 1.", 1, 1, 1_000_000),
            Param("perPage", "integer", "Items of a page.", 30, 1, MAX_PER_PAGE),
            Param(
                "sort",
                "string",
                f"at most {MAX_SORTS} of {', '.join(self.kinds)}, with - before what descends",
                "",
                pattern=f"^(|[-+]?({names})(,[-+]?({names})){{0,{MAX_SORTS - 1}}})$",
                max_length=300,
            ),
            Param(
                "filter",
                "string",
                "conditions like status = 'active' && epoch > 3",
                "",
                pattern=filter_pattern(self.kinds),
                max_length=MAX_FILTER,
            ),
            Param(
                "fields",
                "string",
                f"some of {', '.join(self.shown)}; without it all",
                "",
                pattern=f"^(|({shown})(,({shown})){{0,40}})$",
                max_length=1000,
            ),
        )


def filter_pattern(kinds: Mapping[str, str]) -> str:
    """A regular expression for whole filters over these fields."""
    by_kind: dict[str, list[str]] = {}
    for name, kind in kinds.items():
        by_kind.setdefault(kind, []).append(name)
    condition = "|".join(
        f"({'|'.join(names)}) *({'|'.join(_OPERATORS[kind])}) *{_VALUES[kind]}"
        for kind, names in by_kind.items()
    )
    further = f"(&&|\\|\\|) *({condition}) *"
    return f"^(| *({condition}) *({further}){{0,{MAX_CONDITIONS - 1}}})$"


@attrs.frozen
class Condition:
    """FIELD OPERATOR VALUE."""

    field: str
    operator: str
    value: Any


#: Alternatives of conditions that all must hold.
Filter = tuple[tuple[Condition, ...], ...]


def _wrong(told: str, kinds: Mapping[str, str]) -> InvalidInput:
    allowed = (
        f"up to {MAX_CONDITIONS} conditions like status = 'active' with && and || between them; "
        f"fields: {', '.join(kinds)}"
    )
    return InvalidInput(f"filter: {told}; allowed: {allowed}", field="filter", allowed=allowed)


def parse_filter(text: str, kinds: Mapping[str, str]) -> Filter:
    """A filter's alternatives; none for an empty text.

    :raises InvalidInput: it is no filter; says where it ends to be one.
    """
    if not text:
        return ()
    alternatives: list[list[Condition]] = [[]]
    at = 0
    for _ in range(MAX_CONDITIONS):
        found = _CONDITION.match(text, at)
        if found is None:
            raise _wrong(f"no condition at {text[at : at + 30]!r}", kinds)
        alternatives[-1].append(_condition(found[1], found[2], found[3], kinds))
        at = found.end()
        if at == len(text):
            return tuple(map(tuple, alternatives))
        joint = text[at : at + 2]
        if joint not in ("&&", "||"):
            raise _wrong(f"neither && nor || at {text[at : at + 30]!r}", kinds)
        if joint == "||":
            alternatives.append([])
        at += 2
    raise _wrong(f"more than {MAX_CONDITIONS} conditions", kinds)


def _condition(field: str, sign: str, raw: str, kinds: Mapping[str, str]) -> Condition:
    kind = kinds.get(field)
    if kind is None:
        raise _wrong(f"unknown field {field!r}", kinds)
    if not re.fullmatch(_VALUES[kind], raw):
        raise _wrong(f"{raw[:30]} is no value of {field}, which is a {kind}", kinds)
    if sign not in _OPERATORS[kind]:
        raise _wrong(f"{sign} is no operator for {field}, which is a {kind}", kinds)
    if kind == "number":
        return Condition(field, sign, float(raw) if "." in raw else int(raw))
    if kind == "bool":
        return Condition(field, sign, raw == "true")
    value = raw[1:-1]
    return Condition(field, sign, value.replace(" ", "T") if kind == "time" else value)


def compiled(found: Filter, fields: Fields) -> Test | None:
    """What says of an item whether it passes; None: all do."""
    if not found:
        return None
    alternatives = [[_test(each, fields) for each in every] for every in found]
    if len(alternatives) == 1 and len(alternatives[0]) == 1:
        return alternatives[0][0]
    return lambda item: any(all(test(item) for test in tests) for tests in alternatives)


def _test(condition: Condition, fields: Fields) -> Test:
    get = fields.get(condition.field)
    value, sign = condition.value, condition.operator
    time = fields.kinds[condition.field] == "time"
    read: Getter = (lambda item: plain_time(get(item))) if time else (lambda item: plain(get(item)))
    if sign in ("~", "!~"):
        wanted, part = sign == "~", str(value).lower()
        return lambda item: (part in str(read(item) or "").lower()) is wanted
    compare = _ORDERS[sign]
    nothing = sign == "!="

    def test(item: Any) -> bool:
        own = read(item)
        return nothing if own is None else bool(compare(own, value))

    return test


def plain(value: Any) -> Any:
    """An enum's word; all else as it is."""
    return value.value if isinstance(value, enum.Enum) else value


def plain_time(value: Any) -> str | None:
    """A time as a text of fixed width, so that texts are in the order of times."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return None if value is None else str(value).replace("+00:00", "Z")


def parse_sort(text: str, kinds: Mapping[str, str]) -> tuple[tuple[str, bool], ...]:
    """Fields and whether each descends. :raises InvalidInput: one is unknown, or too many."""
    found: list[tuple[str, bool]] = []
    for part in text.split(",") if text else ():
        name = part[1:] if part[:1] in ("-", "+") else part
        if name not in kinds or len(found) == MAX_SORTS:
            allowed = f"at most {MAX_SORTS} of {', '.join(kinds)}"
            raise InvalidInput(
                f"sort by {part[:40]!r}: allowed are {allowed}", field="sort", allowed=allowed
            )
        found.append((name, part[:1] == "-"))
    return tuple(found)


def parse_fields(text: str, shown: Iterable[str]) -> frozenset[str]:
    """Names of chosen fields; none: all. :raises InvalidInput: one is unknown."""
    names = text.split(",") if text else []
    known = list(shown)
    for name in names:
        if name not in known or len(names) > 41:
            allowed = ", ".join(known)
            raise InvalidInput(
                f"no field {name[:40]!r}; allowed: {allowed}", field="fields", allowed=allowed
            )
    return frozenset(names)


def sorted_by(items: list[Any], sort: Sequence[tuple[str, bool]], fields: Fields) -> list[Any]:
    """The items in order; equal ones keep theirs. What has no value stands first."""
    for name, descends in reversed(sort):
        get = fields.get(name)

        def key(item: Any, get: Getter = get) -> Any:
            value = plain(get(item))
            return (False, 0) if value is None else (True, value)

        items = sorted(items, key=key, reverse=descends)
    return items


def page_of(items: Sequence[Any], query: Mapping[str, Any]) -> dict[str, Any]:
    """One page of ``items``."""
    page, per_page = query["page"], query["perPage"]
    begin = (page - 1) * per_page
    return {
        "page": page,
        "perPage": per_page,
        "totalItems": len(items),
        "totalPages": -(-len(items) // per_page),
        "items": list(items[begin : begin + per_page]),
    }


def listed(
    items: Iterable[Any],
    query: Mapping[str, Any],
    fields: Fields,
    show: Callable[[Any], dict[str, Any]] = lambda item: item,
) -> dict[str, Any]:
    """A page of few items: filtered, sorted, with the chosen fields.

    :param show: gives an item's JSON object.
    :raises InvalidInput: the query is wrong; names the parameter.
    """
    test = compiled(parse_filter(query["filter"], fields.kinds), fields)
    sort = parse_sort(query["sort"], fields.kinds)
    chosen = parse_fields(query["fields"], fields.shown)
    found = [item for item in items if test is None or test(item)]
    shown = page_of(sorted_by(found, sort, fields), query)
    shown["items"] = [only(show(item), chosen) for item in shown["items"]]
    return shown


def only(item: dict[str, Any], chosen: frozenset[str]) -> dict[str, Any]:
    """The chosen fields of an item; none chosen: all."""
    return {k: v for k, v in item.items() if k in chosen} if chosen else item


def of_dicts(view: type, without: frozenset[str] = frozenset()) -> Fields:
    """Fields of items that are JSON objects already, as ``view`` describes them."""
    kinds, shown = _of_view(view, without)
    return Fields(kinds, lambda name: lambda item: item.get(name), shown)


def of_records(record: type, view: type) -> Fields:
    """Fields of items that are records, shown as ``view``."""
    attributes = {f.encode_name: f.name for f in msgspec.structs.fields(record)}
    kinds, shown = _of_view(view, frozenset())
    own = {name: kind for name, kind in kinds.items() if name in attributes}
    return Fields(own, lambda name: operator.attrgetter(attributes[name]), shown)


def _of_view(view: type, without: frozenset[str]) -> tuple[dict[str, str], list[str]]:
    fields = msgspec.structs.fields(view)
    kinds = {}
    for field in fields:
        kind = _KINDS.get(field.type)
        if isinstance(field.type, type) and issubclass(field.type, enum.Enum):
            kind = "text"
        if kind is not None and field.encode_name not in without:
            kinds[field.encode_name] = kind
    return kinds, [field.encode_name for field in fields]


_KINDS: dict[Any, str] = {str: "text", int: "number", float: "number", bool: "bool"}
_KINDS |= {datetime: "time", datetime | None: "time", str | None: "time"}
