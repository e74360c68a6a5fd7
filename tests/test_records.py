"""The rules for names, and the JSON spelling of the seed."""

from datetime import UTC, datetime

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.errors import InvalidInput
from pbcluster.records import (
    NodeRecord,
    TenantRecord,
    TenantStatus,
    check_domain,
    check_name,
    check_process_id,
    is_tenant_id,
)


class NameTests(SynchronousTestCase):
    def test_good_names(self) -> None:
        """One DNS label in lower case is a name."""
        for name in ("a", "7", "shop", "a-b", "x" * 63):
            self.assertEqual(check_name(name), name)

    def test_bad_names_tell_the_rule(self) -> None:
        """Everything else is refused with the field and the rule."""
        bad = ("", "-a", "a-", "A", "a_b", "a.b", "x" * 64, "ä", "a b", "a/b", "..", "a\n", "xn--a")
        for name in bad:
            error = self.assertRaises(InvalidInput, check_name, name)
            self.assertEqual(error.data["field"], "name")
            self.assertIn("lower-case letters", str(error))

    @given(st.text(max_size=70))
    def test_a_name_is_never_an_id_and_safe_in_a_path(self, text: str) -> None:
        """No name looks like a tenant id, and none holds what a path or topic could trip over."""
        try:
            check_name(text)
        except InvalidInput:
            return
        self.assertFalse(is_tenant_id(text))
        self.assertEqual(set(text) - set("abcdefghijklmnopqrstuvwxyz0123456789-"), set())

    def test_domains(self) -> None:
        """A custom domain has two labels or more and is no IP address."""
        self.assertEqual(check_domain("shop.example.com"), "shop.example.com")
        for domain in ("example", "10.0.0.1", "a..b", ".a.b", "a.b.", "A.b", "a_b.c", "a." * 130):
            self.assertRaises(InvalidInput, check_domain, domain)

    def test_process_ids(self) -> None:
        """Ids of processes are words that are safe in file names and socket identities."""
        self.assertEqual(check_process_id("node_1"), "node_1")
        for word in ("", "1node", "Node", "a/b", "a.b", "x" * 64):
            self.assertRaises(InvalidInput, check_process_id, word)


class JsonTests(SynchronousTestCase):
    def test_the_seeds_names(self) -> None:
        """JSON speaks the seed's language: nodeID, everReady, activeCount."""
        now = datetime(2026, 1, 2, tzinfo=UTC)
        tenant = TenantRecord(
            id="tenant_abcdefgh",
            name="shop",
            domain="shop.localhost",
            status=TenantStatus.CREATED,
            created=now,
            updated=now,
        )
        shown = msgspec.json.decode(msgspec.json.encode(tenant))
        for name in ("id", "nodeID", "epoch", "everReady", "customDomains", "status", "quotas"):
            self.assertIn(name, shown)
        node = msgspec.json.decode(msgspec.json.encode(NodeRecord(id="node_1", address="http://x")))
        for name in ("activeCount", "lastHeartbeat", "resources", "capacity"):
            self.assertIn(name, node)

    def test_stored_form_reads_back(self) -> None:
        """What is stored is what was meant."""
        now = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
        tenant = TenantRecord(
            id="tenant_abcdefgh",
            name="shop",
            domain="shop.localhost",
            status=TenantStatus.ACTIVE,
            created=now,
            updated=now,
            metadata={"plan": {"seats": 3}},
        )
        packed = msgspec.msgpack.encode(tenant)
        self.assertEqual(msgspec.msgpack.decode(packed, type=TenantRecord), tenant)
