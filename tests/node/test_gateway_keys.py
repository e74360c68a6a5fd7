"""Whose requests a node takes."""

from twisted.trial.unittest import SynchronousTestCase

from pbcluster import signing
from pbcluster.config import Secrets
from pbcluster.node.gateway_keys import GatewayKeys
from pbcluster.wire import Members


class Keys(SynchronousTestCase):
    def test_come_and_go(self) -> None:
        """A gateway that joined has the key that is derived for it; one that was removed has none,
        also if it stands in the secrets; the secrets' own key wins."""
        keys = GatewayKeys({"gateway_1": "own"}, "seed")
        self.assertEqual(keys.keys, {"gateway_1": b"own"})
        keys.heard(Members(1, (), ("gateway_1", "gateway_x")))
        derived = signing.derived_key("seed", "gateway_x").encode()
        self.assertEqual(keys.keys, {"gateway_1": b"own", "gateway_x": derived})
        keys.heard(Members(2, (), ("gateway_x",), ("gateway_1",)))
        self.assertEqual((keys.keys, len(keys.keys)), ({"gateway_x": derived}, 1))
        keys.heard(Members(3, (), (), ("gateway_1", "gateway_x")))
        self.assertEqual(keys.keys.get("gateway_x"), None)

    def test_keys_that_are_exchanged(self) -> None:
        """The secrets may name further keys; they are read again, and those of a gateway that was
        removed are gone with its own."""
        keys = GatewayKeys.of(
            Secrets(gateway_keys={"gateway_1": "old"}, gateway_keys_also={"gateway_1": ["new"]})
        )
        also = keys.also
        self.assertEqual((keys.keys, also), ({"gateway_1": b"old"}, {"gateway_1": (b"new",)}))
        keys.use(Secrets(gateway_keys={"gateway_1": "new"}))
        self.assertEqual((keys.keys, also), ({"gateway_1": b"new"}, {}))
        keys.use(
            Secrets(gateway_keys={"gateway_1": "new"}, gateway_keys_also={"gateway_1": ["old"]})
        )
        keys.heard(Members(1, (), (), ("gateway_1",)))
        self.assertEqual((keys.keys, also), ({}, {}))

    def test_without_a_seed_nobody_is_added(self) -> None:
        """A cluster that was made before gateways could join."""
        keys = GatewayKeys({"gateway_1": "own"})
        keys.heard(Members(1, (), ("gateway_1", "gateway_x")))
        self.assertEqual(list(keys.keys), ["gateway_1"])

    def test_keys_differ(self) -> None:
        """By seed and by id."""
        made = {signing.derived_key(s, g) for s in ("a", "b") for g in ("gateway_1", "gateway_2")}
        self.assertEqual(len(made), 4)
