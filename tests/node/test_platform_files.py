"""The files that the platform puts into a tenant's directory."""

from __future__ import annotations

import json
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.errors import InvalidInput, StorageCorrupt
from pbcluster.node.interfaces import WorkloadSpec
from pbcluster.node.platform_files import (
    HOOK_NAME,
    MIGRATION_NAME,
    default_app_url,
    remove_migration,
    write_platform_files,
)
from pbcluster.records import InitialSuperuser

HASH = "$2b$10$" + "a" * 53


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.migration = self.root / "migrations" / MIGRATION_NAME

    def spec(
        self, email: str = "", password_hash: str = HASH, hosts: tuple[str, ...] = ()
    ) -> WorkloadSpec:
        superuser = InitialSuperuser(email=email, password_hash=password_hash) if email else None
        return WorkloadSpec(
            tenant_id="tenant_abcdefgh",
            directory=self.root,
            encryption_key="k" * 32,
            hosts=hosts,
            superuser=superuser,
        )

    def wanted(self, path: Path, name: str = "wanted") -> dict[str, object]:
        found = re.search(rf"const {name} = (.*);\n", path.read_text())
        assert found is not None
        value: dict[str, object] = json.loads(found[1])
        return value

    def test_values_go_in_as_json(self) -> None:
        """Quotes, backslashes, line ends and placeholders in values cannot leave their string."""
        email = "a\"'`\\\n</script>${x}__WANTED__\u2028@example.com"
        write_platform_files(self.spec(email, hosts=('x"y.example',)))
        wanted = self.wanted(self.migration)
        superuser = self.wanted(self.migration, "superuser")
        self.assertEqual(superuser, {"email": email, "passwordHash": HASH})
        self.assertEqual(wanted["headers"], ["X-Real-IP"])
        self.assertTrue(self.migration.read_text().isascii())
        hook = self.wanted(self.root / "hooks" / HOOK_NAME)
        self.assertEqual(hook["appURL"], 'https://x"y.example')
        self.assertEqual(self.migration.stat().st_mode & 0o777, 0o600)

    def test_the_migration_is_for_the_first_start(self) -> None:
        """It is written while there is no data.db, removed after the start, and not written again;
        but a first start that is repeated gets it again."""
        write_platform_files(self.spec("me@example.com"))
        remove_migration(self.spec())
        self.assertFalse(self.migration.exists())
        (self.root / "data" / "data.db").touch()
        write_platform_files(self.spec())
        self.assertFalse(self.migration.exists())
        write_platform_files(self.spec("me@example.com"))
        self.assertTrue(self.migration.exists())
        write_platform_files(self.spec())
        self.assertFalse(self.migration.exists())

    def test_only_bcrypt_hashes(self) -> None:
        """A password in the place of a hash is refused, and the error does not show it."""
        with self.assertRaises(InvalidInput) as caught:
            write_platform_files(self.spec("me@example.com", "my secret word"))
        self.assertNotIn("my secret word", str(caught.exception))

    def test_links_are_not_followed(self) -> None:
        """A link in the place of a folder stops it; one in the place of a file is replaced."""
        write_platform_files(self.spec())
        target = self.root / "target"
        target.write_text("untouched")
        hook = self.root / "hooks" / HOOK_NAME
        hook.unlink()
        hook.symlink_to(target)
        write_platform_files(self.spec())
        self.assertEqual(target.read_text(), "untouched")
        self.assertFalse(hook.is_symlink())
        (self.root / "public").rmdir()
        (self.root / "public").symlink_to("/")
        with self.assertRaises(StorageCorrupt):
            write_platform_files(self.spec())

    def test_urls(self) -> None:
        """Names below localhost get http, others https."""
        self.assertEqual(default_app_url("shop.localhost"), "http://shop.localhost")
        self.assertEqual(default_app_url("shop.example.com"), "https://shop.example.com")
