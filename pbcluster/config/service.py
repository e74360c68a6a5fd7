"""The settings that every service has."""

from __future__ import annotations

from pathlib import Path

import attrs

from pbcluster.config.checks import DIR, FILE, boolean, path, process_id, setting, text


@attrs.frozen(kw_only=True)
class ServiceConfig:
    """Settings of every service."""

    id: str = setting(
        "name of this process in the cluster", "a word like member_1 or node_a", process_id
    )
    cluster_id: str = setting("the cluster's own random id", "the word that init wrote", text)
    data_dir: Path = setting("where this process keeps its files", DIR, path)
    secrets_file: Path = setting("TOML file with this process's secrets, mode 0600", FILE, path)
    peers_file: Path = setting("TOML file with the public keys of all processes", FILE, path)
    insecure_plain_sockets: bool = setting(
        "do without encryption between processes (loopback only)", "true or false", boolean, False
    )
