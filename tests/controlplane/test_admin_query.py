"""Pages, sorting, filters and chosen fields of the admin API's lists."""

import re
from datetime import UTC, datetime

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.controlplane import admin_query as q
from pbcluster.controlplane.admin_table import read_query
from pbcluster.controlplane.tenant_order import TenantOrder
from pbcluster.errors import InvalidInput
from pbcluster.records import Durability, Record, TenantRecord, TenantStatus


class Thing(Record, frozen=True):
    name: str
    size: int
    good: bool
    status: TenantStatus
    made: datetime
    gone: datetime | None = None


FIELDS = q.of_records(Thing, Thing)
PATTERN = re.compile(q.filter_pattern(FIELDS.kinds))
DAY = datetime(2026, 1, 1, tzinfo=UTC)
ACTIVE, IDLE = TenantStatus.ACTIVE, TenantStatus.IDLE
THINGS = [
    Thing(name="Ann", size=3, good=True, status=ACTIVE, made=DAY.replace(day=2)),
    Thing(name="bob", size=10, good=False, status=IDLE, made=DAY.replace(microsecond=500000)),
    Thing(name="cat", size=-1, good=True, status=ACTIVE, made=DAY, gone=DAY.replace(month=2)),
]


def found(text: str) -> str:
    test = q.compiled(q.parse_filter(text, FIELDS.kinds), FIELDS)
    return "".join(thing.name[0] for thing in THINGS if test is None or test(thing))


class Filters(SynchronousTestCase):
    def test_operators(self) -> None:
        """PocketBase's, on texts, numbers, truth, words of an enumeration and times; what has no
        value is only unequal."""
        for text, names in (
            ("", "Abc"),
            ("name = 'bob'", "b"),
            ('name != "bob"', "Ac"),
            ("name ~ 'A'", "Ac"),
            ("name!~'a'", "b"),
            ("size > 3", "b"),
            ("size >= 3", "Ab"),
            ("size < 0.5", "c"),
            ("size = -1", "c"),
            ("good = true", "Ac"),
            ("good != true", "b"),
            ("status = 'idle'", "b"),
            ("made < '2026-01-02'", "bc"),
            ("made > '2026-01-01 00:00:00.4'", "Ab"),
            ("gone > '2026'", "c"),
            ("gone != '2026'", "Abc"),
            ("size > 0 && good = true", "A"),
            ("size < 0 || size > 9", "bc"),
            ("size < 0 || size > 2 && good = false", "bc"),
        ):
            self.assertEqual(found(text), names, text)

    def test_refusals(self) -> None:
        """What is no filter is refused by its field, with what is allowed."""
        for text in (
            "name",
            "name =",
            "name = bob",
            "nmae = 'bob'",
            "size = 'x'",
            "size ~ 3",
            "good > true",
            "good = 1",
            "name = 'a' & size = 3",
            "name = 'a' &&",
            "(name = 'a')",
            "name = 'it\\'s'",
            "__class__ = 'x'",
            " && ".join(["size = 1"] * 11),
        ):
            error = self.assertRaises(InvalidInput, q.parse_filter, text, FIELDS.kinds)
            self.assertEqual(error.data["field"], "filter", text)
            self.assertIn("name", error.data["allowed"])

    @given(st.from_regex(PATTERN, fullmatch=True))
    def test_all_that_the_document_allows_is_taken(self, text: str) -> None:
        """The pattern in the document describes no more than the parser takes."""
        if len(text) <= q.MAX_FILTER:
            found(text)

    @given(st.text(alphabet="name size=!<>~&|'\"19.-trueofals", max_size=40))
    def test_nothing_else_is_taken(self, text: str) -> None:
        """And no less."""
        try:
            q.parse_filter(text, FIELDS.kinds)
            taken = True
        except InvalidInput:
            taken = False
        self.assertEqual(taken, PATTERN.fullmatch(text) is not None, text)


