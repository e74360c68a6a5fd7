"""Settings that are read again: all of them or none."""

from collections.abc import Callable
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.config import GatewayConfig, Secrets
from pbcluster.errors import ConfigError
from pbcluster.gateway.reloading import Reloading
from pbcluster.options import Parsed
from tests.gateway.test_service import settings


class Part:
    """Notes what it is told."""

    def __init__(self, notes: list[str], name: str, refuses: bool = False) -> None:
        self.live = frozenset((name,))
        self._notes = notes
        self._name = name
        self.refuses = refuses

    def prepare(self, parsed: Parsed[GatewayConfig]) -> Callable[[], None]:
        self._notes.append(f"prepare {self._name}")
        if self.refuses:
            raise ConfigError(f"{self._name} cannot be")
        return lambda: self._notes.append(f"commit {self._name}")


class ReloadingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.first = Parsed(settings(Path("data")), Secrets(), {})
        self.next = self.first
        self.error: Exception | None = None
        self.notes: list[str] = []
        self.reloading = Reloading(self.first, self.read)
        self.hold, self.ttl = Part(self.notes, "hold_s"), Part(self.notes, "route_ttl_s")
        self.reloading.register(self.hold)
        self.reloading.register(self.ttl)

    def read(self) -> Parsed[GatewayConfig]:
        if self.error is not None:
            raise self.error
        return self.next

    def change(self, **settings: object) -> None:
        config = attrs.evolve(self.first.config, **settings)  # type: ignore[arg-type]
        self.next = attrs.evolve(self.first, config=config)

    def test_all_prepare_before_any_commits(self) -> None:
        """In this order; then the new settings are the current ones."""
        self.change(hold_s=3.0)
        self.assertTrue(self.reloading.reload())
        wanted = ["prepare hold_s", "prepare route_ttl_s", "commit hold_s", "commit route_ttl_s"]
        self.assertEqual(self.notes, wanted)
        self.assertEqual(self.reloading.current.config.hold_s, 3.0)
        self.assertEqual((self.reloading.done, self.reloading.failed), (1, False))

    def test_one_refuses(self) -> None:
        """If one part refuses none commits, and the settings stay; the next good one holds."""
        self.change(hold_s=3.0)
        self.ttl.refuses = True
        self.assertFalse(self.reloading.reload())
        self.assertNotIn("commit hold_s", self.notes)
        self.assertEqual(self.reloading.current.config.hold_s, self.first.config.hold_s)
        self.assertTrue(self.reloading.failed)
        self.ttl.refuses = False
        self.assertTrue(self.reloading.reload())
        self.assertFalse(self.reloading.failed)

    def test_broken_file(self) -> None:
        """What cannot be read asks no part."""
        for self.error in (ConfigError("no TOML"), ValueError("a mistake of ours")):
            self.assertFalse(self.reloading.reload())
        self.assertEqual(self.notes, [])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_what_cannot_change(self) -> None:
        """A setting that no part applies keeps its value, and goes on to be named."""
        self.change(hold_s=3.0, workers=7)
        for _ in range(2):
            self.assertTrue(self.reloading.reload())
            self.assertEqual(self.reloading.current.config.workers, 1)
            self.assertEqual(self.reloading.current.config.hold_s, 3.0)
