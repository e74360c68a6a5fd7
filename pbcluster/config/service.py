"""The settings that every service has, and those of all that ask the control plane."""

from __future__ import annotations

from pathlib import Path

import attrs

from pbcluster.config.checks import (
    DIR,
    ENDPOINT,
    FILE,
    PORT,
    boolean,
    listen_address,
    log_format,
    path,
    process_id,
    setting,
    several,
    tcp_endpoint,
    text,
)


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
    metrics_listen: tuple[str, int] = setting(
        "address of health and metrics", PORT, listen_address, "127.0.0.1:0"
    )
    log_format: str = setting(
        "lines of the log: for people, or a JSON object each", "text or json", log_format, "text"
    )


@attrs.frozen(kw_only=True)
class ClientConfig(ServiceConfig):
    """Settings of every service that is a client of the control plane: gateways and nodes."""

    members: tuple[str, ...] = setting(
        "request endpoints of all members",
        f"one or more of {ENDPOINT}",
        several(tcp_endpoint, 1),
    )
    broadcasts: tuple[str, ...] = setting(
        "broadcast endpoints of all members",
        f"one or more of {ENDPOINT}",
        several(tcp_endpoint, 1),
    )
