"""The node's front door by TLS: what its settings must be, and what it tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase

from pbcluster import authority, config
from pbcluster.config import NodeConfig
from pbcluster.errors import ConfigError
from pbcluster.node.front_tls import FrontTLS
from tests.web.pki import NOW, issuer, put_mutual


class FrontTLSTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()
        put_mutual(self.path, authority.issue(issuer(), "node", "node_a", NOW, 10))

    def settings(self, **changes: Any) -> NodeConfig:
        flags: dict[str, Any] = {
            "id": "node_a",
            "cluster_id": "c1",
            "data_dir": "d",
            "secrets_file": "s",
            "peers_file": "p",
            "members": "tcp://127.0.0.1:1",
            "broadcasts": "tcp://127.0.0.1:2",
            "s3_endpoint": "http://127.0.0.1:3",
            "s3_bucket": "bucket",
        }
        return config.load(NodeConfig, None, flags | changes)

    def test_off(self) -> None:
        """Without the setting there is no TLS, and the node may not say otherwise."""
        self.assertIsNone(FrontTLS.of(reactor, self.settings()))
        with self.assertRaisesRegex(ConfigError, "this node speaks no TLS"):
            FrontTLS.of(reactor, self.settings(advertise="https://10.0.0.1:8090"))

    def test_on(self) -> None:
        """With it the address is https, and the certificate is this node's."""
        given = {"node_tls": str(self.path)}
        front = FrontTLS.of(reactor, self.settings(advertise="https://10.0.0.1:8090", **given))
        assert front is not None
        self.assertEqual(round(front.figures()["tls_certificate_days_left"]), 10)
        with self.assertRaisesRegex(ConfigError, "gateways must use https"):
            FrontTLS.of(reactor, self.settings(advertise="http://10.0.0.1:8090", **given))
        with self.assertRaisesRegex(ConfigError, "is for node_a.*, not for node_b"):
            FrontTLS.of(reactor, self.settings(id="node_b", **given))
