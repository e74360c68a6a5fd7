"""A gateway's TLS, towards its clients and towards its nodes, as one part of the service.

It reads what the settings name, opens the TLS listeners, keeps an eye on the files, and shows
figures. Everything it cannot do at the start is one ``ConfigError``; later nothing ends it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort

from pbcluster import identities
from pbcluster.config import GatewayConfig
from pbcluster.errors import ConfigError
from pbcluster.gateway.forwarding import NodeTLS
from pbcluster.gateway.redirects import OFF, Redirects
from pbcluster.options import Parsed
from pbcluster.web.endpoint_strings import Where
from pbcluster.web.pool import SecureEndpointMaker
from pbcluster.web.server import HTTPServerFactory
from pbcluster.web.tls.client import verified_endpoints
from pbcluster.web.tls.directory import CertificateDirectory
from pbcluster.web.tls.mutual import MutualTLS
from pbcluster.web.tls.server import ByName, TLSServerFactory
from pbcluster.web.tls.watch import Watch, in_threads_of

_SPACE = "pbcluster_gateway_tls"


class GatewayTLS(Collector):
    """See the module.

    :ivar certificates: for clients; None: there is no TLS listener.
    :ivar mutual: for nodes; None: they are spoken to without TLS.
    :ivar secure: the way to nodes by TLS. :ivar node_tls: when it is taken.
    :ivar redirects: of the listener without TLS. :ivar hsts: header for clients, empty: none.
    """

    def __init__(self, reactor: Any, config: GatewayConfig) -> None:
        """:raises ConfigError: the settings do not go together, or files cannot be used."""
        _check(config)
        self.certificates: CertificateDirectory | None = None
        self.mutual: MutualTLS | None = None
        self.secure: SecureEndpointMaker | None = None
        self.node_tls = NodeTLS.OFF
        self.node_failures: Counter[str] = Counter()
        self.hsts = _hsts(config)
        self._reactor = reactor
        self._config = config
        self._ports: list[IListeningPort] = []
        self._factories: list[TLSServerFactory] = []
        if config.tls_certificates is not None:
            self.certificates = CertificateDirectory(
                config.tls_certificates, _utc_now, in_threads_of(reactor)
            )
        if config.node_tls is not None:
            own = identities.name_of(identities.GATEWAY, config.id)
            self.mutual = MutualTLS(config.node_tls, _utc_now, own)
            self.secure = verified_endpoints(reactor, self.mutual, self.node_failures)
            self.node_tls = NodeTLS.REQUIRED if config.node_tls_required else NodeTLS.ALLOWED
        self.redirects = Redirects(config.http_redirect, self._covers, self._public_port)
        self._watch = Watch(reactor, lambda: self._look(patient=True), config.tls_watch_s)

    def open(
        self,
        factory: HTTPServerFactory,
        listen: Callable[[int, Where, TLSServerFactory], IListeningPort],
    ) -> list[IListeningPort]:
        """Read the certificates and listen.

        :param listen: listens at the address with this number.
        :raises ConfigError: a port or the directory cannot be had.
        """
        if self.certificates is not None:
            self.certificates.load()
            creator = ByName(self.certificates, self._reactor)
            for number, where in enumerate(self._config.tls_listen):
                wrapped = TLSServerFactory(creator, factory, self._reactor, by_host=True)
                self._ports.append(listen(number, where, wrapped))
                self._factories.append(wrapped)
        if self.certificates is not None or self.mutual is not None:
            self._watch.start()
        return self._ports

    def stop(self) -> None:
        """Look at files no more. Ports are the caller's."""
        self._watch.stop()

    live = frozenset[str]()

    def prepare(self, parsed: Parsed[GatewayConfig]) -> Callable[[], None]:
        """As ``reloading.Reloadable``: the files are looked at again, whatever the settings."""

        def commit() -> None:
            self.reload()

        return commit

    def reload(self) -> Deferred[None]:
        """Look at all files now; fires when that is done. Open connections stay."""
        return self._look(patient=False)

    def _look(self, *, patient: bool) -> Deferred[None]:
        if self.mutual is not None:
            self.mutual.reload()
        if self.certificates is None:
            return Deferred.fromCoroutine(_nothing())
        return Deferred.fromCoroutine(self.certificates.reload(patient=patient))

    def _covers(self, host: str) -> bool:
        return self.certificates is not None and self.certificates.covers(host)

    def _public_port(self) -> int:
        """Where clients find the TLS listener."""
        if self._config.http_redirect_port:
            return self._config.http_redirect_port
        host: Any = self._ports[0].getHost() if self._ports else None
        return int(getattr(host, "port", 443))

    # -- figures ----------------------------------------------------------------------------------

    def collect(self) -> Iterator[Metric]:
        """As ``prometheus_client`` wants it."""
        if self.certificates is not None:
            yield from self._of_certificates(self.certificates)
        if self.mutual is not None:
            days = GaugeMetricFamily(
                f"{_SPACE}_node_certificate_days_left",
                "Days to the expiry of the certificate shown to nodes",
            )
            days.add_metric([], self.mutual.days_left)
            yield days
            failures = CounterMetricFamily(
                f"{_SPACE}_node_failures", "TLS connections to nodes not made", labels=["kind"]
            )
            for kind in ("not_verified", "timeout"):
                failures.add_metric([kind], self.node_failures[kind])
            yield failures

    def _of_certificates(self, directory: CertificateDirectory) -> Iterator[Metric]:
        days = GaugeMetricFamily(
            f"{_SPACE}_certificate_days_left",
            "Days to the expiry of a certificate, by the name of its file",
            labels=["certificate"],
        )
        for name, left in directory.days_left().items():
            days.add_metric([name], left)
        yield days
        wrong = GaugeMetricFamily(
            f"{_SPACE}_certificate_problem",
            "1: what stands in the directory is not what is served, or has expired",
            labels=["certificate"],
        )
        for name in directory.loaded.problems:
            wrong.add_metric([name], 1)
        yield wrong
        handshakes = CounterMetricFamily(
            f"{_SPACE}_handshakes", "Handshakes of clients, by how they ended", labels=["result"]
        )
        ended: Counter[str] = Counter()
        for factory in self._factories:
            ended += factory.failures
            ended["completed"] += factory.completed
        for result, count in ended.items():
            handshakes.add_metric([result], count)
        yield handshakes


async def _nothing() -> None:
    """There is nothing to look at."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _hsts(config: GatewayConfig) -> bytes:
    if not config.hsts_s:
        return b""
    return b"max-age=%d" % config.hsts_s + (
        b"; includeSubDomains" if config.hsts_subdomains else b""
    )


def _check(config: GatewayConfig) -> None:
    if config.tls_listen and config.tls_certificates is None:
        raise ConfigError(
            "setting 'tls_listen' needs 'tls_certificates', the directory of the certificates"
        )
    if config.http_redirect != OFF and not config.tls_listen:
        raise ConfigError(
            f"setting 'http_redirect' is {config.http_redirect!r}, but there is no 'tls_listen': "
            "every request would be sent to where nobody listens"
        )
