"""A node accepts exactly what its gateways signed."""

from hashlib import blake2b

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster import signing
from pbcluster.errors import Unauthorized
from pbcluster.signing import SIGNED, Signed, found_in, sign, verify, without_marks

KEYS = {"gateway_1": b"k" * 32, "gateway_2": b"j" * 32}


def said(what: Signed) -> tuple[str, str, int, int, str]:
    return what.gateway, what.tenant_id, what.epoch, what.at_ms, what.request_id


WHAT = Signed("gateway_1", "tenant_abcdefgh", 7, 1_700_000_000_000, "req-1")


class SigningTests(SynchronousTestCase):
    def headers(self) -> list[tuple[bytes, bytes]]:
        return [(SIGNED, sign(KEYS["gateway_1"], b"POST", b"/api/x?y=1", WHAT))]

    def words(self) -> list[bytes]:
        return self.headers()[0][1].split(b" ")

    def refused(self, headers: list[tuple[bytes, bytes]], **changed: object) -> str:
        given = {"method": b"POST", "target": b"/api/x?y=1", "now_ms": WHAT.at_ms, **changed}
        with self.assertRaises(Unauthorized) as caught:
            verify(KEYS, value=found_in(headers), **given)  # type: ignore[arg-type]
        return str(caught.exception)

    def test_good(self) -> None:
        """What was signed comes back."""
        headers = [(b"Host", b"x"), *self.headers()]
        found = verify(KEYS, b"POST", b"/api/x?y=1", found_in(headers), WHAT.at_ms)
        self.assertEqual(said(found), said(WHAT))

    def test_a_key_that_is_exchanged(self) -> None:
        """Meanwhile a further key counts as well, for its own gateway only; afterwards it does
        not."""
        value = found_in(self.headers())
        now = {"gateway_1": b"new", "gateway_2": b"j"}
        asked = (b"POST", b"/api/x?y=1", value, WHAT.at_ms)
        also = {"gateway_1": (b"other", KEYS["gateway_1"])}
        self.assertEqual(said(verify(now, *asked, also)), said(WHAT))
        for none in ({}, {"gateway_2": also["gateway_1"]}, {"gateway_1": ()}):
            self.assertRaises(Unauthorized, verify, now, *asked, none)
        self.assertRaises(Unauthorized, verify, {}, *asked, also)

    def test_every_signed_part_counts(self) -> None:
        """Changing method, target or any signed field breaks the signature."""
        self.refused(self.headers(), method=b"GET")
        self.refused(self.headers(), target=b"/api/x?y=2")
        for place in range(6):
            for other in (b"gateway_2", b"8", b"f" * 64):
                words = self.words()
                if words[place] != other:
                    words[place] = other
                    self.refused([(SIGNED, b" ".join(words))])

    def test_missing_and_doubled(self) -> None:
        """A missing word is refused, and so are two fields in any spelling, and other spaces."""
        words = self.words()
        for place in range(6):
            self.refused([(SIGNED, b" ".join(words[:place] + words[place + 1 :]))])
        self.refused([])
        self.refused([(SIGNED, b"  ".join(words))])
        self.refused([(SIGNED, b" ".join([*words, b"x"]))])
        twice = [*self.headers(), (b"x-pbcluster-SIGNED", b" ".join(words))]
        self.assertIn("twice", self.refused(twice))

    def test_mac(self) -> None:
        """The last word is keyed BLAKE2b of method, target and the other words; a key that is too
        long, or empty, is hashed before."""
        *words, mac = self.words()
        text = b" ".join([b"POST", b"/api/x?y=1", *words])
        for key in (KEYS["gateway_1"], b"l" * 64, b"", b"l" * 65):
            used = key if key and len(key) <= 64 else blake2b(key).digest()
            expected = blake2b(text, key=used, digest_size=32).hexdigest().encode()
            self.assertEqual(sign(key, b"POST", b"/api/x?y=1", WHAT).split(b" ")[-1], expected)
        self.assertEqual(len(mac), 64)

    def test_time(self) -> None:
        """A signature is good for 30 s of clock difference to either side."""
        for off_ms in (-30_000, 30_000):
            verify(KEYS, b"POST", b"/api/x?y=1", found_in(self.headers()), WHAT.at_ms + off_ms)
        for off_ms in (-30_001, 30_001):
            self.assertIn("ago", self.refused(self.headers(), now_ms=WHAT.at_ms + off_ms))

    def test_unknown_gateway(self) -> None:
        """A gateway whose key the node lacks is refused, even with an empty or zero key."""
        for key in (b"", b"\x00", b"k" * 32):
            what = Signed("gateway_9", WHAT.tenant_id, 7, WHAT.at_ms, "r")
            self.refused([(SIGNED, sign(key, b"POST", b"/api/x?y=1", what))])

    @given(st.lists(st.tuples(st.binary(max_size=30), st.binary(max_size=30)), max_size=8))
    def test_junk_is_refused(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Any header list at all ends in Unauthorized."""
        self.refused(headers)

    def test_marks_are_removed(self) -> None:
        """Nobody else's header under the platform's prefix passes a hop."""
        headers = [(b"X-pbcluster-Foo", b"1"), (b"Accept", b"*/*"), *self.headers()]
        self.assertEqual(without_marks(headers), [(b"Accept", b"*/*")])
        for name in (signing.NOT_PROCESSED, signing.NODE_EPOCH, signing.DURABILITY):
            self.assertEqual(without_marks([(name, b"x")]), [])
