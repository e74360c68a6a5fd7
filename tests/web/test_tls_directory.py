"""A directory of certificates: what is found in it, chosen from it, and kept when it changes."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import dsa, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.authority import Pair
from pbcluster.errors import ConfigError
from pbcluster.web.tls import certificates, names
from pbcluster.web.tls import directory as directory_module
from pbcluster.web.tls.directory import CertificateDirectory, Loaded
from tests.web.pki import issuer, put, site, write


class NameTests(SynchronousTestCase):
    def test_covers(self) -> None:
        """A wildcard stands for exactly one label; case and a last dot do not count."""
        own = names.usable(["Shop.Example.com.", "*.apps.example.com", "f*.example.com", "*.com"])
        self.assertEqual(own, {"shop.example.com", "*.apps.example.com"})
        for host, covered in {
            "shop.example.com": True,
            "a.apps.example.com": True,
            "apps.example.com": False,
            "a.b.apps.example.com": False,
            "foo.example.com": False,
            "example.com": False,
            "": False,
            "10.0.0.1": False,
            "*.apps.example.com": True,
        }.items():
            self.assertEqual(names.covers(own, host), covered, host)


class DirectoryCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.mkdir()
        self.now = datetime.now(UTC)
        self.lines: list[str] = []
        self.patch(directory_module.log, "observer", self.logged)
        self.directory = CertificateDirectory(self.path, lambda: self.now, self.in_thread)

    def logged(self, event: dict[str, Any]) -> None:
        self.lines.append(event["log_format"].format(**event))

    async def in_thread(self, function: Callable[[], Loaded]) -> Loaded:
        return function()

    def look(self, *, patient: bool = True) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.directory.reload(patient=patient)))

    def served(self, host: str | None) -> str | None:
        """The name of the certificate that serves a host."""
        entry = self.directory.choose(host)
        return entry.certificate.file if entry is not None and entry.certificate else None

    def problem(self, name: str) -> str:
        return self.directory.loaded.problems.get(name, "")


class LayoutTests(DirectoryCase):
    def test_every_layout(self) -> None:
        """One file, two files, certbot's folder of links, and a .pem beside its .key."""
        put(self.path, "one", site("one.example.com"))
        two = site("two.example.com")
        write(self.path / "two.crt", two.certificate, 0o644)
        write(self.path / "two.key", two.key)
        three = site("three.example.com", "*.three.example.com")
        write(self.path / ".archive" / "cert1.pem", three.certificate, 0o644)
        write(self.path / ".archive" / "key1.pem", three.key)
        (self.path / "three").mkdir()
        (self.path / "three" / "fullchain.pem").symlink_to("../.archive/cert1.pem")
        (self.path / "three" / "privkey.pem").symlink_to("../.archive/key1.pem")
        four = site("four.example.com")
        write(self.path / "four.pem", four.certificate, 0o644)
        write(self.path / "four.key", four.key)
        (self.path / "README").write_text("not a certificate")
        (self.path / "empty").mkdir()
        self.directory.load()
        self.assertEqual(self.directory.loaded.problems, {})
        for name in ("one", "two", "three", "four"):
            self.assertEqual(self.served(f"{name}.example.com"), name)
        self.assertEqual(self.served("a.three.example.com"), "three")
        self.assertEqual(sorted(self.directory.days_left()), ["four", "one", "three", "two"])

    def test_choice(self) -> None:
        """A host's own certificate comes before a wildcard, one that is valid before one that is
        not, and of two the one that lasts longer; an unknown host, or none, gets `default`."""
        put(self.path, "wild", site("*.example.com", days=300))
        put(self.path, "own", site("shop.example.com"))
        put(self.path, "longer", site("shop.example.com", "old.example.com", days=200))
        put(self.path, "stale", site("old.example.com", days=1, start=timedelta(days=-2)))
        self.directory.load()
        self.assertEqual(self.served("shop.example.com"), "longer")
        self.assertEqual(self.served("old.example.com"), "longer")
        self.assertEqual(self.served("other.example.com"), "wild")
        self.assertIsNone(self.served("other.org"))
        self.assertIsNone(self.served(None))
        put(self.path, "default", site("fallback.example.net"))
        self.look()
        self.assertEqual(self.served("other.org"), "default")
        self.assertEqual(self.served(None), "default")
        self.assertTrue(self.directory.covers("SHOP.example.com."))
        self.assertFalse(self.directory.covers("other.org"))

    def test_no_directory(self) -> None:
        """At the start a directory that is not there is one sentence; later it changes nothing."""
        gone = CertificateDirectory(self.path / "gone", lambda: self.now, self.in_thread)
        with self.assertRaisesRegex(ConfigError, "cannot look into .*gone: No such file"):
            gone.load()
        put(self.path, "one", site("one.example.com"))
        self.directory.load()
        self.path.rename(self.path.with_name("moved"))
        self.look()
        self.assertEqual(self.served("one.example.com"), "one")
        self.assertIn("cannot look into", self.problem("."))

    def test_bound(self) -> None:
        """More files than the bound are told and left out."""
        self.patch(directory_module, "MAX_CERTIFICATES", 1)
        put(self.path, "a", site("a.example.com"))
        put(self.path, "b", site("b.example.com"))
        self.directory.load()
        self.assertEqual((self.served("a.example.com"), self.served("b.example.com")), ("a", None))


