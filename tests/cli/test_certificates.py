"""Certificates that ``init`` and ``up`` write: for whom, how private, when anew."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from pbcluster import authority, config, identities
from pbcluster.authority import Pair
from pbcluster.cli import initialise
from pbcluster.cli.initialise import Wish
from pbcluster.errors import ConfigError
from pbcluster.web.tls import mutual
from tests.cli.support import DirectoryTestCase

FILES = ("ca.pem", "certificate.pem", "key.pem")


class CertificateTests(DirectoryTestCase):
    wish = Wish(gateway_port=0, admin_port=0, node_tls=True)

    def content(self, name: str) -> list[bytes]:
        return [(self.where.tls(name) / file).read_bytes() for file in FILES]

    def test_every_service_can_use_its_own(self) -> None:
        """Gateways and nodes get a certificate that names them and is good for their side only;
        members get none; the services' own checks take them."""
        plan = initialise.initialise(self.where, self.wish)
        self.assertTrue(self.where.load_plan().node_tls)
        uses = {
            "node": ExtendedKeyUsageOID.SERVER_AUTH,
            "gateway": ExtendedKeyUsageOID.CLIENT_AUTH,
        }
        for kind, use in uses.items():
            for process in plan.of(kind):
                settings: type[config.ServiceConfig] = (
                    config.NodeConfig if kind == "node" else config.GatewayConfig
                )
                loaded = config.load(settings, self.where.config(process.id))
                directory: Path = loaded.node_tls  # type: ignore[attr-defined]
                self.assertEqual(directory.resolve(), self.where.tls(process.id).resolve())
                name = identities.name_of(kind, process.id)
                own = mutual.read(directory, name).certificate
                extension = own.chain[0].extensions.get_extension_for_class(x509.ExtendedKeyUsage)
                self.assertEqual(list(extension.value), [use])
        self.assertFalse(self.where.tls("member_1").exists())

    def test_keys_are_private(self) -> None:
        """Every key has mode 0600 in directories of mode 0700, and stands in no other file; the
        authority's is in nobody's settings."""
        plan = initialise.initialise(self.where, self.wish)
        keys = [self.where.authority / "ca.key"]
        keys += [self.where.tls(p.id) / "key.pem" for k in ("node", "gateway") for p in plan.of(k)]
        for key in keys:
            self.assertEqual(stat.S_IMODE(key.stat().st_mode), 0o600, key)
            self.assertEqual(stat.S_IMODE(key.parent.stat().st_mode), 0o700, key)
        bodies = [key.read_text().splitlines()[1] for key in keys]
        for file in self.where.root.rglob("*"):
            if file.is_file() and file not in keys:
                text = file.read_text(errors="replace")
                self.assertEqual([body for body in bodies if body in text], [], file)
                self.assertNotIn("ca.key", text)

    def test_kept_and_renewed(self) -> None:
        """Writing again keeps what is good and gives a new node its own. What is missing, torn, of
        a former authority, or has less than half of its time left is made anew."""
        initialise.initialise(self.where, self.wish)
        before = {name: self.content(name) for name in ("node_1", "node_2", "gateway_1")}
        initialise.ensure(self.where, Wish(nodes=3))
        for name, content in before.items():
            self.assertEqual(self.content(name), content, name)
        self.assertEqual(len(self.content("node_3")), 3)
        ca = Pair(*((self.where.authority / name).read_bytes() for name in ("ca.pem", "ca.key")))
        now = datetime.now(UTC)
        old = authority.issue(ca, "node", "node_1", now - timedelta(days=60), 100)
        (self.where.tls("node_1") / "certificate.pem").write_bytes(old.certificate)
        (self.where.tls("node_1") / "key.pem").write_bytes(old.key)
        (self.where.tls("node_2") / "key.pem").write_bytes(before["node_1"][2])
        (self.where.tls("gateway_1") / "ca.pem").unlink()
        initialise.ensure(self.where, Wish())
        for name, content in before.items():
            self.assertNotEqual(self.content(name)[1:], content[1:], name)
            kind = "gateway" if name.startswith("gateway") else "node"
            mutual.read(self.where.tls(name), identities.name_of(kind, name))

    def test_the_authoritys_key_is_gone(self) -> None:
        """Without its key no new authority is made in silence."""
        initialise.initialise(self.where, self.wish)
        (self.where.authority / "ca.key").unlink()
        with self.assertRaisesRegex(ConfigError, "ca.key is missing: put it back, or remove"):
            initialise.ensure(self.where, Wish(nodes=3))

    def test_off_and_on(self) -> None:
        """A cluster without it gets it by a wish and loses it by one; no wish changes nothing."""
        initialise.initialise(self.where, Wish(gateway_port=0, admin_port=0))
        self.assertFalse(self.where.authority.exists())
        self.assertNotIn("node_tls", self.where.config("node_1").read_text())
        for wish, on in ((True, True), (None, True), (False, False)):
            plan = initialise.ensure(self.where, Wish(node_tls=wish))
            self.assertEqual(plan.node_tls, on)
            self.assertEqual("node_tls" in self.where.config("node_1").read_text(), on)
