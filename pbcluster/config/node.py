"""The settings of a node."""

from __future__ import annotations

from pathlib import Path

import attrs

from pbcluster import records
from pbcluster.config.checks import (
    DIR,
    PORT,
    between,
    http_url,
    listen_address,
    one_of,
    optional_text,
    path,
    setting,
    several,
    text,
)
from pbcluster.config.service import ClientConfig


@attrs.frozen(kw_only=True)
class NodeConfig(ClientConfig):
    """Settings of a node (``twistd pbnode``)."""

    listen: tuple[str, int] = setting(
        "address of the front door, for gateways only", PORT, listen_address, "127.0.0.1:8090"
    )
    node_tls: Path | None = setting(
        "TLS for gateways only: where ca.pem, certificate.pem and key.pem of this node stand",
        DIR,
        path,
        None,
    )
    advertise: str = setting(
        "base URL by which gateways reach the front door; empty: http(s)://LISTEN",
        "http://HOST:PORT, with node_tls https://HOST:PORT, or nothing",
        lambda value: value and http_url(value),
        "",
    )
    capacity: int = setting(
        "tenants at once", "1 to 10000", between(1, 10000, int), records.DEFAULT_CAPACITY
    )
    idle_stop_s: float = setting(
        "stop a tenant after so many seconds without a request",
        "0.1 to 86400",
        between(0.1, 86400, float),
        900.0,
    )
    region: str = setting("region of this machine", "a word or nothing", optional_text, "")
    zone: str = setting("zone of this machine", "a word or nothing", optional_text, "")
    s3_endpoint: str = setting("S3's URL", "http(s)://HOST:PORT", http_url)
    s3_bucket: str = setting("S3 bucket of the cluster", "3 to 63 characters", text)
    s3_region: str = setting("S3 region", "a word", text, "us-east-1")
    binaries: tuple[str, ...] = setting(
        "use another build of a binary, NAME=PATH",
        "pocketbase=PATH or litestream=PATH, several by commas",
        several(text),
        (),
    )
    auxiliary: str = setting(
        "whether tenants' auxiliary.db (request logs) is replicated, too",
        "on or off",
        one_of("on", "off"),
        "on",
    )
    tenant_requests_per_second: float = setting(
        "requests a second of a tenant whose quotas name none; 0: no limit",
        "0 to 1000000",
        between(0, 1_000_000, float),
        10_000.0,
    )
    tenant_burst: int = setting(
        "requests at once that a rest earns a tenant without a rate of its own; 0: two seconds'",
        "0 to 10000000",
        between(0, 10_000_000, int),
        0,
    )
    tenant_concurrent_requests: int = setting(
        "requests under way of a tenant whose quotas name no number; 0: no limit",
        "0 to 1000000",
        between(0, 1_000_000, int),
        1_000,
    )
    tenant_event_streams: int = setting(
        "open event streams of a tenant whose quotas name no number; 0: no limit",
        "0 to 1000000",
        between(0, 1_000_000, int),
        2_000,
    )