class BadFileTests(DirectoryCase):
    def test_each_is_named_and_harms_no_other(self) -> None:
        """What cannot be used is told with its file and reason, never its content; the good one
        beside it is served."""
        pair, other = site("a.example.com"), site("b.example.com")
        key = load_pem_private_key(pair.key, None)
        encrypted = key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
        )

        def pem(made: Any) -> bytes:
            done: bytes = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            return done

        bad = {
            "mismatch": (pair.certificate + other.key, "does not belong to the first certificate"),
            "encrypted": (pair.certificate + encrypted, "is encrypted; store it without"),
            "keyless": (pair.certificate, "has no private key in PEM form"),
            "nothing": (b"", "has no private key in PEM form"),
            "torn": (pair.key + pair.certificate[:200], "has no certificate in PEM form"),
            "nameless": (b"".join((site().certificate, b"")), "has no private key"),
            "large": (b"#" * 300_000, "is larger than 262144 bytes"),
            "weak": (pair.certificate + pem(rsa.generate_private_key(65537, 1024)), "1024 bits"),
            "kind": (pair.certificate + pem(dsa.generate_private_key(2048)), "not of a kind"),
        }
        for name, (content, _) in bad.items():
            write(self.path / f"{name}.pem", content)
        put(self.path, "nohost", site())
        put(self.path, "good", site("good.example.com"))
        write(self.path / "open.pem", pair.certificate + pair.key, 0o640)
        write(self.path / "alone.crt", pair.certificate)
        write(self.path / "lonely.key", pair.key)
        (self.path / "folder.pem").mkdir(mode=0o700)
        os.mkfifo(self.path / "pipe.pem", 0o600)
        self.directory.load()
        expected = {name: words for name, (_, words) in bad.items()} | {
            "nohost": "names no host",
            "open": "its mode is 0640: only its owner may read it (chmod 600)",
            "alone": "cannot read",
            "lonely": "cannot read",
            "pipe": "is not a regular file",
            "folder": "Is a directory",
        }
        for name, words in expected.items():
            self.assertIn(words, self.problem(name), name)
            self.assertIn(name, self.problem(name))
        self.assertEqual(set(self.directory.loaded.problems), set(expected))
        self.assertEqual(self.served("good.example.com"), "good")
        self.assertIsNone(self.served("a.example.com"))
        told = "\n".join(self.lines)
        self.assertNotIn("BEGIN", told)
        for secret in pair.key.splitlines()[1:-1]:
            self.assertNotIn(secret.decode(), told + repr(self.directory.loaded))

    def test_a_parsers_surprise(self) -> None:
        """What no reader foresaw is that file's problem alone."""
        put(self.path, "good", site("good.example.com"))
        put(self.path, "odd", site("odd.example.com"))
        read = certificates.read

        def surprising(file: str, *rest: Any) -> Any:
            if file == "odd":
                raise RuntimeError("secret")
            return read(file, *rest)

        self.patch(certificates, "read", surprising)
        self.directory.load()
        self.assertEqual(self.served("good.example.com"), "good")
        self.assertIn("odd.pem cannot be read (RuntimeError)", self.problem("odd"))

    def test_out_of_time(self) -> None:
        """What expired, or does not begin yet, is served, told, and told once."""
        put(self.path, "old", site("old.example.com", days=1, start=timedelta(days=-2)))
        put(self.path, "early", site("early.example.com", start=timedelta(days=1)))
        self.directory.load()
        self.look()
        self.assertIn("expired at", self.problem("old"))
        self.assertIn("is not valid before", self.problem("early"))
        self.assertEqual(self.served("old.example.com"), "old")
        self.assertLess(self.directory.days_left()["old"], 0)
        self.assertEqual(len([line for line in self.lines if "expired at" in line]), 1)

    def test_it_expires_while_it_is_served(self) -> None:
        """Time makes a good certificate a problem, without any change of the files."""
        put(self.path, "one", site("one.example.com", days=10))
        self.directory.load()
        self.assertEqual(self.directory.loaded.problems, {})
        self.now += timedelta(days=11)
        self.look()
        self.assertIn("expired at", self.problem("one"))