class Lists(SynchronousTestCase):
    def listed(self, **query: str) -> dict[str, object]:
        given = {name.encode(): [value.encode()] for name, value in query.items()}
        return q.listed(THINGS, read_query(FIELDS.params(), given), FIELDS, msgspec.to_builtins)

    def test_sorting(self) -> None:
        """By several fields, each up or down; what has no value stands first."""
        for sort, names in (
            ("size", "cAb"),
            ("-size", "bAc"),
            ("-good,name", "Acb"),
            ("+status,-made", "Acb"),
            ("-gone,size", "cAb"),
        ):
            shown = self.listed(sort=sort)
            self.assertEqual("".join(item["name"][0] for item in shown["items"]), names, sort)  # type: ignore[attr-defined]

    def test_fields(self) -> None:
        """Only what was chosen."""
        self.assertEqual(
            self.listed(fields="size,name", perPage="1")["items"], [{"name": "Ann", "size": 3}]
        )

    def test_a_page(self) -> None:
        """PocketBase's shape; beyond the end there is nothing."""
        shown = self.listed(page="2", perPage="2")
        self.assertEqual(
            {k: v for k, v in shown.items() if k != "items"},
            {"page": 2, "perPage": 2, "totalItems": 3, "totalPages": 2},
        )
        self.assertEqual(self.listed(page="9")["items"], [])

    def test_refusals(self) -> None:
        """A wrong parameter is named; one that is given twice is wrong."""
        for name, value in (
            ("sort", "sise"),
            ("sort", "size,"),
            ("sort", ",".join(["size"] * 6)),
            ("fields", "nmae"),
            ("fields", "name,"),
            ("page", "0"),
            ("page", ""),
            ("page", "1.0"),
            ("page", "١"),
            ("perPage", "501"),
            ("perPage", "-1"),
        ):
            error = self.assertRaises(InvalidInput, self.listed, **{name: value})
            self.assertEqual(error.data["field"], name, value)
        twice = {b"page": [b"1", b"2"]}
        self.assertRaises(InvalidInput, read_query, FIELDS.params(), twice)


def tenant(number: int, name: str, status: TenantStatus = TenantStatus.ACTIVE) -> TenantRecord:
    at = datetime(2026, 1, 1, 0, 0, number % 60, tzinfo=UTC)
    return TenantRecord(
        id=f"tenant_{number:08d}", name=name, domain="", status=status, created=at, updated=at,
        durability=Durability.SYNC,
    )  # fmt: skip


class TenantFilters(SynchronousTestCase):
    def test_every_field_can_be_asked_for(self) -> None:
        """Whatever its name is spelled with, the pattern of the document and the parser agree."""
        kinds = q.of_records(TenantRecord, TenantRecord).kinds
        values = {"text": "'x'", "time": "'2026'", "number": "1", "bool": "true"}
        self.assertIn("onS3Outage", kinds)
        for name, kind in kinds.items():
            text = f"{name} = {values[kind]}"
            self.assertRegex(text, q.filter_pattern(kinds))
            ((condition,),) = q.parse_filter(text, kinds)
            self.assertEqual(condition.field, name)


class Order(SynchronousTestCase):
    @given(
        st.lists(st.tuples(st.integers(0, 9), st.sampled_from("abc"), st.booleans()), max_size=40)
    )
    def test_it_is_what_sorting_would_give(self, changes: list[tuple[int, str, bool]]) -> None:
        """After any creations, new names and ends, each page is a part of the sorted whole."""
        order, kept = TenantOrder(()), {}
        for number, name, deleted in changes:
            old = kept.get(number)
            new = tenant(number, name, TenantStatus.DELETED if deleted else TenantStatus.ACTIVE)
            order.changed(old, new)
            kept[number] = new
        living = [t for t in kept.values() if t.status is not TenantStatus.DELETED]
        self.assertEqual(len(order), len(living))
        for by in ("created", "name"):
            wanted = [t.id for t in sorted(living, key=lambda t: (getattr(t, by), t.id))]
            for descends in (False, True):
                whole = wanted[::-1] if descends else wanted
                got = [
                    i for b in range(0, 12, 3) for i in order.page(by, b, b + 3, descends=descends)
                ]
                self.assertEqual(got, whole)
