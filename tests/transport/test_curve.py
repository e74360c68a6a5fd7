"""Keys and the allow-list, without sockets."""

from __future__ import annotations

import zmq.utils.z85
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.config import Peer, Secrets
from pbcluster.errors import ConfigError
from pbcluster.transport.addresses import (
    MemberAddress,
    connectable,
    is_loopback,
    member_addresses,
    to_bind,
)
from pbcluster.transport.curve import (
    REMOVED,
    AllowList,
    Curve,
    KeyPair,
    ZapHandler,
    generate_keys,
    public_of,
)


def request(keys: KeyPair, domain: bytes = b"member,node") -> list[bytes]:
    raw = zmq.utils.z85.decode(keys.public)
    return [b"way", b"", b"1.0", b"17", domain, b"127.0.0.1", b"", b"CURVE", raw]


class Keys(SynchronousTestCase):
    def test_public_of(self) -> None:
        """The public key follows from the secret one."""
        keys = generate_keys()
        self.assertEqual(public_of(keys.secret), keys.public)
        self.assertNotEqual(keys, generate_keys())

    def test_wrong_keys(self) -> None:
        """What is no key is refused, and the message does not show it."""
        for wrong in ("", "short", "a" * 39, "a" * 41, '"' * 40, "ä" * 40, "~" * 40):
            error = self.assertRaises(ConfigError, public_of, wrong)
            if wrong:
                self.assertNotIn(wrong, str(error).replace("curve_secret", ""))

    def test_secrets_are_not_shown(self) -> None:
        """No repr shows a secret key."""
        keys = generate_keys()
        curve = Curve.of(Secrets(curve_secret=keys.secret), {})
        self.assertNotIn(keys.secret, repr(keys) + repr(curve))

    def test_one_key_for_two(self) -> None:
        """Two processes with one key are refused, and the former list stays."""
        keys = generate_keys()
        allowed = AllowList({"a": Peer("a", "node", keys.public)})
        both = {name: Peer(name, "node", keys.public) for name in ("a", "b")}
        self.assertRaises(ConfigError, allowed.replace, both)
        self.assertRaises(ConfigError, allowed.replace, {"a": Peer("a", "node", "no key")})
        self.assertEqual(allowed.key_of("a"), keys.public)

    def test_allowed_on_top_of_the_file(self) -> None:
        """A further process is known by its key, also after the file was read anew; a new key of
        one that is known replaces the old one."""
        old, new = generate_keys(), generate_keys()
        allowed = AllowList({"a": Peer("a", "member", old.public)})
        allowed.allow(Peer("b", "member", new.public))
        self.assertEqual(allowed.key_of("b"), new.public)
        allowed.revoke("b")
        allowed.allow(Peer("a", "member", new.public))
        allowed.replace({"a": Peer("a", "member", old.public), "c": Peer("c", "node", "")})
        self.assertEqual(allowed.key_of("a"), new.public)
        self.assertIsNone(allowed.by_key(old.public))
        self.assertIsNone(allowed.by_key("c"))

    def test_a_key_that_is_exchanged(self) -> None:
        """Both keys are the process's meanwhile, also when the registry names the new one; only the
        peers file can say so, and when it does not any more the former is nobody's."""
        old, new = generate_keys(), generate_keys()
        row = Peer("a", "node", new.public, (old.public, new.public))
        allowed = AllowList({"a": row})
        for _ in range(2):
            for keys in (old, new):
                found = allowed.by_key(keys.public)
                assert found is not None
                self.assertEqual((found.id, found.role), ("a", "node"))
                self.assertTrue(allowed.is_key_of("a", keys.public))
            self.assertEqual(allowed.key_of("a"), new.public)
            allowed.allow(Peer("a", "node", new.public))
        allowed.replace({"a": Peer("a", "node", new.public)})
        self.assertIsNone(allowed.by_key(old.public))
        allowed.replace({"a": row})
        allowed.revoke("a")
        self.assertIsNone(allowed.by_key(old.public))

    def test_a_former_key_is_not_anothers(self) -> None:
        """Nor may it be no key at all."""
        old, new = generate_keys(), generate_keys()
        other = Peer("b", "node", old.public)
        for also in (old.public, "no key"):
            both = {"a": Peer("a", "node", new.public, (also,)), "b": other}
            self.assertRaises(ConfigError, AllowList, both)

    def test_many_at_once(self) -> None:
        """All changes or none; a removed node is let in only where removed ones are."""
        a, b, fresh = (generate_keys() for _ in range(3))
        allowed = AllowList({"a": Peer("a", "node", a.public)})
        removed = Peer("a", REMOVED, a.public)
        allowed.change([Peer("b", "node", b.public), removed], ["c"])
        self.assertEqual(allowed.by_key(a.public), removed)
        with self.assertRaises(ConfigError):
            allowed.change([Peer("c", "node", fresh.public), Peer("d", "node", b.public)], [])
        self.assertIsNone(allowed.by_key(fresh.public))
        handler = ZapHandler(allowed)
        for roles, code in ((b"member,removed", b"200"), (b"member,node", b"400")):
            reply = handler.reply(request(a, roles))
            assert reply is not None
            self.assertEqual(reply[4], code)

    def test_revoked(self) -> None:
        """Who is revoked is not known any more, though it stands in the file; it may come back."""
        keys = generate_keys()
        peer = Peer("a", "member", keys.public)
        allowed = AllowList({"a": peer})
        for _ in range(2):
            allowed.revoke("a")
            allowed.revoke("stranger")
            self.assertIsNone(allowed.by_key(keys.public))
            self.assertRaises(ConfigError, allowed.key_of, "a")
            allowed.replace({"a": peer})
            self.assertIsNone(allowed.by_key(keys.public))
            allowed.allow(peer)
            self.assertEqual(allowed.by_key(keys.public), peer)
        self.assertNotIn("stranger", allowed._changes)

    def test_who_may_not_be_allowed(self) -> None:
        """No key, another's key and another role than in the file: the former list stays."""
        keys = generate_keys()
        allowed = AllowList({"a": Peer("a", "node", keys.public)})
        for wrong in (
            Peer("b", "member", ""),
            Peer("b", "member", "no key"),
            Peer("b", "member", keys.public),
            Peer("a", "member", generate_keys().public),
        ):
            self.assertRaises(ConfigError, allowed.allow, wrong)
        self.assertEqual(allowed.key_of("a"), keys.public)
        self.assertRaises(ConfigError, allowed.key_of, "b")

    def test_peer_without_key(self) -> None:
        """A process without a key is in no list and cannot be connected to."""
        allowed = AllowList({"a": Peer("a", "node", "")})
        self.assertRaises(ConfigError, allowed.key_of, "a")
        self.assertRaises(ConfigError, allowed.key_of, "b")
        self.assertIsNone(allowed.by_key(""))


