"""The text of a join token, and the parcel that is sealed under it. Opens no file or connection.

    pbj1.BASE64URL(JSON of [id, secret, pin, role, process id, [admin URLs]], CRC-32)

``secret`` has 256 random bits and is never stored; the control plane knows the SHA-256 of
``ID.SECRET``, which is what the joining process shows. ``pin`` is the SHA-256 of the certificate of
the cluster's own authority: by it the first connection is trusted. The CRC tells a token that was
copied in part from one that is wrong.

The parcel holds the secrets that the process needs and cannot make. Who made the token sealed it
under a key derived from ``secret`` (HKDF, RFC 5869; ChaCha20-Poly1305, RFC 8439), so that neither
the registry nor its snapshots give it away, and a registry that was tampered with cannot pass
another one off.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import zlib
from typing import Any

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pbcluster import records
from pbcluster.config import http_url
from pbcluster.errors import InvalidInput, PBClusterError, RemoteProtocolError

PREFIX = "pbj1."
#: More are of no use: any member passes a request on to the leader.
MAX_URLS = 5
MAX_TEXT = 4000
_NONCE_BYTES = 12
_CRC_BYTES = 4
_RULE = "what `pbcluster join-tokens create` printed, whole"


@attrs.frozen
class JoinToken:
    """A token. Its ``repr`` does not show the secret.

    :ivar secret: 43 characters of Base64. :ivar pin: SHA-256 of the authority's certificate, hex.
    :ivar urls: admin APIs of members, any of which may be asked.
    """

    id: str
    secret: str = attrs.field(repr=False)
    pin: str
    role: str
    process_id: str
    urls: tuple[str, ...]

    @property
    def shown(self) -> str:
        """What the control plane is shown, and knows the SHA-256 of."""
        return f"{self.id}.{self.secret}"


def new(role: str, process_id: str, pin: bytes, urls: tuple[str, ...]) -> JoinToken:
    """A fresh token. :param pin: SHA-256 of the authority's certificate."""
    token_id = f"jointoken_{secrets.token_hex(8)}"
    secret = secrets.token_urlsafe(32)
    return JoinToken(token_id, secret, pin.hex(), role, process_id, urls[:MAX_URLS])


def encode(token: JoinToken) -> str:
    """Its text, one word."""
    fields = [token.id, token.secret, token.pin, token.role, token.process_id, list(token.urls)]
    data = json.dumps(fields, separators=(",", ":")).encode()
    whole = data + zlib.crc32(data).to_bytes(_CRC_BYTES)
    return PREFIX + base64.urlsafe_b64encode(whole).decode().rstrip("=")


def decode(text: str) -> JoinToken:
    """The token that a text is.

    :raises InvalidInput: it is none, or not whole; it is not shown.
    """
    text = text.strip()
    body = text.removeprefix(PREFIX)
    if body == text or len(text) > MAX_TEXT:
        raise _no_token("it does not begin as one")
    try:
        whole = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        data, crc = whole[:-_CRC_BYTES], whole[-_CRC_BYTES:]
        if zlib.crc32(data).to_bytes(_CRC_BYTES) != crc:
            raise _no_token("a part of it is missing or damaged")
        token_id, secret, pin, role, process_id, urls = json.loads(data)
        records.ProcessRole(role)
        records.check_process_id(process_id)
        if len(bytes.fromhex(pin)) != SHA256.digest_size or not urls:
            raise ValueError
        checked = tuple(http_url(url) for url in urls[:MAX_URLS])
    except (ValueError, TypeError, binascii.Error, PBClusterError) as error:
        if isinstance(error, InvalidInput) and error.data.get("field") == "token":
            raise
        raise _no_token("it cannot be read") from None
    return JoinToken(str(token_id), str(secret), str(pin), role, process_id, checked)


def seal(token: JoinToken, parcel: dict[str, Any]) -> bytes:
    """The parcel as the control plane keeps it."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    plain = json.dumps(parcel).encode()
    return nonce + _cipher(token).encrypt(nonce, plain, _bound_to(token))


def unseal(token: JoinToken, data: bytes) -> dict[str, Any]:
    """The parcel again. :raises RemoteProtocolError: it was not sealed under this token."""
    try:
        nonce, sealed = data[:_NONCE_BYTES], data[_NONCE_BYTES:]
        found = json.loads(_cipher(token).decrypt(nonce, sealed, _bound_to(token)))
    except (InvalidTag, ValueError):
        raise RemoteProtocolError("what came with the answer was not sealed for us") from None
    if not isinstance(found, dict):
        raise RemoteProtocolError("what came with the answer is no parcel")
    return found


def _cipher(token: JoinToken) -> ChaCha20Poly1305:
    derive = HKDF(SHA256(), 32, salt=token.id.encode(), info=b"pbcluster join parcel")
    return ChaCha20Poly1305(derive.derive(token.secret.encode()))


def _bound_to(token: JoinToken) -> bytes:
    return f"{token.id} {token.role} {token.process_id}".encode()


def _no_token(why: str) -> InvalidInput:
    told = f"this is no join token, {why}; give {_RULE}"
    return InvalidInput(told, field="token", allowed=_RULE)
