"""Platform tokens: what is signed, and everything that must not be taken for it."""

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster import platform_tokens as tokens
from pbcluster.errors import Unauthorized
from pbcluster.platform_tokens import LEEWAY_S, Claims, TokenTooLong

NOW = 1_800_000_000
TENANT = "tenant_shop00000000"
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
PUBLIC = KEY.public_key()
PAYLOAD = {
    "iss": "pbcluster:c1",
    "aud": "gateway",
    "tenant": TENANT,
    "iat": NOW,
    "exp": NOW + 60,
}


def b64(value: Any) -> bytes:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def token(payload: dict[str, Any], key: Any = KEY, alg: str = "EdDSA", **header: Any) -> bytes:
    return jwt.encode(payload, key, algorithm=alg, headers={"kid": "pb1"} | header).encode()


def check(text: bytes, now: float = NOW) -> Claims:
    tokens.kid_of(text)
    return tokens.verify(PUBLIC, text, cluster_id="c1", now_s=now)


class PlatformTokenTests(SynchronousTestCase):
    def refused(self, text: bytes, now: float = NOW, saying: str = "") -> None:
        with self.assertRaises(Unauthorized) as caught:
            check(text, now)
        self.assertIn(saying, caught.exception.message)
        # Nothing of the token is told back.
        for part in text.decode("latin-1").split("."):
            if len(part) > 8:
                self.assertNotIn(part, caught.exception.message)

    def test_sign_and_verify(self) -> None:
        """What sign makes verifies, is known by its beginning, and says what it was given."""
        made = tokens.sign(
            b"k" * 32, "pb1", cluster_id="c1", claims=Claims(TENANT, NOW + 60), now=NOW, jti="j"
        ).encode()
        self.assertEqual(check(made), Claims(TENANT, NOW + 60))
        self.assertEqual(tokens.kid_of(made), "pb1")
        self.assertTrue(made.startswith(tokens.PREFIX))
        self.assertTrue(tokens.is_ours(b"Bearer " + made))
        self.assertFalse(tokens.is_ours(b"Bearer " + token(PAYLOAD, b"s" * 32, "HS256")))

    def test_alg_none(self) -> None:
        """An unsigned token is refused, in any spelling of none."""
        for alg in ("none", "None", "NONE", "nOnE", "", None):
            head = b64({"alg": alg, "kid": "pb1", "typ": "JWT"})
            for end in (b"", b"x", b64(b"\0" * 64)):
                self.refused(head + b"." + b64(PAYLOAD) + b"." + end)

    def test_hs256_with_the_public_key(self) -> None:
        """The public key as an HMAC secret signs nothing; nor does any unlisted algorithm."""
        head = b64({"alg": "HS256", "kid": "pb1", "typ": "JWT"})
        for secret in (PUBLIC.public_bytes_raw(), b64(PUBLIC.public_bytes_raw())):
            signed = head + b"." + b64(PAYLOAD)
            mac = hmac.new(secret, signed, hashlib.sha256).digest()
            self.refused(signed + b"." + b64(mac), saying="EdDSA")
        rsa = generate_private_key(65537, 2048)
        self.refused(token(PAYLOAD, rsa, "RS256"), saying="EdDSA")

    def test_another_key(self) -> None:
        """A key that comes with the token counts nothing, however the header offers it."""
        other = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
        jwk = {
            "kty": "OKP",
            "crv": "Ed25519",
            "x": b64(other.public_key().public_bytes_raw()).decode(),
        }
        for header in (
            {},
            {"jku": "http://127.0.0.1:1/keys"},
            {"x5u": "http://127.0.0.1:1/cert"},
            {"jwk": jwk},
            {"x5c": ["AAAA"]},
        ):
            self.refused(token(PAYLOAD, other, **header), saying="signature")

    def test_claims(self) -> None:
        """Each claim that is missing, wrong or of a wrong type is refused by a sentence of its
        own kind."""
        table: tuple[tuple[str, Any, str], ...] = (
            ("iss", "pbcluster:c2", "iss"),
            ("iss", None, "lacks"),
            ("aud", "node", "aud"),
            ("aud", ["node"], "aud"),
            ("aud", None, "lacks"),
            ("tenant", None, "lacks"),
            ("tenant", "shop", "tenant"),
            ("tenant", "tenant_../../etc/x", "tenant"),
            ("tenant", 7, "tenant"),
            ("exp", None, "lacks"),
            ("exp", NOW - LEEWAY_S, "expired"),
            ("exp", 0, "expired"),
            ("exp", "soon", "exp"),
            ("exp", True, "exp"),
            ("exp", -1, "exp"),
            ("exp", 1e300, "exp"),
            ("exp", float("nan"), "exp"),
            ("nbf", NOW + LEEWAY_S + 1, "not valid yet"),
            ("iat", NOW + LEEWAY_S + 1, "not valid yet"),
            ("nbf", "now", "nbf"),
            ("nbf", [], "nbf"),
        )
        for name, value, saying in table:
            payload = PAYLOAD | {name: value}
            if value is None:
                del payload[name]
            self.refused(token(payload), saying=saying)
        self.assertEqual(check(token(PAYLOAD), NOW + 60 + LEEWAY_S - 1).tenant_id, TENANT)
        self.refused(token(PAYLOAD), NOW + 60 + LEEWAY_S, "expired")

    def test_kid(self) -> None:
        """A token must name a key of ours."""
        for kid in ("x1", "", "pb" + "1" * 63):
            self.refused(token(PAYLOAD, kid=kid), saying="kid")
        self.refused(jwt.encode(PAYLOAD, KEY, algorithm="EdDSA").encode(), saying="kid")
        for kid in (1, None, ["pb1"], {}):
            head = b64({"alg": "EdDSA", "kid": kid})
            self.refused(head + b"." + b64(PAYLOAD) + b"." + b64(b"\0" * 64))

    def test_size(self) -> None:
        """Over 8 KiB it is 431, before anything is decoded."""
        long = token(PAYLOAD | {"more": "x" * 9000})
        with self.assertRaises(TokenTooLong) as caught:
            tokens.kid_of(long)
        self.assertEqual(caught.exception.status, 431)
        self.assertEqual(check(token(PAYLOAD | {"more": "x" * 4000})).tenant_id, TENANT)

    @given(st.binary(max_size=200), st.integers(0, 400), st.integers(1, 255))
    def test_damage(self, junk: bytes, at: int, flip: int) -> None:
        """Junk and every changed byte are refused by one kind of error."""
        good = bytearray(token(PAYLOAD))
        for text in (junk, b"a." + junk, good[:60] + junk):
            self.assertRaises(Unauthorized, check, bytes(text))
        at %= len(good)
        good[at] ^= flip
        # The last character of a part has bits that mean nothing.
        if at not in (good.find(b".") - 1, good.rfind(b".") - 1, len(good) - 1):
            self.assertRaises(Unauthorized, check, bytes(good))
