"""The settings of a node."""

from __future__ import annotations

from pathlib import Path

import attrs

from pbcluster import records
from pbcluster.config.checks import (
    DIR,
    PORT,
    between,
    boolean,
    http_url,
    listen_address,
    network,
    number_range,
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
    drain_on_stop_s: float = setting(
        "a node that is stopped lets its running tenants go to other nodes first, for so many "
        "seconds; 0: it does not",
        "0 to 600",
        between(0, 600, float),
        15.0,
    )
    warm_bytes: int = setting(
        "bytes that copies of stopped tenants may take on the disk; 0: half of what is free",
        "0 to 2^60",
        between(0, 2**60, int),
        0,
    )
    point_in_time_s: float = setting(
        "so many seconds back a tenant can be restored to a moment; older epochs leave S3",
        "0 to 315360000",
        between(0, 315_360_000, float),
        86400.0,
    )
    region: str = setting("region of this machine", "a word or nothing", optional_text, "")
    zone: str = setting("zone of this machine", "a word or nothing", optional_text, "")
    s3_endpoint: str = setting("S3's URL", "http(s)://HOST:PORT", http_url)
    s3_bucket: str = setting("S3 bucket of the cluster", "3 to 63 characters", text)
    s3_region: str = setting("S3 region", "a word", text, "us-east-1")
    files: str = setting(
        "where tenants' uploaded files and backups are kept: in S3, or on this machine's disk only",
        "s3 or local",
        one_of("s3", "local"),
        "s3",
    )
    files_window_s: float = setting(
        "a deleted file stays in S3 for so many seconds, for restores to a point in time",
        "0 to 31536000",
        between(0, 31_536_000, float),
        86_400.0,
    )
    tenant_max_file_bytes: int = setting(
        "bytes that the files of a tenant may take whose quotas name none; 0: no limit",
        "0 to 10^15",
        between(0, 10**15, int),
        10 * 1024**3,
    )
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
    tenant_max_db_bytes: int = setting(
        "bytes of the database of a tenant whose quotas name none; 0: no limit",
        "0 to 2^53",
        between(0, 2**53, int),
        16 * 1024**3,
    )
    sandbox: str = setting(
        "how tenants are confined",
        "auto, landlock or bubblewrap",
        one_of("auto", "landlock", "bubblewrap"),
        "auto",
    )
    insecure_no_sandbox: bool = setting(
        "run tenants without a sandbox: whoever is superuser of one then is this node's user",
        "true or false",
        boolean,
        False,
    )
    tenant_uids: str = setting(
        "users given to tenants, one each, if the node is root; empty: none",
        "FIRST-LAST, or nothing",
        number_range,
        "30000-59999",
    )
    tenant_memory_bytes: int = setting(
        "memory of a tenant whose quotas name none, in bytes",
        "67108864 to 1099511627776",
        between(64 * 2**20, 2**40, int),
        512 * 2**20,
    )
    tenant_cpu_share: float = setting(
        "cores that a tenant whose quotas name no share may fill",
        "0.05 to 1024",
        between(0.05, 1024, float),
        1.0,
    )
    tenant_file_bytes: int = setting(
        "size of the largest file that a tenant may write, in bytes",
        "16777216 to 1099511627776",
        between(16 * 2**20, 2**40, int),
        64 * 2**30,
    )
    egress: bool = setting(
        "let tenants connect to public addresses, through the node's proxy",
        "true or false",
        boolean,
        False,
    )
    egress_connections: int = setting(
        "outgoing connections of one tenant at once",
        "1 to 10000",
        between(1, 10000, int),
        32,
    )
    egress_refused: tuple[str, ...] = setting(
        "networks that tenants may not reach through the proxy, beside all that are not public",
        "address ranges, several by commas",
        several(network),
        (),
    )
