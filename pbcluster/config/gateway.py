"""The settings of a gateway."""

from __future__ import annotations

from pathlib import Path

import attrs

from pbcluster.config.checks import (
    DIR,
    WHERE,
    between,
    boolean,
    domain,
    listen_where,
    network,
    one_of,
    path,
    setting,
    several,
)
from pbcluster.config.service import ClientConfig


@attrs.frozen(kw_only=True)
class GatewayConfig(ClientConfig):
    """Settings of a gateway (``twistd pbgateway``)."""

    listen: tuple[str, int] | str = setting("public address", WHERE, listen_where, "127.0.0.1:8080")
    tls_listen: tuple[tuple[str, int] | str, ...] = setting(
        "public addresses with TLS; usual is port 8443",
        f"none, or several by commas of: {WHERE}",
        several(listen_where),
        (),
    )
    tls_certificates: Path | None = setting(
        "certificates of tls_listen: NAME.pem, NAME.crt + NAME.key, NAME/fullchain.pem + "
        "NAME/privkey.pem; `default` serves unknown names",
        DIR,
        path,
        None,
    )
    tls_watch_s: float = setting(
        "seconds between two looks at the certificates",
        "0.1 to 86400",
        between(0.1, 86400, float),
        10.0,
    )
    http_redirect: str = setting(
        "send requests without TLS to https: hosts that a certificate covers (known), or all",
        "off, known, all",
        one_of("off", "known", "all"),
        "off",
    )
    http_redirect_port: int = setting(
        "port of https that clients use; 0: that of the first tls_listen",
        "0 to 65535",
        between(0, 65535, int),
        0,
    )
    hsts_s: int = setting(
        "seconds for which browsers shall use TLS only (Strict-Transport-Security); 0: not told",
        "0 to 63072000",
        between(0, 63_072_000, int),
        0,
    )
    hsts_subdomains: bool = setting(
        "with hsts_s: for all names below a host too", "true or false", boolean, False
    )
    node_tls: Path | None = setting(
        "TLS to nodes: where ca.pem, certificate.pem and key.pem of this gateway stand",
        DIR,
        path,
        None,
    )
    node_tls_required: bool = setting(
        "with node_tls: never speak to a node without TLS", "true or false", boolean, True
    )
    base_domains: tuple[str, ...] = setting(
        "a request for NAME.DOMAIN is for tenant NAME",
        "one or more domains, by commas",
        several(domain, 1),
        ("localhost",),
    )
    access_log: bool = setting(
        "log each request as a line of JSON into DATA_DIR/access.log",
        "true or false",
        boolean,
        True,
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
    header_timeout_s: float = setting(
        "seconds from a request's first byte to its whole head, then 408",
        "0.1 to 300",
        between(0.1, 300, float),
        10.0,
    )
    body_idle_s: float = setting(
        "seconds in which a request body must bring 900 bytes, else 408",
        "0.1 to 3600",
        between(0.1, 3600, float),
        30.0,
    )
    max_body_bytes: int = setting(
        "largest request body, in bytes",
        "1024 to 2^40",
        between(1024, 2**40, int),
        32 * 1024 * 1024,
    )
    workers: int = setting(
        "processes that share the public address", "1 to 64", between(1, 64, int), 1
    )
    drain_ready_s: float = setting(
        "seconds from SIGTERM, /readyz answering 503, until no connection is accepted any more",
        "0 to 300",
        between(0, 300, float),
        5.0,
    )
    drain_s: float = setting(
        "seconds in which requests under way may finish after that",
        "0 to 3600",
        between(0, 3600, float),
        30.0,
    )
    take_over: bool = setting(
        "take the listening sockets over from a gateway that runs on this data directory",
        "true or false",
        boolean,
        False,
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
