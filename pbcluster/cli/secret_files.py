"""The files in which keys, tokens and secrets stand: ``secrets/<id>.toml``, ``config/peers.toml``,
``admin.token``.

Each file holds what its process needs and no more. They are made once and kept. While keys are
exchanged (``rotating``) they name further ones, which are accepted too; writing all files anew
keeps those as well, so that an interrupted exchange can be done again.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any

import zmq

from pbcluster import config
from pbcluster.cli.layout import ClusterDir, Plan, to_toml, write_file

S3_KEYS = ("s3_access_key", "s3_secret_key")
#: What is accepted beside a process's own keys.
ALSO = ("gateway_keys_also", "admin_token_hashes_also", "s3_keys_also")


def write_all(where: ClusterDir, plan: Plan) -> None:
    """Write the secrets of every process of the plan, and the peers file; keep what is there.

    :raises OSError: a file cannot be written.
    """
    kept = _kept(where, plan)
    token = where.token_file.read_text().strip() if where.token_file.exists() else ""
    if not token:
        token = secrets.token_urlsafe(32)
        write_file(where.token_file, token + "\n", 0o600)
    s3 = {name: kept["s3_1"][name] for name in S3_KEYS if name in kept["s3_1"]} or fresh_s3_keys()
    # One key for all nodes: any of them may have to open any tenant's settings.
    tenant_key = next((k["tenant_key"] for k in kept.values() if k.get("tenant_key")), "")
    seed = next((k["gateway_seed"] for k in kept.values() if k.get("gateway_seed")), "")
    gateways = {
        gateway.id: kept[gateway.id].get("gateway_keys", {}).get(gateway.id) or fresh_key()
        for gateway in plan.of("gateway")
    }
    former = _peers(where)
    peers: dict[str, Any] = {}
    for process in plan.processes:
        before = kept[process.id]
        own: dict[str, Any] = {name: before[name] for name in ALSO if name in before}
        if process.kind == "s3":
            own |= s3
        if process.kind != "s3":
            own["curve_secret"], public = curve_pair(kept[process.id].get("curve_secret", ""))
            peers[process.id] = {"role": process.kind, "curve_public": public}
            if former.get(process.id, {}).get("curve_also"):
                peers[process.id]["curve_also"] = former[process.id]["curve_also"]
        if process.kind == "member":
            own["admin_token_hash"] = hashlib.sha256(token.encode()).hexdigest()
        if process.kind == "node":
            tenant_key = tenant_key or secrets.token_urlsafe(32)
            seed = seed or secrets.token_urlsafe(32)
            own |= s3 | {"tenant_key": tenant_key, "gateway_seed": seed, "gateway_keys": gateways}
        if process.kind == "gateway":
            own["gateway_keys"] = {process.id: gateways[process.id]}
        write_file(where.secrets(process.id), to_toml(own), 0o600)
    write_file(where.peers_file, to_toml({"peers": peers}))


def _peers(where: ClusterDir) -> dict[str, dict[str, Any]]:
    """Rows of the peers file as it is, empty without one."""
    if not where.peers_file.exists():
        return {}
    found = config.read_toml(where.peers_file).get("peers", {})
    return found if isinstance(found, dict) else {}


def fresh_s3_keys() -> dict[str, str]:
    """A new pair of keys of S3."""
    return {
        "s3_access_key": f"pbc{secrets.token_hex(8)}",
        "s3_secret_key": secrets.token_urlsafe(30),
    }


def fresh_key() -> str:
    """A new signing key or token: 256 random bits."""
    return secrets.token_urlsafe(32)


def _kept(where: ClusterDir, plan: Plan) -> dict[str, dict[str, Any]]:
    return {
        process.id: config.read_toml(file) if (file := where.secrets(process.id)).exists() else {}
        for process in plan.processes
    }


def curve_pair(secret: str) -> tuple[str, str]:
    """The CURVE pair (RFC 26 of ZeroMQ) in Z85: the given secret with its public half, or anew."""
    if secret:
        return secret, zmq.curve_public(secret.encode()).decode()
    public, fresh = zmq.curve_keypair()
    return fresh.decode(), public.decode()


def s3_keys(where: ClusterDir, plan: Plan) -> tuple[str, str]:
    """Access key and secret key of the cluster's S3."""
    content = config.load_secrets(where.secrets(plan.of("s3")[0].id))
    return content.s3_access_key, content.s3_secret_key


def accepted_s3_keys(where: ClusterDir, plan: Plan) -> dict[str, str]:
    """Further keys that the cluster's S3 takes: access key → secret key."""
    return dict(config.load_secrets(where.secrets(plan.of("s3")[0].id)).s3_keys_also)


def change(where: ClusterDir, process_id: str, changes: Mapping[str, Any]) -> None:
    """Change some secrets of a process.

    :param changes: name → value; None removes it.
    """
    content = config.read_toml(where.secrets(process_id)) | dict(changes)
    content = {name: value for name, value in content.items() if value is not None}
    write_file(where.secrets(process_id), to_toml(content), 0o600)


def accept_peer_keys(where: ClusterDir, keys: Mapping[str, list[str]]) -> None:
    """These further CURVE keys of processes are accepted, and no others. They stay until this is
    called again."""
    rows = _peers(where)
    for name, row in rows.items():
        row.pop("curve_also", None)
        if keys.get(name):
            row["curve_also"] = keys[name]
    write_file(where.peers_file, to_toml({"peers": rows}))
