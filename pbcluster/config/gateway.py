"""The settings of a gateway."""

from __future__ import annotations

import attrs

from pbcluster.config.checks import (
    ENDPOINT,
    PORT,
    between,
    domain,
    listen_address,
    network,
    setting,
    several,
    tcp_endpoint,
)
from pbcluster.config.service import ServiceConfig


@attrs.frozen(kw_only=True)
class GatewayConfig(ServiceConfig):
    """Settings of a gateway (``twistd pbgateway``)."""

    listen: tuple[str, int] = setting("public address", PORT, listen_address, "127.0.0.1:8080")
    metrics_listen: tuple[str, int] = setting(
        "address of health and metrics", PORT, listen_address, "127.0.0.1:0"
    )
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
    base_domains: tuple[str, ...] = setting(
        "a request for NAME.DOMAIN is for tenant NAME",
        "one or more domains, by commas",
        several(domain, 1),
        ("localhost",),
    )
    trusted_networks: tuple[str, ...] = setting(
        "from these a request may name its tenant by X-Tenant-ID",
        "several address ranges like 10.0.0.0/8, by commas",
        several(network),
        (),
    )
    route_ttl_s: float = setting(
        "seconds a route is used without asking again",
        "1 to 86400",
        between(1, 86400, float),
        300.0,
    )
    hold_s: float = setting(
        "seconds a request waits for a tenant that starts or moves",
        "0 to 300",
        between(0, 300, float),
        30.0,
    )
    max_body_bytes: int = setting(
        "largest request body, in bytes",
        "1024 to 2^40",
        between(1024, 2**40, int),
        32 * 1024 * 1024,
    )
