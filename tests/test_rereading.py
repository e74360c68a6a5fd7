"""Keys that are read again: used whole, or not at all."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.config import NodeConfig, Secrets
from pbcluster.errors import ConfigError
from pbcluster.options import Parsed
from pbcluster.rereading import Rereading

FINE: Any = Parsed(config=None, secrets=Secrets(), peers={})


class RereadingTests(SynchronousTestCase):
    def test_used_and_counted(self) -> None:
        """What was read is taken over, and the count says how often."""
        used: list[Parsed[NodeConfig]] = []
        rereading = Rereading[NodeConfig](lambda: FINE, used.append)
        self.assertTrue(rereading.reload())
        self.assertTrue(rereading.reload())
        self.assertEqual(used, [FINE, FINE])
        self.assertEqual(
            rereading.figures(), {"secrets_reloads": 2, "secrets_reload_failed": False}
        )

    def test_refused(self) -> None:
        """Files that cannot be read and keys that cannot be used change nothing, and it is told;
        the next time may be better."""

        def refuse(*_: object) -> Any:
            raise ConfigError("the peers file lacks something")

        for read, use in ((refuse, lambda new: None), (lambda: FINE, refuse)):
            rereading = Rereading[NodeConfig](read, use)
            self.assertFalse(rereading.reload())
            self.assertEqual((rereading.done, rereading.failed), (0, True))
        rereading = Rereading[NodeConfig](refuse, lambda new: None)
        rereading.reload()
        rereading._read = lambda: FINE
        self.assertTrue(rereading.reload())
        self.assertFalse(rereading.failed)