class ReloadTests(DirectoryCase):
    def setUp(self) -> None:
        super().setUp()
        self.first = site("one.example.com", days=50)
        put(self.path, "one", self.first)
        self.directory.load()

    def days(self) -> float:
        return round(self.directory.days_left()["one"])

    def test_renewed(self) -> None:
        """A new certificate is served after the next look; without a change nothing is read."""
        before = self.directory.loaded.entries["one"].context
        self.look()
        self.assertIs(self.directory.loaded.entries["one"].context, before)
        put(self.path, "one", site("one.example.com", days=80))
        self.look()
        self.assertEqual(self.days(), 80)

    def test_broken_file_keeps_the_old(self) -> None:
        """A broken new file changes nothing but is told, once; a good one after it is served."""
        write(self.path / "one.pem", b"nonsense")
        self.look()
        self.look()
        self.assertEqual((self.days(), self.served("one.example.com")), (50, "one"))
        self.assertIn("has no private key", self.problem("one"))
        told = [line for line in self.lines if "has no private key" in line]
        self.assertEqual(len(told), 1)
        self.assertIn("what could be served still is", told[0])
        put(self.path, "one", site("one.example.com", days=80))
        self.look()
        self.assertEqual((self.days(), self.directory.loaded.problems), (80, {}))

    def test_expired_file_keeps_a_good_one(self) -> None:
        """An expired new file does not replace one that is still good."""
        put(self.path, "one", site("one.example.com", days=1, start=timedelta(days=-2)))
        self.look()
        self.assertEqual(self.days(), 50)
        self.assertIn("expired at", self.problem("one"))

    def test_between_two_files(self) -> None:
        """The chain was replaced and its key not yet: the old pair is served; then the new."""
        new = site("one.example.com", days=80)
        (self.path / "one.pem").unlink()
        write(self.path / "one.crt", new.certificate)
        write(self.path / "one.key", self.first.key)
        self.look()
        self.assertEqual(self.days(), 50)
        write(self.path / "one.key", new.key)
        self.look()
        self.assertEqual((self.days(), self.directory.loaded.problems), (80, {}))

    def test_mode_is_mended(self) -> None:
        """A key that only its mode kept out is served once the mode is right."""
        new = site("one.example.com", days=80)
        write(self.path / "one.pem", new.certificate + new.key, 0o644)
        self.look()
        self.assertEqual(self.days(), 50)
        (self.path / "one.pem").chmod(0o600)
        self.look()
        self.assertEqual(self.days(), 80)

    def test_gone(self) -> None:
        """What vanishes is served until it was missing twice; an operator's reload drops it at
        once; what comes back in between never was away."""
        file = self.path / "one.pem"
        content = file.read_bytes()
        file.unlink()
        self.look()
        self.assertEqual(self.served("one.example.com"), "one")
        write(file, content)
        self.look()
        file.unlink()
        self.look()
        self.assertEqual(self.served("one.example.com"), "one")
        self.look()
        self.assertIsNone(self.served("one.example.com"))
        write(file, content)
        self.look()
        file.unlink()
        self.look(patient=False)
        self.assertIsNone(self.served("one.example.com"))

    def test_single_flight(self) -> None:
        """Looks do not overlap: those asked for during one become one more after it."""
        waiting: list[tuple[Callable[[], Loaded], Deferred[Loaded]]] = []

        def later(function: Callable[[], Loaded]) -> Deferred[Loaded]:
            waiting.append((function, Deferred()))
            return waiting[-1][1]

        directory = CertificateDirectory(self.path, lambda: self.now, later)
        first = Deferred.fromCoroutine(directory.reload())
        for _ in range(3):
            self.successResultOf(Deferred.fromCoroutine(directory.reload()))
        self.assertEqual(len(waiting), 1)
        function, done = waiting.pop()
        done.callback(function())
        function, done = waiting.pop()
        done.callback(function())
        self.successResultOf(first)
        self.assertEqual((waiting, directory.looks), ([], 2))

    def test_pair_hides_its_key(self) -> None:
        """No repr shows a private key."""
        self.assertNotIn("PRIVATE", repr(Pair(b"c", self.first.key)) + repr(issuer()))
