"""The files that the platform puts into a tenant's directory before PocketBase starts.

``hooks/pbcluster.pb.js`` each time: keeps SQLite's checkpoints away from unsynced frames, makes the
platform's settings true (our header for the client's address, the tenant's URL, what is logged,
batches, where files are stored), and has the routes that the node itself asks (``platform_door``).
``migrations/…`` for the very first start: the same settings, and the first superuser by a bcrypt
hash. Values go into the scripts as JSON and nowhere else. Where the tenant could have put a
symbolic link, none is followed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib import resources
from typing import Any

from pbcluster.errors import InvalidInput
from pbcluster.node.directories import DirectoryHandle
from pbcluster.node.interfaces import WorkloadSpec
from pbcluster.records import InitialSuperuser, TenantLogs

HOOKS, MIGRATIONS, PUBLIC, DATA, TEMPORARY = "hooks", "migrations", "public", "data", "tmp"
DIRECTORIES = (HOOKS, MIGRATIONS, PUBLIC, DATA, TEMPORARY)
HOOK_NAME = "pbcluster.pb.js"
#: Runs after PocketBase's own migrations, whose names begin with the time they were written.
MIGRATION_NAME = "1999999999_pbcluster_first_start.js"
#: The node's front door sets it; what a client sends under this name never arrives.
ADDRESS_HEADER = "X-Real-IP"
#: Go's slog level from which PocketBase logs into its own database, and how many days it keeps; 0:
#: nothing at all. Requests are logged by the gateway: here each costs a write and memory.
LOG_SETTINGS = {TenantLogs.OFF: (8, 0), TenantLogs.ERRORS: (8, 5), TenantLogs.INFO: (0, 5)}
_BCRYPT = re.compile(r"\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}")


def default_app_url(host: str) -> str:
    """``https://HOST``; plain http for names below localhost."""
    scheme = "http" if host == "localhost" or host.endswith(".localhost") else "https"
    return f"{scheme}://{host}"


def write_platform_files(
    spec: WorkloadSpec,
    app_url: Callable[[str], str] = default_app_url,
    *,
    secret_hash: str = "",
) -> None:
    """Make the tenant's folders and write the platform's files.

    :param app_url: a host of the tenant → its URL for links in mails.
    :param secret_hash: SHA-256 (hex) of what opens the platform's own routes; empty: nothing does.
    :raises InvalidInput: the superuser's password hash is none of bcrypt.
    :raises StorageCorrupt: a symbolic link stands where a folder should be.
    """
    wanted = _wanted(spec, app_url)
    with DirectoryHandle.open(spec.directory, create=True) as root:
        for name in DIRECTORIES:
            root.folder(name, create=True).close()
        with root.folder(HOOKS) as hooks:
            hook = _script("pbcluster.pb.js", WANTED=wanted, SECRET_HASH=secret_hash)
            hooks.write(HOOK_NAME, hook)
        with root.folder(DATA) as data:
            first = data.identity("data.db") is None
        with root.folder(MIGRATIONS) as migrations:
            if first or spec.superuser is not None:
                superuser = _superuser(spec.superuser)
                script = _script("first_start.js", WANTED=wanted, SUPERUSER=superuser)
                migrations.write(MIGRATION_NAME, script)
            else:
                migrations.remove(MIGRATION_NAME)


def _wanted(spec: WorkloadSpec, app_url: Callable[[str], str]) -> dict[str, Any]:
    level, days = LOG_SETTINGS[spec.logs]
    return {
        "headers": [ADDRESS_HEADER],
        "appURL": app_url(spec.hosts[0]) if spec.hosts else "",
        "minLogLevel": level,
        "maxLogDays": days,
        "settings": dict(spec.settings),
    }


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


_PLACE = re.compile(r"__([A-Z_]+)__")


def _script(name: str, **values: Any) -> bytes:
    """A script with values in their places; one pass, so that no value is looked into."""
    shared = _template("settings.js").rstrip()
    told = {key: json.dumps(value, ensure_ascii=True) for key, value in values.items()}
    told["SETTINGS"] = shared
    return _PLACE.sub(lambda place: told[place[1]], _template(name)).encode()


def _template(name: str) -> str:
    return resources.files("pbcluster.node").joinpath("platform", name).read_text("utf-8")
