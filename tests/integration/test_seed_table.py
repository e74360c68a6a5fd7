"""docs/seed-coverage.rst names tests that exist, for every row of the seed's API."""

import importlib
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import pbcluster

PAGE = Path(pbcluster.__file__).parent.parent / "docs" / "seed-coverage.rst"
NAMED = re.compile(r"``((?:tests\.)?[a-z_.]*test_[A-Za-z_.]+)``")
#: The seed's "API Endpoints".
ENDPOINTS = (
    *(f"/internal/tenant/{what}" for what in ("assign", "route")),
    *(f"/internal/node/{what}" for what in ("register", "heartbeat", "capacity")),
    *("POST /api/cp/tenants", "GET /api/cp/tenants"),
    *(f"{method} /api/cp/tenants/{{id}}" for method in ("GET", "PUT", "DELETE")),
    "POST /api/cp/tenants/{id}/migrate",
    *("GET /api/cp/nodes", "GET /api/cp/nodes/{id}", "GET /api/cp/health"),
)


def lacks(name: str) -> str:
    """What is missing of a test's or a module's dotted name; empty: nothing."""
    full = name if name.startswith("tests.") else f"tests.integration.{name}"
    parts = full.split(".")
    place = next((n for n, part in enumerate(parts) if part[:1].isupper()), len(parts))
    try:
        found: object = importlib.import_module(".".join(parts[:place]))
        for part in parts[place:]:
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        return f"{full}: {error}"
    return ""


class TableTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.text = PAGE.read_text(encoding="utf-8")

    def rows(self) -> dict[str, str]:
        """First cell of each row → its last one."""
        found = {}
        for row in re.split(r"^   \* - ", self.text, flags=re.MULTILINE)[1:]:
            first, *_, last = row.split("\n     - ")
            found[first.strip().strip("`")] = last
        return found

    def test_every_test_exists(self) -> None:
        """A module, a class of it, and a test of that."""
        names = set(NAMED.findall(self.text))
        self.assertGreater(len(names), 20)
        self.assertEqual([told for name in sorted(names) if (told := lacks(name))], [])
        self.assertTrue(lacks("test_seed.SeedTests.test_nothing"))
        self.assertTrue(lacks("test_nothing.SeedTests.test_nothing"))

    def test_every_row_has_one(self) -> None:
        """The seed's endpoints are all there, and no row is without a test."""
        rows = self.rows()
        self.assertEqual([each for each in ENDPOINTS if each not in rows], [])
        heads = {"test"}
        without = [
            first
            for first, last in rows.items()
            if last.strip() not in heads and not (NAMED.search(last) or "|crossing|" in last)
        ]
        self.assertEqual(without, [])
