"""Certificates for tests, made in the test: an authority, and what it or a stranger signs."""

from __future__ import annotations

import functools
import ipaddress
import os
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from pbcluster import authority
from pbcluster.authority import Pair

NOW = datetime.now(UTC)


def issuer(word: str = "test") -> Pair:
    """An authority, the same for the same word."""
    return _issuer(word)


@functools.cache
def _issuer(word: str) -> Pair:
    return authority.new(word, NOW)


def site(
    *names: str,
    days: float = 90.0,
    start: timedelta = timedelta(hours=-1),
    by: str = "test",
    address: str = "",
) -> Pair:
    """A site's certificate, valid from ``start`` after now for ``days``."""
    ca = x509.load_pem_x509_certificate(issuer(by).certificate)
    signer = load_pem_private_key(issuer(by).key, None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "site")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + start)
        .not_valid_after(NOW + start + timedelta(days=days))
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False
        )
    )
    if names:
        known: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        if address:
            known.append(x509.IPAddress(ipaddress.ip_address(address)))
        builder = builder.add_extension(x509.SubjectAlternativeName(known), False)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    made = builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM)
    return Pair(made + issuer(by).certificate, private)


def write(file: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file whole, with this mode; its stamp always differs from what was there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name("." + file.name)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(descriptor, "wb") as stream:
        os.fchmod(descriptor, mode)
        stream.write(data)
    os.replace(beside, file)


def put(directory: Path, name: str, pair: Pair) -> None:
    """``NAME.pem``: the chain and its key."""
    write(directory / f"{name}.pem", pair.certificate + pair.key)


def put_mutual(directory: Path, pair: Pair, trusted: Pair | None = None) -> None:
    """The three files of ``web.tls.mutual``."""
    write(directory / "ca.pem", (trusted or issuer()).certificate)
    write(directory / "certificate.pem", pair.certificate)
    write(directory / "key.pem", pair.key)


def client_context(trusted: Sequence[str] = ("test",), **changes: object) -> ssl.SSLContext:
    """A browser's side: verifies chain and host name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for word in trusted:
        context.load_verify_locations(cadata=issuer(word).certificate.decode())
    for name, value in changes.items():
        setattr(context, name, value)
    return context
