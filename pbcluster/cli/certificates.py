"""Certificates of the cluster's own authority, for the TLS between its gateways and nodes and, on
several machines, of the members' admin APIs.

    DIR/secrets/ca/ca.pem, ca.key              the authority; members read its key where others join
    DIR/secrets/<id>.tls/ca.pem, certificate.pem, key.pem      of one gateway or node
    DIR/secrets/<id>.admin/default.crt, default.key            of one member's admin API
    DIR/secrets/s3_1.tls/certificate.pem, key.pem              of an authority that issues nothing

Keys have mode 0600, and ``secrets`` is closed to others. What is there and good is kept: only what
is missing, is not the authority's, or has less than half of its time left is made anew. So every
``up`` of a stopped cluster renews in time, and a new node gets its own.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from pbcluster import authority, identities
from pbcluster.authority import Pair
from pbcluster.cli.layout import ClusterDir, Plan, write_bytes
from pbcluster.errors import ConfigError

#: Kinds of processes that have certificates; their roles have the same names.
KINDS = (identities.NODE, identities.GATEWAY)


def write_all(where: ClusterDir, plan: Plan) -> None:
    """Write what is missing or has grown old.

    :raises ConfigError: the authority is damaged: one half of it is there without the other.
    :raises OSError: a file cannot be written.
    """
    now = datetime.now(UTC)
    issuer = _authority(where, plan.cluster_id, now)
    for process in plan.processes:
        if process.kind in KINDS and plan.node_tls:
            _write(where.tls(process.id), issuer, process.kind, process.id, now)
        if process.kind == identities.MEMBER and plan.address:
            _write_admin(where.admin_tls(process.id), issuer, process.id, plan.address, now)
        if process.kind == "s3" and plan.address:
            _write_closed(where.tls(process.id), now)


def _authority(where: ClusterDir, cluster_id: str, now: datetime) -> Pair:
    certificate, key = where.authority / "ca.pem", where.authority / "ca.key"
    if certificate.exists() and key.exists():
        return Pair(certificate.read_bytes(), key.read_bytes())
    if certificate.exists():
        # The key is written first: it was taken away. A new one would end the cluster's trust.
        raise ConfigError(
            f"{key} is missing: put it back, or remove {where.authority} to make a new authority "
            "(every gateway and node has to be restarted then)"
        )
    made = authority.new(cluster_id, now)
    write_bytes(key, made.key)
    write_bytes(certificate, made.certificate, 0o644)
    where.authority.chmod(0o700)
    return made


def _write(directory: Path, issuer: Pair, role: str, name: str, now: datetime) -> None:
    ca, certificate, key = (directory / file for file in ("ca.pem", "certificate.pem", "key.pem"))
    identity = identities.name_of(role, name)
    if all(file.exists() for file in (ca, certificate, key)) and (
        ca.read_bytes() == issuer.certificate
        and authority.worth_keeping(
            issuer.certificate, Pair(certificate.read_bytes(), key.read_bytes()), identity, now
        )
    ):
        return
    store(directory, issuer.certificate, authority.issue(issuer, role, name, now))


def store(directory: Path, ca: bytes, pair: Pair) -> None:
    """Write what a gateway or node needs. :raises OSError: it cannot be written."""
    write_bytes(directory / "key.pem", pair.key)
    write_bytes(directory / "certificate.pem", pair.certificate, 0o644)
    write_bytes(directory / "ca.pem", ca, 0o644)
    directory.chmod(0o700)


def _write_admin(directory: Path, issuer: Pair, name: str, address: str, now: datetime) -> None:
    """Of a member's admin API, by whose address it is connected to."""
    certificate, key = directory / "default.crt", directory / "default.key"
    identity = identities.name_of(identities.MEMBER, name)
    if certificate.exists() and key.exists():
        found = Pair(certificate.read_bytes(), key.read_bytes())
        if authority.worth_keeping(issuer.certificate, found, identity, now, (address,)):
            return
    store_admin(directory, authority.issue(issuer, "member", name, now, addresses=(address,)))


def store_admin(directory: Path, pair: Pair) -> None:
    """Write certificate and key of a member's admin API. :raises OSError: it cannot be written."""
    write_bytes(directory / "default.key", pair.key)
    write_bytes(directory / "default.crt", pair.certificate, 0o644)
    directory.chmod(0o700)


def _write_closed(directory: Path, now: datetime) -> None:
    """A port that wants a client certificate of this authority is closed: it issues none."""
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    if certificate.exists() and key.exists():
        return
    made = authority.new("closed", now)
    write_bytes(key, made.key)
    write_bytes(certificate, made.certificate, 0o644)
    directory.chmod(0o700)
