"""The cluster's own certificate authority, for connections between gateways and nodes, and for the
admin API of a cluster on several machines.

It makes certificates and keeps nothing: who calls it stores what it gives, the keys with mode 0600.
The authority's key signs only; of the services only members read it, where processes of other hosts
may join. A node's and a member's certificate is good for answering (serverAuth), a gateway's for
asking (clientAuth), so that neither can be used as the other; their names tell node from member.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import datetime, timedelta

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pbcluster import identities
from pbcluster.errors import ConfigError, Unprocessable

AUTHORITY_DAYS = 7300
#: Long, since only ``pbcluster up`` renews them, when less than half is left.
LEAF_DAYS = 1825
#: Clocks of a cluster agree better than this.
_SKEW = timedelta(minutes=5)
_USES = {
    identities.NODE: ExtendedKeyUsageOID.SERVER_AUTH,
    identities.GATEWAY: ExtendedKeyUsageOID.CLIENT_AUTH,
    identities.MEMBER: ExtendedKeyUsageOID.SERVER_AUTH,
}


@attrs.frozen
class Pair:
    """A certificate and its private key, both PEM. Its ``repr`` does not show the key."""

    certificate: bytes
    key: bytes = attrs.field(repr=False)


def new(cluster_id: str, now: datetime, days: float = AUTHORITY_DAYS) -> Pair:
    """An authority. :param cluster_id: stands in its name, for people."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"pbcluster {cluster_id}"[:64])
    public = key.public_key()
    builder = (
        _builder(name, name, public, now, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    return _pair(builder.sign(key, hashes.SHA256()), key)


def issue(
    authority: Pair,
    role: str,
    process_id: str,
    now: datetime,
    days: float = LEAF_DAYS,
    *,
    addresses: Sequence[str] = (),
) -> Pair:
    """A certificate of a process, with a key made here.

    :param role: ``node``, ``gateway`` or ``member``.
    :param addresses: IP addresses that it shall answer for too.
    :raises ConfigError: the authority's files are not what :func:`new` made.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    return _pair(_issued(authority, role, process_id, public, now, days, addresses), key)


def request(process_id: str) -> Pair:
    """A key made here, and a request (PKCS 10) for a certificate of it in place of one."""
    key = ec.generate_private_key(ec.SECP256R1())
    asked = x509.CertificateSigningRequestBuilder().subject_name(_name(process_id))
    pem = asked.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    return Pair(pem, _key_pem(key))


def certify(
    authority: Pair,
    role: str,
    process_id: str,
    asked: bytes,
    now: datetime,
    *,
    addresses: Sequence[str] = (),
) -> bytes:
    """The certificate, PEM, that a request asks for. Nothing of the request counts but its key.

    :param asked: what :func:`request` made, PEM.
    :raises Unprocessable: it is no request, or not by the key in it.
    """
    try:
        found = x509.load_pem_x509_csr(asked)
        public = found.public_key()
        fine = found.is_signature_valid
    except Exception:  # whatever its parser meets in what a stranger sent
        fine, public = False, None
    if not fine or not isinstance(public, ec.EllipticCurvePublicKey):
        rule = "a PKCS 10 request of an elliptic-curve key, PEM"
        raise Unprocessable(
            f"certificateRequest must be {rule}", field="certificateRequest", allowed=rule
        )
    made = _issued(authority, role, process_id, public, now, LEAF_DAYS, addresses)
    return made.public_bytes(Encoding.PEM)


def _issued(
    authority: Pair,
    role: str,
    process_id: str,
    public: ec.EllipticCurvePublicKey,
    now: datetime,
    days: float,
    addresses: Sequence[str],
) -> x509.Certificate:
    try:
        issuer = x509.load_pem_x509_certificate(authority.certificate)
        signer = load_pem_private_key(authority.key, password=None)
    except (ValueError, TypeError):
        raise ConfigError("the cluster's certificate authority is damaged") from None
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise ConfigError("the key of the cluster's certificate authority is of another kind")
    names: list[x509.GeneralName] = [x509.DNSName(identities.name_of(role, process_id))]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    use = x509.ExtendedKeyUsage([_USES[role]])
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = (
        # An id has up to 63 characters, a common name up to 64.
        _builder(_name(process_id), issuer.subject, public, now, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs=False), critical=True)
        .add_extension(use, critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(identifier, critical=False)
    )
    return builder.sign(signer, hashes.SHA256())


def worth_keeping(
    authority: bytes, pair: Pair, name: str, now: datetime, addresses: Sequence[str] = ()
) -> bool:
    """Whether a certificate is the authority's, for ``name`` and these IP addresses, with its own
    key, and more than half of it is left.

    :param authority: its certificate, PEM.
    """
    try:
        own = x509.load_pem_x509_certificate(pair.certificate)
        if load_pem_private_key(pair.key, None).public_key() != own.public_key():
            return False
        own.verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
        found = own.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = found.value.get_values_for_type(x509.DNSName)
        ips = [str(each) for each in found.value.get_values_for_type(x509.IPAddress)]
    except Exception:  # whatever is wrong with it: it is made anew
        return False
    half = own.not_valid_before_utc + (own.not_valid_after_utc - own.not_valid_before_utc) / 2
    return names == [name] and ips == list(addresses) and now < half


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    now: datetime,
    days: float,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + timedelta(days=days))
    )


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    return Pair(certificate.public_bytes(Encoding.PEM), _key_pem(key))


def fingerprint(certificate: bytes) -> bytes:
    """SHA-256 of a certificate's DER form. :param certificate: PEM.

    :raises ConfigError: it is none.
    """
    try:
        return x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256())
    except ValueError:
        raise ConfigError("this is no certificate, PEM") from None


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
