"""Platform tokens: signed by the control plane, verified by gateways. Pure: keys and time come in.

A token is a JWT (RFC 7519) under EdDSA with Ed25519 (RFC 8037). It says "this request is for tenant
so-and-so" where the host name does not, and nothing of what the bearer may do there: that is
between the client and the tenant's PocketBase.

The header is always ``{"alg":"EdDSA","kid":"pb…","typ":"JWT"}`` in this very spelling, so a token
of ours can be told from PocketBase's own by its first bytes (:func:`is_ours`); with any other
spelling of the header its signature would not hold. Of the header only ``alg`` and ``kid`` are
looked at: no key is taken from a token, and none is fetched for it (``jku``, ``x5u``, ``jwk``).
"""

from __future__ import annotations

import base64
from typing import Any

import attrs
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pbcluster.errors import CallerError, Unauthorized
from pbcluster.records import is_tenant_id

ALGORITHM = "EdDSA"
AUDIENCE = "gateway"
#: Every key's id begins so.
KID_PREFIX = "pb"
#: The first bytes of every token: whole groups of base64, so nothing behind them changes them.
PREFIX = base64.b64encode(b'{"alg":"EdDSA","kid":"' + KID_PREFIX.encode())
#: A larger one is refused before it is looked at.
MAX_TOKEN_BYTES = 8 * 1024
#: Clocks of the control plane and a gateway may differ by so much.
LEEWAY_S = 10
#: A token ends: nothing but its end takes it back, unless all are taken back.
MIN_LIFETIME_S, MAX_LIFETIME_S = 60, 90 * 86400


@attrs.frozen
class Claims:
    """What a valid token says.

    :ivar expires: Unix seconds.
    """

    tenant_id: str
    expires: int


class TokenTooLong(CallerError):
    """It has more than :data:`MAX_TOKEN_BYTES`."""

    status = 431
    code = "token_too_long"

    def __init__(self) -> None:
        super().__init__(f"the bearer token is longer than {MAX_TOKEN_BYTES} bytes")


def issuer(cluster_id: str) -> str:
    """The claim ``iss`` of a cluster's tokens. A recovered cluster has another id: its former
    tokens count no more."""
    return f"pbcluster:{cluster_id}"


def is_ours(authorization: bytes) -> bool:
    """Whether a token of ours stands anywhere in a header's value; quick, and no proof of it."""
    return PREFIX in authorization


def sign(private: bytes, kid: str, *, cluster_id: str, claims: Claims, now: int, jti: str) -> str:
    """A new token.

    :param private: raw Ed25519 key. :param now: Unix seconds. :param jti: random, for its log line.
    """
    payload = {
        "iss": issuer(cluster_id),
        "aud": AUDIENCE,
        "tenant": claims.tenant_id,
        "iat": now,
        "exp": claims.expires,
        "jti": jti,
    }
    key = Ed25519PrivateKey.from_private_bytes(private)
    return jwt.encode(payload, key, algorithm=ALGORITHM, headers={"kid": kid})


def kid_of(token: bytes) -> str:
    """By which key a token says that it is signed.

    :raises TokenTooLong: it is.
    :raises Unauthorized: it is no JWT, or not under EdDSA with a key id.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise TokenTooLong
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.InvalidTokenError, ValueError, RecursionError):
        raise Unauthorized("the bearer token is no JSON Web Token") from None
    if header.get("alg") != ALGORITHM:
        raise Unauthorized(f"the bearer token must be signed by {ALGORITHM}")
    kid = header.get("kid")
    if not isinstance(kid, str) or not kid.startswith(KID_PREFIX) or len(kid) > 64:
        raise Unauthorized("the bearer token names no key of this platform (kid)")
    return kid


def verify(public: Ed25519PublicKey, token: bytes, *, cluster_id: str, now_s: float) -> Claims:
    """Check a token whose ``kid`` is that of ``public``.

    :param now_s: Unix seconds.
    :raises Unauthorized: it is not valid; one sentence says why, without any of its content.
    """
    try:
        payload = jwt.decode(
            token,
            public,
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            issuer=issuer(cluster_id),
            options={
                "require": ["exp", "iss", "aud", "tenant"],
                # Compared with the clock that comes in, below.
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )
    except (jwt.InvalidTokenError, ValueError, RecursionError) as error:
        raise Unauthorized(_reason(error)) from None
    expires = _time(payload, "exp", 0.0)
    if expires <= now_s - LEEWAY_S:
        raise Unauthorized("the bearer token has expired")
    if max(_time(payload, name, now_s) for name in ("nbf", "iat")) > now_s + LEEWAY_S:
        raise Unauthorized("the bearer token is not valid yet")
    tenant = payload["tenant"]
    if not isinstance(tenant, str) or not is_tenant_id(tenant):
        raise Unauthorized("the bearer token's tenant is none")
    return Claims(tenant, int(expires))


def _time(payload: dict[str, Any], name: str, default: float) -> float:
    value = payload.get(name, default)
    # NaN compares with nothing, and a bool is an int in Python.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        raise Unauthorized(f"the bearer token's {name} is no time")
    return float(value)


def _reason(error: Exception) -> str:
    """Fixed sentences: the library's may hold parts of the token."""
    if isinstance(error, jwt.InvalidSignatureError):
        return "the bearer token's signature is wrong"
    if isinstance(error, jwt.InvalidIssuerError):
        return "the bearer token was issued by another cluster (iss)"
    if isinstance(error, jwt.InvalidAudienceError):
        return "the bearer token is not for gateways (aud)"
    if isinstance(error, jwt.MissingRequiredClaimError):
        return "the bearer token lacks one of exp, iss, aud, tenant"
    return "the bearer token cannot be read"
