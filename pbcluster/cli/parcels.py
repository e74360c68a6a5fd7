"""What a process that joins gets from the directory of the first host, beside what it makes itself.

Secrets of its role and the settings that processes of its kind have there, without what is a
machine's own: addresses, paths of files that ``pbcluster`` wrote, builds of binaries. ``joining``
puts both into its files.
"""

from __future__ import annotations

from typing import Any

from pbcluster import config, signing
from pbcluster.cli import process_settings
from pbcluster.cli.layout import ClusterDir, Plan
from pbcluster.config import Secrets
from pbcluster.errors import ConfigError

#: Settings that a machine has of its own.
# fmt: off
OWN = frozenset((
    "id", "cluster_id", "data_dir", "secrets_file", "peers_file", "insecure_plain_sockets",
    "members", "broadcasts", "listen", "request_endpoint", "broadcast_endpoint",
    "raft_endpoint", "admin_listen", "raft_peers", "request_peers", "broadcast_peers",
    "admin_peers", "advertise", "node_tls", "admin_tls", "admin_ca", "authority", "binaries",
))
# fmt: on


def check_open(where: ClusterDir, plan: Plan) -> None:
    """Processes of other machines can join this cluster, by this directory.

    :raises ConfigError: they cannot; says why.
    """
    if plan.joined:
        raise ConfigError(
            f"{where.root} was made by `pbcluster join`: join tokens are made on the first host, "
            "whose directory has the secrets"
        )
    if not plan.address:
        raise ConfigError(
            "this cluster listens on loopback only: stop it, and start it with "
            f"`pbcluster up --dir {where.root} --address IP`"
        )
    if "admin_tls" in plan.settings.get("member", {}):
        raise ConfigError(
            "the admin API has certificates of yours (admin_tls): a join token can only pin the "
            "cluster's own authority; leave that setting away"
        )


def make(where: ClusterDir, plan: Plan, role: str, name: str) -> dict[str, Any]:
    """The parcel of a process. :raises ConfigError: a file of the directory cannot be read."""
    like = plan.of(role)[0]
    settings = process_settings.of(where, plan, like)
    kept = config.load_secrets(where.secrets(like.id))
    seed = config.load_secrets(where.secrets(plan.of("node")[0].id)).gateway_seed
    if not seed:
        raise ConfigError("this directory is of an older version: `pbcluster up` completes it")
    return {
        "settings": {key: value for key, value in settings.items() if key not in OWN},
        "secrets": _secrets(role, name, kept, seed),
        "authority_key": _authority_key(where) if role == "member" else "",
        "base_domain": plan.base_domain,
        "node_tls": plan.node_tls,
    }


def _secrets(role: str, name: str, like: Secrets, seed: str) -> dict[str, Any]:
    if role == "member":
        return {"admin_token_hash": like.admin_token_hash}
    if role == "gateway":
        return {"gateway_keys": {name: signing.derived_key(seed, name)}}
    return {
        "s3_access_key": like.s3_access_key,
        "s3_secret_key": like.s3_secret_key,
        "tenant_key": like.tenant_key,
        "gateway_keys": dict(like.gateway_keys),
        "gateway_seed": seed,
    }


def _authority_key(where: ClusterDir) -> str:
    """Members certify who joins: any of them may lead."""
    try:
        return (where.authority / "ca.key").read_text(encoding="ascii")
    except OSError as error:
        raise ConfigError(f"cannot read {error.filename}: {error.strerror}") from None
