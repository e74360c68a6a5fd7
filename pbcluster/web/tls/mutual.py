"""A process's certificate for connections between gateways and nodes, and whom it trusts.

A directory with ``ca.pem`` (the cluster's authority), ``certificate.pem`` and ``key.pem`` (its
own). They are read again when they change; what cannot be used is reported and what was there stays
in use. Connections that are open stay open. Nothing is resumed, so each new connection is verified.

A node takes only clients whose certificate is a gateway's; a gateway checks the node's identity
after the handshake, before it sends a byte (``client``).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs
from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.logger import Logger
from zope.interface import implementer

from pbcluster import identities
from pbcluster.errors import ConfigError
from pbcluster.web.tls import certificates, contexts
from pbcluster.web.tls.certificates import BadCertificate, Certificate

log = Logger()

CA_FILE = "ca.pem"
CERTIFICATE_FILE = "certificate.pem"
KEY_FILE = "key.pem"


@attrs.frozen
class Credentials:
    """What the files gave: how to answer and how to ask."""

    certificate: Certificate
    server: SSL.Context = attrs.field(repr=False)
    client: SSL.Context = attrs.field(repr=False)


def read(directory: Path, name: str) -> Credentials:
    """Read a process's files.

    :param name: what the certificate must name.
    :raises ConfigError: they cannot be used; names the file.
    """
    own = certificates.read(CERTIFICATE_FILE, directory / CERTIFICATE_FILE, directory / KEY_FILE)
    if own.names != {name}:
        raise BadCertificate(
            f"{directory / CERTIFICATE_FILE} is for {', '.join(sorted(own.names))}, not for {name}"
        )
    trusted = authorities(directory / CA_FILE)
    return Credentials(
        own,
        contexts.mutual(SSL.TLS_SERVER_METHOD, own, trusted, is_gateway),
        contexts.mutual(SSL.TLS_CLIENT_METHOD, own, trusted, is_trusted),
    )


def authorities(file: Path) -> list[crypto.X509]:
    """The certificates that are trusted.

    :raises BadCertificate: there are none.
    """
    try:
        found = x509.load_pem_x509_certificates(certificates.read_bounded(file))
    except ValueError:
        raise BadCertificate(f"{file} has no certificate in PEM form, or a damaged one") from None
    return [crypto.X509.from_cryptography(each) for each in found]


def is_trusted(
    connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int
) -> bool:
    """A ``VerifyCallback``: OpenSSL's verdict."""
    return bool(ok)


def is_gateway(
    connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int
) -> bool:
    """A ``VerifyCallback``: OpenSSL's verdict, and that the client is a gateway."""
    if not ok or depth > 0:
        return bool(ok)
    names = certificates.dns_names(certificate.to_cryptography())
    return len(names) == 1 and identities.has_role(names[0], identities.GATEWAY)


@implementer(IOpenSSLServerConnectionCreator, IOpenSSLClientConnectionCreator)
class MutualTLS:
    """A process's credentials, as they are now; makes both sides of connections.

    :ivar current: what is in use. :ivar problem: why what stands there now is not; empty: it is.
    """

    def __init__(self, directory: Path, utc_now: Callable[[], datetime], name: str) -> None:
        """
        :param name: what the certificate must name: this process (``identities.name_of``).
        :raises ConfigError: the files cannot be used.
        """
        self.directory = directory
        self.problem = ""
        self._utc_now = utc_now
        self._name = name
        self._stamp = self._look()
        self.current = read(directory, name)
        self._tell()

    def reload(self) -> None:
        """Read the files again if they changed, or could not be used the last time. Three small
        files: it may be called in the reactor's thread."""
        stamp = self._look()
        if stamp == self._stamp and not self.problem:
            return
        self._stamp = stamp
        before = self.problem
        try:
            self.current = read(self.directory, self._name)
        except ConfigError as error:
            self.problem = str(error)
            if self.problem != before:
                log.error("{problem}; the former certificate is used", problem=self.problem)
            return
        self.problem = ""
        self._tell()

    @property
    def days_left(self) -> float:
        """Days to the expiry of the certificate in use."""
        return self.current.certificate.days_left(self._utc_now())

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """See ``IOpenSSLServerConnectionCreator``."""
        return SSL.Connection(self.current.server, None)

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """See ``IOpenSSLClientConnectionCreator``."""
        return SSL.Connection(self.current.client, None)

    def _look(self) -> list[object]:
        found: list[object] = []
        for name in (CA_FILE, CERTIFICATE_FILE, KEY_FILE):
            try:
                seen = (self.directory / name).stat()
            except OSError:
                found.append(None)
            else:
                found.append((seen.st_ino, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size))
        return found

    def _tell(self) -> None:
        certificate = self.current.certificate
        log.info(
            "TLS between gateways and nodes as {name}, for {days:.0f} more days",
            name=", ".join(certificate.names),
            days=self.days_left,
        )
