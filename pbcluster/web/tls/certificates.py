"""One certificate with its private key, read from its files and judged.

A key that others can read is refused: who reads it can be the site. So is what does not belong
together or cannot be used any more. Each refusal is a :class:`BadCertificate` whose sentence names
the file and never its content.
"""

from __future__ import annotations

import os
import stat
from datetime import datetime
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pbcluster.errors import ConfigError
from pbcluster.web.tls import names

#: A chain with its key; a larger file is something else.
MAX_FILE_BYTES = 256 * 1024
#: Certificates in a chain: more than any real one has.
MAX_CHAIN = 10
MIN_RSA_BITS = 2048

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class BadCertificate(ConfigError):
    """A certificate that cannot be used; says which file and why."""

    code = "bad_certificate"


@attrs.frozen(kw_only=True)
class Certificate:
    """A certificate that can be served.

    :ivar file: the name by which it is reported.
    :ivar names: host names that it covers, wildcards among them.
    :ivar chain: the certificate itself, then those that lead to the authority.
    """

    file: str
    names: frozenset[str]
    not_before: datetime
    not_after: datetime
    chain: tuple[x509.Certificate, ...] = attrs.field(repr=False)
    key: PrivateKey = attrs.field(repr=False)

    def days_left(self, now: datetime) -> float:
        """Days to its expiry; negative: it has expired."""
        return (self.not_after - now).total_seconds() / 86400

    def out_of_time(self, now: datetime) -> str:
        """Why clients will not take it now; empty: they will."""
        if self.not_after <= now:
            return f"expired at {self.not_after:%Y-%m-%d %H:%M} UTC"
        if self.not_before > now:
            return f"is not valid before {self.not_before:%Y-%m-%d %H:%M} UTC"
        return ""


def read(file: str, chain_file: Path, key_file: Path) -> Certificate:
    """Read a certificate. Whether it is valid now is for the caller to judge.

    :param file: how it is to be reported.
    :param key_file: may be the chain's own file.
    :raises BadCertificate: it cannot be served.
    """
    key = _key(key_file)
    chain = _chain(chain_file)
    own = chain[0]
    if _public(own) != key.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    ):
        raise BadCertificate(
            f"the private key in {key_file} does not belong to the first certificate in "
            f"{chain_file}"
        )
    covered = names.usable(dns_names(own))
    if not covered:
        raise BadCertificate(
            f"{chain_file} names no host: a certificate needs subjectAltName entries of type DNS"
        )
    return Certificate(
        file=file,
        names=covered,
        not_before=own.not_valid_before_utc,
        not_after=own.not_valid_after_utc,
        chain=chain,
        key=key,
    )


def dns_names(certificate: x509.Certificate) -> list[str]:
    """The DNS names of its subjectAltName, as they stand there."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return []
    return found.value.get_values_for_type(x509.DNSName)


def _public(certificate: x509.Certificate) -> bytes:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return b""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def read_bounded(file: Path) -> bytes:
    """A small file. :raises BadCertificate: it cannot be read, is no file, or is too large."""
    try:
        # What is no regular file, a pipe say, would wait for ever.
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BadCertificate(f"{file} is not a regular file")
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise BadCertificate(f"cannot read {file}: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise BadCertificate(f"{file} is larger than {MAX_FILE_BYTES} bytes")
    return content


def _chain(file: Path) -> tuple[x509.Certificate, ...]:
    try:
        chain = tuple(x509.load_pem_x509_certificates(read_bounded(file)))
        for each in chain:
            each.not_valid_after_utc, each.extensions  # noqa: B018 - they raise on nonsense
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension):
        raise BadCertificate(f"{file} has no certificate in PEM form, or a damaged one") from None
    if len(chain) > MAX_CHAIN:
        raise BadCertificate(f"{file} has {len(chain)} certificates; allowed: {MAX_CHAIN}")
    return chain


def check_private(file: Path) -> None:
    """:raises BadCertificate: others than its owner can read or change the file, or it is away."""
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError as error:
        raise BadCertificate(f"cannot read {file}: {error.strerror}") from None
    if mode & 0o077:
        raise BadCertificate(
            f"{file} holds a private key and its mode is {mode:04o}: only its owner may read it "
            "(chmod 600)"
        )


def _key(file: Path) -> PrivateKey:
    check_private(file)
    try:
        key = serialization.load_pem_private_key(read_bounded(file), password=None)
    except TypeError:
        raise BadCertificate(
            f"the private key in {file} is encrypted; store it without a passphrase, mode 0600"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise BadCertificate(f"{file} has no private key in PEM form, or a damaged one") from None
    if not isinstance(key, PrivateKey):
        raise BadCertificate(f"the key in {file} is not of a kind that is served: RSA, EC, Ed25519")
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < MIN_RSA_BITS:
        raise BadCertificate(
            f"the RSA key in {file} has {key.key_size} bits; needed: {MIN_RSA_BITS} at least"
        )
    return key
