"""Settings: file first, flags over it, and errors that name option, value and what is allowed."""

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pbcluster import config
from pbcluster.config import GatewayConfig, MemberConfig, NodeConfig
from pbcluster.errors import ConfigError

MEMBER = """
id = "member_1"
cluster_id = "c1"
data_dir = "data"
secrets_file = "/s.toml"
peers_file = "peers.toml"
"""


class FileTestCase(SynchronousTestCase):
    def write(self, text: str, name: str = "x.toml", mode: int = 0o600) -> Path:
        directory = Path(self.mktemp())
        directory.mkdir(parents=True)
        file = directory / name
        file.write_text(text)
        os.chmod(file, mode)
        return file


class LoadTests(FileTestCase):
    def test_file_then_flags(self) -> None:
        """A flag wins over the file, the file over the default."""
        file = self.write(MEMBER + 'base_domain = "apps.test"\nadmin_listen = "127.0.0.1:1"')
        loaded = config.load(MemberConfig, file, {"admin_listen": "127.0.0.1:0", "id": None})
        self.assertEqual(loaded.base_domain, "apps.test")
        self.assertEqual(loaded.admin_listen, ("127.0.0.1", 0))
        self.assertEqual(loaded.request_endpoint, "tcp://127.0.0.1:5555")

    def test_relative_paths_start_at_the_file(self) -> None:
        """A relative path in the file is relative to the file, an absolute one stays."""
        file = self.write(MEMBER)
        loaded = config.load(MemberConfig, file)
        self.assertEqual(loaded.data_dir, file.parent / "data")
        self.assertEqual(loaded.secrets_file, Path("/s.toml"))

    def test_what_a_member_advertises(self) -> None:
        """Other addresses than those where it listens, by their use; no other use is known."""
        flags = {"advertise": "raft=tcp://10.0.0.5:7000,admin=http://cp1.example:8095"}
        loaded = config.load(MemberConfig, self.write(MEMBER), flags)
        wanted = ("raft=tcp://10.0.0.5:7000", "admin=http://cp1.example:8095")
        self.assertEqual(loaded.advertise, wanted)
        for wrong in ("metrics=http://x:1", "raft=http://x:1", "tcp://x:1", "admin="):
            with self.assertRaisesRegex(ConfigError, "advertise.*allowed: several of raft="):
                config.load(MemberConfig, self.write(MEMBER), {"advertise": wrong})

    def test_wrong_values_are_named(self) -> None:
        """Each wrong value names the setting, the value, where it stood and what is allowed."""
        wrong = {
            "admin_listen": "localhost",
            "request_endpoint": "http://x:1",
            "base_domain": "a_b",
            "node_down_after_s": "0",
            "insecure_plain_sockets": "maybe",
            "id": "Member 1",
        }
        for name, value in wrong.items():
            with self.assertRaises(ConfigError) as caught:
                config.load(MemberConfig, self.write(MEMBER), {name: value})
            for part in (name, repr(value), "--", "allowed"):
                self.assertIn(part, str(caught.exception))

    def test_unknown_and_missing(self) -> None:
        """An unknown setting lists the known ones; a missing one says what it needs."""
        with self.assertRaisesRegex(ConfigError, "unknown setting 'colour'.*admin_listen"):
            config.load(MemberConfig, self.write(MEMBER + "colour = 1"))
        with self.assertRaisesRegex(ConfigError, "'cluster_id' is missing"):
            config.load(MemberConfig, None, {"id": "member_1"})

    def test_unreadable_files(self) -> None:
        """No file and no TOML are one sentence each."""
        with self.assertRaisesRegex(ConfigError, "cannot read"):
            config.load(MemberConfig, Path("/no/such/file"))
        with self.assertRaisesRegex(ConfigError, "not valid TOML"):
            config.load(MemberConfig, self.write("= ="))

    def test_lists_from_file_and_flag(self) -> None:
        """A list is a TOML list in the file and comma-separated in a flag."""
        base = MEMBER + 's3_endpoint = "http://127.0.0.1:1"\ns3_bucket = "bucket"\n'
        file = self.write(base + 'members = ["tcp://127.0.0.1:1"]\nbroadcasts = ["tcp://[::1]:2"]')
        loaded = config.load(NodeConfig, file, {"members": "tcp://a:1,tcp://b:2", "id": "node_1"})
        self.assertEqual(loaded.members, ("tcp://a:1", "tcp://b:2"))
        with self.assertRaisesRegex(ConfigError, "members"):
            config.load(NodeConfig, file, {"members": ""})

    def test_every_default_passes_its_own_check(self) -> None:
        """A default that its own check refuses would be a trap."""
        for kind in (MemberConfig, NodeConfig, GatewayConfig):
            for name, (described, default) in config.settings_of(kind).items():
                if isinstance(default, str | int | float | bool) and default != "":
                    described.check(default)
                self.assertTrue(described.help and described.allowed, name)


class SecretsTests(FileTestCase):
    def test_secrets_are_for_their_owner_only(self) -> None:
        """A secrets file that others can read is refused."""
        with self.assertRaisesRegex(ConfigError, "chmod 600"):
            config.load_secrets(self.write('tenant_key = "k"', mode=0o644))

    def test_secrets_never_show(self) -> None:
        """The text form of loaded secrets holds none of them."""
        loaded = config.load_secrets(self.write('s3_secret_key = "hush"'))
        self.assertEqual(loaded.s3_secret_key, "hush")
        self.assertNotIn("hush", f"{loaded!r} {loaded}")

    def test_unknown_secret(self) -> None:
        """A misspelled secret is named, its value is not."""
        with self.assertRaises(ConfigError) as caught:
            config.load_secrets(self.write('tenant_kee = "hush"'))
        self.assertIn("tenant_kee", str(caught.exception))
        self.assertNotIn("hush", str(caught.exception))

    def test_peers(self) -> None:
        """The peers file gives role and key; a wrong role is named."""
        good = self.write(f'[peers.node_1]\nrole = "node"\ncurve_public = "{"k" * 40}"')
        self.assertEqual(config.load_peers(good)["node_1"].role, "node")
        with self.assertRaisesRegex(ConfigError, "node_1"):
            config.load_peers(self.write('[peers.node_1]\nrole = "king"'))
