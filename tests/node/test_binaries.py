"""The check of the binaries' hashes."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pbcluster import binaries
from pbcluster.errors import ConfigError


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.dir = Path(self.mktemp()).absolute()
        self.dir.mkdir()
        self.path = self.dir / "pocketbase"
        self.path.write_bytes(b"program")
        self.path.chmod(0o755)
        self.patch(binaries.sys, "executable", str(self.dir / "python"))
        table = {(platform.machine(), "pocketbase"): hashlib.sha256(b"program").hexdigest()}
        self.patch(binaries, "SHA256", table)

    def test_the_expected_build(self) -> None:
        """The binary beside our Python is found and believed by its hash."""
        self.assertEqual(binaries.verify(["pocketbase"]), {"pocketbase": self.path})

    def test_another_build(self) -> None:
        """A changed binary is refused, with the way to use it all the same."""
        self.path.write_bytes(b"another")
        with self.assertRaises(ConfigError) as caught:
            binaries.verify(["pocketbase"])
        word = f"pocketbase={self.path}"
        self.assertIn(f"--binary {word}", str(caught.exception))
        self.assertEqual(binaries.verify(["pocketbase"], [word]), {"pocketbase": self.path})

    def test_another_machine(self) -> None:
        """On a machine without known builds nothing is believed."""
        self.patch(binaries.platform, "machine", lambda: "riscv64")
        with self.assertRaises(ConfigError) as caught:
            binaries.verify(["pocketbase"])
        self.assertIn("riscv64", str(caught.exception))

    def test_missing(self) -> None:
        """A binary that is nowhere, or not executable, is told by name."""
        self.patch(binaries.shutil, "which", lambda name: None)
        for word in ([], [f"litestream={self.dir / 'nix'}"]):
            with self.assertRaises(ConfigError) as caught:
                binaries.verify(["litestream"], word)
            self.assertIn("litestream", str(caught.exception))

    def test_words_of_another_form(self) -> None:
        """--binary takes NAME=PATH with a known name only."""
        for word in ("pocketbase", "pocketbase=", "nginx=/bin/true", "=x"):
            with self.assertRaises(ConfigError):
                binaries.parse_overrides([word])

    def test_the_cache(self) -> None:
        """A known file is not read again; one that changed is, even with its old time and size."""
        cache = self.dir / "cache"
        binaries.verify(["pocketbase"], (), cache)
        self.patch(binaries.hashlib, "sha256", None)  # hashing now would fail
        binaries.verify(["pocketbase"], (), cache)
        status = self.path.stat()
        self.path.write_bytes(b"PROGRAM")
        os.utime(self.path, ns=(status.st_atime_ns, status.st_mtime_ns))
        with self.assertRaises(TypeError):
            binaries.verify(["pocketbase"], (), cache)

    def test_a_damaged_cache_is_made_anew(self) -> None:
        """Junk in the cache costs time only."""
        cache = self.dir / "cache"
        cache.mkdir()
        for junk in ("", "[]", "{"):
            (cache / binaries.CACHE_NAME).write_text(junk)
            binaries.verify(["pocketbase"], (), cache)
