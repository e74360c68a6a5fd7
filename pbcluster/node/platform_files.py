"""The files that the platform puts into a tenant's directory before PocketBase starts.

``hooks/pbcluster.pb.js`` each time: keeps SQLite's checkpoints away from unsynced frames, believes
only our header for the client's address, sets the tenant's URL. ``migrations/…`` for the very first
start: quiet logs, and the first superuser by a bcrypt hash. Values go into the scripts as JSON and
nowhere else. Where the tenant could have put a symbolic link, none is followed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from pbcluster.errors import InvalidInput
from pbcluster.node.directories import DirectoryHandle
from pbcluster.node.interfaces import WorkloadSpec
from pbcluster.records import InitialSuperuser

HOOKS, MIGRATIONS, PUBLIC, DATA, TEMPORARY = "hooks", "migrations", "public", "data", "tmp"
DIRECTORIES = (HOOKS, MIGRATIONS, PUBLIC, DATA, TEMPORARY)
HOOK_NAME = "pbcluster.pb.js"
#: Runs after PocketBase's own migrations, whose names begin with the time they were written.
MIGRATION_NAME = "1999999999_pbcluster_first_start.js"
#: The node's front door sets it; what a client sends under this name never arrives.
ADDRESS_HEADER = "X-Real-IP"
#: Go's slog level "error": requests are logged by the gateway, not in each tenant's database.
MIN_LOG_LEVEL = 8
_PLACE = "__WANTED__"
_BCRYPT = re.compile(r"\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}")


def default_app_url(host: str) -> str:
    """``https://HOST``; plain http for names below localhost."""
    scheme = "http" if host == "localhost" or host.endswith(".localhost") else "https"
    return f"{scheme}://{host}"


def write_platform_files(
    spec: WorkloadSpec, app_url: Callable[[str], str] = default_app_url
) -> None:
    """Make the tenant's folders and write the platform's files.

    :param app_url: a host of the tenant → its URL for links in mails.
    :raises InvalidInput: the superuser's password hash is none of bcrypt.
    :raises StorageCorrupt: a symbolic link stands where a folder should be.
    """
    url = app_url(spec.hosts[0]) if spec.hosts else ""
    wanted: dict[str, Any] = {
        "headers": [ADDRESS_HEADER],
        "appURL": url,
        "fileStorage": dict(spec.file_storage),
    }
    hook = _script("pbcluster.pb.js", wanted)
    with DirectoryHandle.open(spec.directory, create=True) as root:
        for name in DIRECTORIES:
            root.folder(name, create=True).close()
        with root.folder(HOOKS) as hooks:
            hooks.write(HOOK_NAME, hook)
        with root.folder(DATA) as data:
            first = data.identity("data.db") is None
        with root.folder(MIGRATIONS) as migrations:
            if first or spec.superuser is not None:
                more = {"superuser": _superuser(spec.superuser), "minLogLevel": MIN_LOG_LEVEL}
                migrations.write(MIGRATION_NAME, _script("first_start.js", wanted | more))
            else:
                migrations.remove(MIGRATION_NAME)


def remove_migration(spec: WorkloadSpec) -> None:
    """The first start succeeded: its migration, with the hash in it, is not needed again."""
    with DirectoryHandle.open(spec.directory) as root, root.folder(MIGRATIONS) as migrations:
        migrations.remove(MIGRATION_NAME)


def _superuser(superuser: InitialSuperuser | None) -> dict[str, str] | None:
    if superuser is None:
        return None
    if not _BCRYPT.fullmatch(superuser.password_hash):
        raise InvalidInput(
            "the first superuser's password hash is not a bcrypt hash",
            field="password_hash",
            allowed="$2a$, $2b$ or $2y$ and 60 characters",
        )
    # Go's bcrypt knows the three as one algorithm.
    return {"email": superuser.email, "passwordHash": superuser.password_hash}


def _script(name: str, wanted: Mapping[str, Any]) -> bytes:
    template = resources.files("pbcluster.node").joinpath("platform", name).read_text("utf-8")
    before, _, after = template.partition(_PLACE)
    return (before + json.dumps(wanted, ensure_ascii=True) + after).encode()
