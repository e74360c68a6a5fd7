"""The secrets of a process, and its peers as it knows them.

Secrets stand in a TOML file of their own (``secrets_file``, mode 0600), never in a flag, so that
no process list shows them.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from pbcluster.config.loading import read_toml
from pbcluster.errors import ConfigError


@attrs.frozen(kw_only=True, repr=False)
class Secrets:
    """The secrets of one process. Its ``repr`` shows none, so that no log can.

    ``gateway_keys`` maps a gateway's id to its signing key: a gateway holds its own, a node those
    of the first host's. From ``gateway_seed`` nodes derive the keys of gateways that joined later.
    ``tenant_key`` is what PocketBase's settings encryption keys are derived from (nodes).
    ``admin_token_hash`` is the SHA-256 of the admin token, in hex (members).
    ``curve_secret`` is this process's CURVE key in Z85 (40 characters), its public half standing in
    the peers file.
    ``gateway_keys_also``, ``admin_token_hashes_also`` and ``s3_keys_also`` (access key → secret
    key, of the cluster's own S3) are accepted beside the others, while keys are exchanged.
    """

    s3_access_key: str = ""
    s3_secret_key: str = ""
    tenant_key: str = ""
    admin_token_hash: str = ""
    curve_secret: str = ""
    gateway_keys: Mapping[str, str] = {}
    gateway_seed: str = ""
    gateway_keys_also: Mapping[str, Sequence[str]] = {}
    admin_token_hashes_also: Sequence[str] = ()
    s3_keys_also: Mapping[str, str] = {}

    def __repr__(self) -> str:
        return "<Secrets>"


def load_secrets(file: Path) -> Secrets:
    """Read a secrets file.

    :raises ConfigError: unreadable, readable by others, or with an unknown key.
    """
    content = read_toml(file)
    if stat.S_IMODE(file.stat().st_mode) & 0o077:
        raise ConfigError(f"{file} holds secrets and may be read by its owner only: chmod 600")
    unknown = set(content) - {field.name for field in attrs.fields(Secrets)}
    if unknown:
        raise ConfigError(f"unknown secret {sorted(unknown)[0]!r} in {file}")
    return Secrets(**content)


@attrs.frozen
class Peer:
    """One process of the cluster as the others know it.

    :ivar curve_also: further keys by which it is known, while its key is exchanged.
    """

    id: str
    role: str
    curve_public: str
    curve_also: tuple[str, ...] = ()


def load_peers(file: Path) -> dict[str, Peer]:
    """Read the peers file: a table ``[peers.ID]`` with ``role`` and ``curve_public`` for each,
    and perhaps ``curve_also``.

    :raises ConfigError: unreadable, or a row lacks something.
    """
    table = read_toml(file).get("peers", {})
    roles = ("member", "node", "gateway")
    found = {}
    for name, row in table.items():
        role, key = row.get("role"), row.get("curve_public", "")
        if role not in roles or len(key) not in (0, 40):
            raise ConfigError(
                f"peer {name!r} in {file} needs a role of {', '.join(roles)} and a 40-character "
                "curve_public key"
            )
        also = row.get("curve_also", [])
        if not isinstance(also, list) or any(len(each) != 40 for each in also):
            raise ConfigError(f"curve_also of {name!r} in {file} must be a list of keys")
        found[name] = Peer(name, role, key, tuple(also))
    return found
