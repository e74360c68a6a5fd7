"""The document of the admin API, and the API held against it."""

from pathlib import Path

import msgspec
import treq
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

import pbcluster
from pbcluster.controlplane import api_page, openapi
from pbcluster.controlplane.admin_api import AdminAPI
from pbcluster.controlplane.admin_guard import OPERATIONS
from pbcluster.records import NodeRecord, TenantQuotas, TenantRecord
from tests.controlplane import fuzz_api

#: The seed's table of external endpoints.
SEED = (
    ("post", "/api/cp/tenants"),
    ("get", "/api/cp/tenants"),
    ("get", "/api/cp/tenants/{key}"),
    ("put", "/api/cp/tenants/{key}"),
    ("delete", "/api/cp/tenants/{key}"),
    ("get", "/api/cp/nodes"),
    ("get", "/api/cp/nodes/{key}"),
    ("get", "/api/cp/health"),
)


class Document(SynchronousTestCase):
    def setUp(self) -> None:
        self.document = openapi.document(OPERATIONS)

    def names(self, schema: str) -> set[str]:
        return set(self.document["components"]["schemas"][schema]["properties"])

    def test_every_route_is_described(self) -> None:
        """Whatever Klein routes stands in the table of operations, and so in the document."""
        routed = {
            (method, rule.rule)
            for rule in AdminAPI.app.url_map.iter_rules()
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        }
        self.assertEqual(routed, {(each.method, each.path) for each in OPERATIONS.values()})

    def test_every_row_of_the_first_table_is_there(self) -> None:
        """The endpoints that the platform was designed with, but for migration's own."""
        for method, path in SEED:
            self.assertIn(method, self.document["paths"][path])

    def test_the_page_is_made_from_the_table(self) -> None:
        """``python -m pbcluster.controlplane.api_page > docs/api.rst``."""
        page = Path(pbcluster.__file__).parent.parent / "docs" / "api.rst"
        self.assertEqual(page.read_text(encoding="utf-8"), api_page.page(OPERATIONS))

    def test_schemas_follow_the_records(self) -> None:
        """A field that is appended to a record is described; what operators must not see is not."""
        for schema, record, hidden in (
            ("Tenant", TenantRecord, {"initialSuperuser"}),
            ("Node", NodeRecord, {"startID"}),
            ("Quotas", TenantQuotas, set()),
        ):
            fields = {field.encode_name for field in msgspec.structs.fields(record)}
            self.assertLessEqual(fields - hidden, self.names(schema))
            self.assertEqual(self.names(schema) & hidden, set())

    def test_nothing_secret_has_a_place_in_an_answer(self) -> None:
        """No schema of an answer has a field for a password, a hash, a digest or a private key."""
        bodies = {"NewTenant", "Superuser", "NewMember"}
        for name, schema in self.document["components"]["schemas"].items():
            for field in {} if name in bodies else schema.get("properties", {}):
                for word in ("password", "hash", "digest", "private", "secret"):
                    self.assertNotIn(word, field.lower(), name)


class Held(TestCase):
    """The short form of ``make fuzz-api``."""

    timeout = 300  # it runs at the lowest priority beside others

    async def held(self, role: str, examples: int, phases: str, *further: str) -> None:
        served = fuzz_api.Served(reactor)
        try:
            status, output = await fuzz_api.hold(
                reactor, served, role, examples=examples, phases=phases, further=further
            )
            # The process that was asked all that answers still.
            response = await treq.get(f"{served.url}/api/cp/health", persistent=False)
            self.assertEqual((response.code, (await response.json())["leader"]), (200, True))
        finally:
            await served.close()
        self.assertEqual(status, 0, output[-6000:])
        self.assertIn("No issues found", output)

    def test_as_admin(self) -> Deferred[None]:
        """Every check of schemathesis holds, for right and wrong requests alike."""
        return Deferred.fromCoroutine(self.held("admin", 2, "coverage,fuzzing"))

    def test_as_others(self) -> Deferred[None]:
        """The same for those who may do less, and for who has no token."""

        async def run() -> None:
            for role in ("operator", "viewer", fuzz_api.NOBODY):
                await self.held(role, 1, "fuzzing")

        return Deferred.fromCoroutine(run())
