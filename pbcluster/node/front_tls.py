"""TLS before the node's front door: only gateways of the cluster get as far as a request.

The client's certificate is verified in the handshake; who has none, an expired one, one of another
authority or of another role is refused there, counted, and no byte of its is read. What a gateway
may ask for is decided by its signature as ever (``front``).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from twisted.internet.interfaces import IProtocolFactory

from pbcluster import identities
from pbcluster.config import NodeConfig
from pbcluster.errors import ConfigError
from pbcluster.web.tls.mutual import MutualTLS
from pbcluster.web.tls.server import TLSServerFactory
from pbcluster.web.tls.watch import WATCH_S, Watch


class FrontTLS:
    """See the module.

    :ivar mutual: the node's certificate, and whom it trusts.
    """

    @classmethod
    def of(cls, reactor: Any, config: NodeConfig) -> FrontTLS | None:
        """As the settings say; None: without TLS.

        :raises ConfigError: they do not go together, or files cannot be used.
        """
        if config.node_tls is None:
            if config.advertise.startswith("https:"):
                raise ConfigError(
                    f"setting 'advertise' is {config.advertise!r}, but without 'node_tls' this "
                    "node speaks no TLS"
                )
            return None
        if config.advertise.startswith("http:"):
            raise ConfigError(
                f"setting 'advertise' is {config.advertise!r}, but with 'node_tls' gateways must "
                "use https"
            )
        name = identities.name_of(identities.NODE, config.id)
        return cls(reactor, MutualTLS(config.node_tls, lambda: datetime.now(UTC), name))

    def __init__(self, reactor: Any, mutual: MutualTLS) -> None:
        self.mutual = mutual
        self._reactor = reactor
        self._factories: list[TLSServerFactory] = []
        self._watch = Watch(reactor, mutual.reload, WATCH_S)

    def before(self, factory: IProtocolFactory) -> TLSServerFactory:
        """Put TLS before ``factory``; from now on the files are looked at."""
        wrapped = TLSServerFactory(self.mutual, factory, self._reactor, by_host=False)
        self._factories.append(wrapped)
        self._watch.start()
        return wrapped

    def stop(self) -> None:
        """Look at the files no more."""
        self._watch.stop()

    def figures(self) -> dict[str, float]:
        """For the metrics page."""
        return {
            "tls_certificate_days_left": self.mutual.days_left,
            "tls_handshakes": sum(each.completed for each in self._factories),
            "tls_handshakes_refused": sum(sum(each.failures.values()) for each in self._factories),
        }
