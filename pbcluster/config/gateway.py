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
    requests_per_second_per_address: float = setting(
        "requests a second of one client address (IPv6: of its /64); 0: no limit",
        "0 to 1000000",
        between(0, 1_000_000, float),
        200.0,
    )
    burst_per_address: int = setting(
        "requests at once that a rest earns a client address; 0: two seconds' worth",
        "0 to 10000000",
        between(0, 10_000_000, int),
        1_000,
    )
    requests_per_address: int = setting(
        "requests under way of one client address, event streams included; 0: no limit",
        "0 to 1000000",
        between(0, 1_000_000, int),
        1_000,
    )
    connections_per_address: int = setting(
        "open connections of one client address; 0: no limit",
        "0 to 1000000",
        between(0, 1_000_000, int),
        1_000,
    )
    limit_exempt_networks: tuple[str, ...] = setting(
        "client networks without limits of addresses: proxies of yours, which stand for many",
        "several address ranges like 10.0.0.0/8, or none",
        several(network),
        ("127.0.0.0/8", "::1/128"),
    )
    max_connections: int = setting(
        "open client connections; fewer if descriptors are short",
        "1 to 1000000",
        between(1, 1_000_000, int),
        20_000,
    )
    max_requests: int = setting(
        "requests under way, event streams included",
        "1 to 1000000",
        between(1, 1_000_000, int),
        20_000,
    )
    shed_loop_lag_s: float = setting(
        "new requests get 503 while the event loop is so many seconds late; 0: never",
        "0 to 60",
        between(0, 60, float),
        0.1,
    )
    shed_descriptors: float = setting(
        "new requests get 503 while this share of all descriptors is in use; 0: never",
        "0 to 1",
        between(0, 1, float),
        0.8,
    )