class Decisions(SynchronousTestCase):
    def setUp(self) -> None:
        self.keys = generate_keys()
        self.allowed = AllowList({"node_a": Peer("node_a", "node", self.keys.public)})
        self.handler = ZapHandler(self.allowed)

    def code(self, parts: list[bytes]) -> bytes:
        reply = self.handler.reply(parts)
        assert reply is not None
        return reply[4]

    def test_known_key(self) -> None:
        """A known key is let in; the reply names it, so that messages carry it."""
        key = self.keys.public.encode()
        expected = [b"way", b"", b"1.0", b"17", b"200", b"OK", key, b""]
        self.assertEqual(self.handler.reply(request(self.keys)), expected)

    def test_unknown_key(self) -> None:
        """Another key is refused and counted, in the way that lets its owner try again later."""
        self.assertEqual(self.code(request(generate_keys())), b"300")
        self.assertEqual(self.handler.counts["refused"], 1)

    def test_role(self) -> None:
        """A known key whose role may not use the socket is refused."""
        self.assertEqual(self.code(request(self.keys, b"member")), b"400")
        self.assertEqual(self.code(request(self.keys, b"")), b"400")

    def test_other_mechanism(self) -> None:
        """Whoever comes without CURVE is refused."""
        parts = request(self.keys)
        parts[7] = b"NULL"
        self.assertEqual(self.code(parts), b"400")
        self.assertEqual(self.code(parts[:8]), b"400")

    def test_removed_key(self) -> None:
        """A key that left the list is refused from then on."""
        self.allowed.replace({})
        self.assertEqual(self.code(request(self.keys)), b"300")

    @given(st.lists(st.binary(max_size=40), max_size=12))
    def test_any_parts(self, parts: list[bytes]) -> None:
        """No request whatever raises or is let in."""
        reply = self.handler.reply(parts)
        self.assertTrue(reply is None or reply[4] != b"200")


class Addresses(SynchronousTestCase):
    def test_parse(self) -> None:
        """An address may name its member; anything else is refused with what is allowed."""
        parsed = MemberAddress.parse("tcp://10.0.0.1:5555#member_1")
        self.assertEqual(parsed, MemberAddress("tcp://10.0.0.1:5555", "member_1"))
        self.assertEqual(MemberAddress.parse("tcp://h:1").member_id, "")
        for wrong in ("", "tcp://h", "udp://h:1", "tcp://h:1#", "tcp://h:1#A b", "tcp://h:99999"):
            error = self.assertRaises(ConfigError, MemberAddress.parse, wrong)
            self.assertIn("tcp://HOST:PORT", str(error))
        self.assertRaises(ConfigError, member_addresses, ["tcp://h:1#a", "tcp://h:1#b"])

    def test_loopback(self) -> None:
        """Loopback is an address of this machine only; a name other than localhost is not."""
        for near in (
            "tcp://127.0.0.1:1",
            "tcp://[::1]:1",
            "tcp://localhost:1",
            "tcp://127.9.9.9:1",
        ):
            self.assertTrue(is_loopback(near), near)
        for far in ("tcp://0.0.0.0:1", "tcp://10.0.0.1:1", "tcp://example.org:1", "tcp://*:1"):
            self.assertFalse(is_loopback(far), far)

    def test_port_0(self) -> None:
        """Port 0 is any free one; other ports stay."""
        self.assertEqual(to_bind("tcp://127.0.0.1:0"), "tcp://127.0.0.1:*")
        self.assertEqual(to_bind("tcp://127.0.0.1:10"), "tcp://127.0.0.1:10")

    def test_connectable(self) -> None:
        """What came in a record must be an address of one machine, with a port and an id."""
        for good in ("tcp://127.0.0.1:1", "tcp://[::1]:65535", "tcp://a-b.example.com:5555"):
            self.assertEqual(connectable(good, "member_1"), MemberAddress(good, "member_1"))
        for bad in (
            "",
            "127.0.0.1:1",
            "tcp://127.0.0.1",
            "tcp://127.0.0.1:0",
            "tcp://127.0.0.1:65536",
            "tcp://127.0.0.1:1#member_2",
            "tcp://*:1",
            "tcp://0.0.0.0:1",
            "tcp://[::]:1",
            "tcp://[:::1]:1",
            "tcp://-bad:1",
            "ipc://x:1",
            f"tcp://{'a' * 300}:1",
        ):
            self.assertRaises(ConfigError, connectable, bad, "member_1")
        self.assertRaises(ConfigError, connectable, "tcp://127.0.0.1:1", "Member 1")
