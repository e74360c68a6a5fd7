"""The endpoint string ``pbtls:`` — TLS with certificates from a directory, for any Twisted service.

    pbtls:PORT:certificates=DIR[:interface=ADDRESS][:watch=SECONDS]

The certificates are those of :mod:`pbcluster.web.tls.directory`, looked at every ``watch`` seconds
(10; 0: never again) as long as the endpoint listens. A ``pbcluster`` gateway has settings for the
same, with metrics and a reload at once.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from zope.interface import implementer

from pbcluster.errors import ConfigError
from pbcluster.web.endpoint_strings import listen
from pbcluster.web.tls.directory import CertificateDirectory
from pbcluster.web.tls.server import tls_factory
from pbcluster.web.tls.watch import WATCH_S, Watch, in_threads_of


def utc_now() -> datetime:
    """The wall clock, in UTC."""
    return datetime.now(UTC)


@implementer(IStreamServerEndpoint)
class TLSDirectoryEndpoint:
    """See the module.

    :ivar certificates: the directory; it is read when somebody listens.
    """

    def __init__(
        self, reactor: Any, where: tuple[str, int], directory: Path, watch_s: float = WATCH_S
    ) -> None:
        self.certificates = CertificateDirectory(directory, utc_now, in_threads_of(reactor))
        self._reactor = reactor
        self._where = where
        self._watch_s = watch_s

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """See ``IStreamServerEndpoint``; fails with ``ConfigError``."""
        return Deferred.fromCoroutine(self._listen(protocolFactory))

    async def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        self.certificates.load()
        wrapped = tls_factory(self.certificates, factory, self._reactor)
        port = listen(self._reactor, self._where, wrapped, "pbtls")
        if self._watch_s:
            watch = Watch(self._reactor, self._look, self._watch_s)
            watch.start()
            return _WatchedPort(port, watch)
        return port

    def _look(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.certificates.reload(patient=True))


@implementer(IListeningPort)
class _WatchedPort:
    """A port whose end ends the watch too."""

    def __init__(self, port: IListeningPort, watch: Watch) -> None:
        self._port = port
        self._watch = watch

    def startListening(self) -> None:
        self._port.startListening()
        self._watch.start()

    def stopListening(self) -> Any:
        self._watch.stop()
        return self._port.stopListening()

    def getHost(self) -> Any:
        return self._port.getHost()


def parse(
    reactor: Any,
    port: str = "",
    certificates: str = "",
    interface: str = "",
    watch: str = str(WATCH_S),
) -> TLSDirectoryEndpoint:
    """What the words after ``pbtls:`` mean.

    :raises ConfigError: a word is missing or wrong; names it and what is allowed.
    """
    if not certificates:
        raise ConfigError("pbtls: needs certificates=DIR, the directory of its certificates")
    if not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"pbtls: port is {port!r}; allowed: 0 to 65535")
    try:
        seconds = float(watch)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86400:
        raise ConfigError(f"pbtls: watch is {watch!r}; allowed: 0 to 86400 seconds")
    directory = Path(certificates).expanduser()
    return TLSDirectoryEndpoint(reactor, (interface, int(port)), directory, seconds)
