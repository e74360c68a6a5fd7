"""The settings of the three services: TOML file first, flags over it, checked once.

Each service has one frozen class whose fields carry their own help, check and default, so that the
flags of ``twistd``, the keys of the TOML file, the documentation and the error messages cannot
drift apart. A wrong value names the option, the value and what is allowed.

``member``, ``node``, ``gateway`` (what each service can be told) stand on ``service`` (what all
can) and ``checks``; ``loading`` reads files and flags, ``secrets`` what no flag may hold.
"""

from __future__ import annotations

from pbcluster.config.checks import http_url, tcp_endpoint
from pbcluster.config.gateway import GatewayConfig
from pbcluster.config.loading import load, read_toml, settings_of
from pbcluster.config.member import BEGINNINGS, FIRST_START, RECOVERED, MemberConfig
from pbcluster.config.node import NodeConfig
from pbcluster.config.secrets import Peer, Secrets, load_peers, load_secrets
from pbcluster.config.service import ServiceConfig

__all__ = [
    "BEGINNINGS",
    "FIRST_START",
    "RECOVERED",
    "GatewayConfig",
    "MemberConfig",
    "NodeConfig",
    "Peer",
    "Secrets",
    "ServiceConfig",
    "http_url",
    "load",
    "load_peers",
    "load_secrets",
    "read_toml",
    "settings_of",
    "tcp_endpoint",
]
