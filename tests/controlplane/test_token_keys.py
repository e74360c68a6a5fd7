"""Keys of platform tokens and custom domains, as parts of the registry."""

from datetime import timedelta
from typing import Any
from unittest import mock

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from pbcluster import wire
from pbcluster.controlplane import commands as c
from pbcluster.controlplane import token_keys
from pbcluster.controlplane.domains import custom_domains
from pbcluster.controlplane.registry import Registry
from pbcluster.errors import InvalidInput, NotFound
from pbcluster.records import MAX_DOMAINS
from tests.controlplane.test_registry import AT, T1, T2, Log, code

HOUR = timedelta(hours=1)
SECRET = b"private-half-of-the-signing-key!"


def rotation(
    kid: str, expected: str = "", *, hours: int = 0, now: bool = False
) -> c.RotateTokenKey:
    return c.RotateTokenKey(AT + hours * HOUR, kid, kid.encode(), SECRET, expected, now)


class TokenKeyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.log = Log()

    def kids(self) -> list[tuple[str, int]]:
        return [(key.kid, key.until) for key in self.log.registry.token_keys.verifying()]

    def note(self, kid: str, hours: int) -> str:
        return code(self.log(c.NoteToken(AT, kid, AT + hours * HOUR)))

    def test_rotation(self) -> None:
        """The new key signs; the former one verifies until its last token ends, without its private
        half, and is forgotten at the next rotation after that."""
        self.assertIsNone(self.log.registry.token_keys.current)
        applied = self.log(rotation("pb1"))
        assert applied.broadcast is not None
        self.assertEqual((applied.broadcast.topic, applied.broadcast.index), ("keys.changed", 1))
        self.note("pb1", 5)
        self.note("pb1", 3)
        self.log(rotation("pb2", "pb1", hours=1))
        until = int((AT + 5 * HOUR).timestamp()) + 1
        self.assertEqual(self.kids(), [("pb1", until), ("pb2", 0)])
        first = next(iter(self.log.registry.token_keys))
        self.assertEqual((first.private, first.retired), (b"", AT + HOUR))
        self.log(rotation("pb3", "pb2", hours=2))  # pb2 signed nothing
        self.assertEqual(self.kids(), [("pb1", until), ("pb3", 0)])
        self.log(rotation("pb4", "pb3", hours=5))
        self.assertEqual(self.kids(), [("pb4", 0)])

    def test_at_once(self) -> None:
        """Then no former key verifies anything."""
        self.log(rotation("pb1"))
        self.note("pb1", 100)
        self.log(rotation("pb2", "pb1", now=True))
        self.assertEqual(self.kids(), [("pb2", 0)])

    def test_two_rotations_from_one_view(self) -> None:
        """Only one of them happens; and a token is noted for the key that signs only."""
        self.log(rotation("pb1"))
        self.assertEqual(code(self.log(rotation("pb2"))), "conflict")
        self.log(rotation("pb2", "pb1"))
        self.assertEqual(code(self.log(rotation("pb3", "pb1"))), "conflict")
        self.assertEqual(self.note("pb1", 1), "conflict")
        self.assertEqual(self.note("pb2", 1), "")

    def test_a_repeated_rotation_happens_once(self) -> None:
        """By its idempotency key, though it brings another random key."""
        self.log(rotation("pb1"), "k")
        self.assertTrue(self.log(rotation("pb2", "pb1"), "k").repeated)
        self.assertEqual(self.kids(), [("pb1", 0)])

    def test_bound(self) -> None:
        """More former keys than the bound are not kept: the rotation is refused."""
        with mock.patch.object(token_keys, "MAX_KEYS", 2):
            for at in range(2):
                self.log(rotation(f"pb{at}", f"pb{at - 1}" if at else ""))
                self.note(f"pb{at}", 9)
            refused = self.log(rotation("pb2", "pb1"))
            self.assertEqual(code(refused), "conflict")
            self.assertEqual(code(self.log(rotation("pb2", "pb1", now=True))), "")

    def test_same_everywhere(self) -> None:
        """The same log gives the same bytes, from its beginning and from a snapshot in between."""
        self.log(rotation("pb1"))
        self.note("pb1", 5)
        middle = self.log.registry.to_bytes()
        at = len(self.log.entries)
        self.log(rotation("pb2", "pb1"))
        self.note("pb2", 5)
        again, resumed = Registry("example.com"), Registry.from_bytes("example.com", middle)
        for index, entry in enumerate(self.log.entries, 1):
            again.apply(index, entry)
            if index > at:
                resumed.apply(index, entry)
        self.assertEqual(again.to_bytes(), self.log.registry.to_bytes())
        self.assertEqual(resumed.to_bytes(), again.to_bytes())
        current = resumed.token_keys.current
        assert current is not None
        self.assertEqual((current.kid, current.private), ("pb2", SECRET))

    def test_the_private_half_stays(self) -> None:
        """It is in the members' own snapshot, and nowhere else: not in what operators save, in what
        gateways get, or in any text made of a key, a command or a failure."""
        command = rotation("pb1")
        applied = self.log(command)
        registry = self.log.registry
        self.assertIn(SECRET, registry.to_bytes())
        saved = registry.image(for_operators=True).to_bytes()
        self.assertNotIn(SECRET, saved)
        self.assertIsNone(Registry.from_bytes("example.com", saved).token_keys.current)
        keys = wire.TokenKeys(1, registry.token_keys.verifying())
        envelope = wire.Envelope("c", "m", 1, 1, "", keys)
        self.assertNotIn(SECRET, wire.encode(envelope))
        shown: tuple[Any, ...] = (
            registry.token_keys.current,
            command,
            c.Keyed("", command),
            applied,
            [*registry.token_keys],
        )
        for value in shown:
            self.assertNotIn("private-half", f"{value!r} {value}")

    def test_older_snapshots_are_read(self) -> None:
        """One from before there were keys has none."""
        state = msgspec.msgpack.decode(self.log.registry.to_bytes())
        older = msgspec.msgpack.encode(state[:10])
        self.assertIsNone(Registry.from_bytes("example.com", older).token_keys.current)


class DomainTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.log = Log()
        self.log.node()
        self.log.tenant()
        self.log.tenant(T2, "two")

    def set(self, *domains: str, tenant: str = T1) -> str:
        self.applied = self.log(c.UpdateTenant(AT, tenant, custom_domains=domains))
        return code(self.applied)

    def test_set(self) -> None:
        """The whole list is replaced; look-ups, routes, assignments and the broadcast follow."""
        self.log.assign()
        self.assertEqual(self.set("a.shop.com", "shop.com"), "")
        registry = self.log.registry
        hosts = ("one.example.com", "a.shop.com", "shop.com")
        self.assertEqual(registry.tenant_by_domain("shop.com").id, T1)
        self.assertEqual(registry.route(registry.tenant(T1)).hosts, hosts)
        self.assertEqual(registry.assignments("node_a").assignments[0].hosts, hosts)
        self.assertEqual(self.applied.changed_nodes, ("node_a",))
        self.assertEqual(registry.node("node_a").assignments_index, registry.applied_index)
        assert self.applied.broadcast is not None
        assert self.applied.broadcast.route is not None
        self.assertEqual(self.applied.broadcast.topic, "tenant.updated")
        self.assertEqual(self.applied.broadcast.route.hosts, hosts)
        self.set("shop.com")
        with self.assertRaises(NotFound):
            registry.tenant_by_domain("a.shop.com")

    def test_no_domain_is_two_tenants(self) -> None:
        """Neither another's custom domain nor its own host name; a list that is refused changes
        nothing, and a deleted tenant's domains are free."""
        self.set("shop.com")
        self.assertEqual(self.set("new.com", "shop.com", tenant=T2), "conflict")
        self.assertEqual(self.set("one.example.com", tenant=T2), "conflict")
        self.assertEqual(self.log.registry.tenant(T2).custom_domains, ())
        self.assertEqual(self.set("shop.com", "shop.org"), "")
        self.log(c.DeleteTenant(AT, T1))
        self.assertEqual(self.set("shop.com", tenant=T2), "")

    def test_a_tenant_without_a_node(self) -> None:
        """Its domains can be set; there is no route to tell."""
        self.assertEqual(self.set("shop.com"), "")
        assert self.applied.broadcast is not None
        self.assertIsNone(self.applied.broadcast.route)

    def test_what_is_taken(self) -> None:
        """Host names outside the base domain, in lower case, each once; anything else is refused
        with the rule."""
        self.assertEqual(
            custom_domains(["Shop.COM", "shop.com", "xn--bcher-kva.example"], "pb.example"),
            ("shop.com", "xn--bcher-kva.example"),
        )
        for bad in (
            "shop",
            "10.0.0.1",
            "::1",
            "[::1]",
            "shop.com.",
            "*.shop.com",
            "shop.com:80",
            "http://shop.com",
            "bücher.example",
            "a..com",
            "a_b.com",
            ("a" * 64) + ".com",
            "a." * 126 + "com",
            "",
            7,
            None,
            "pb.example",
            "shop.pb.example",
            "a.b.PB.example",
        ):
            with self.assertRaises(InvalidInput) as caught:
                custom_domains([bad], "pb.example")
            self.assertEqual(caught.exception.data["field"], "customDomains", bad)
            self.assertTrue(caught.exception.data["allowed"], bad)
        for wrong in ("shop.com", {"a": 1}, [f"a{n}.com" for n in range(MAX_DOMAINS + 1)]):
            self.assertRaises(InvalidInput, custom_domains, wrong, "pb.example")
