"""How SeaweedFS is started as the S3 of one machine: arguments, environment, files. Starts nothing.

On loopback only, unless S3 is to serve other machines: S3 with one key pair; filer, master and
volume behind keys derived from the S3 secret, the filer without its HTTP listener; telemetry, web
interfaces and other protocols off.
Conditional writes are enforced. It serves about 3 s after its start; ready is it when a PUT of an
object succeeds (listening is no proof). Whoever starts it writes ``files`` with mode 0600 first.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import attrs

from pbcluster import binaries
from pbcluster.errors import ConfigError, InvalidInput

LOOPBACK = "127.0.0.1"
#: The further ports it needs, besides S3's.
OTHER_PORTS = (
    "s3_grpc",
    "filer",
    "filer_grpc",
    "master",
    "master_grpc",
    "volume",
    "volume_grpc",
)
#: Seconds from SIGTERM to SIGKILL. Its filer waits without end for its own S3 part to disconnect
#: (seen with 4.48); what it answered with 200 is with the kernel and survives the SIGKILL.
STOP_GRACE_S = 1.0
#: ``sun_path`` of unix(7) has 108 bytes.
_MAX_SOCKET_PATH = 100


@attrs.frozen(kw_only=True)
class SeaweedSpec:
    """All that a supervisor needs.

    :ivar argv: program and arguments, no secrets. :ivar env: variables to add to a clean
        environment. :ivar files: path → content, to be written with mode 0600 before each start.
    :ivar directory: its working directory and data; must exist. :ivar bucket: to be created.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = attrs.field(repr=False)
    files: Mapping[Path, str] = attrs.field(repr=False)
    directory: Path
    s3_url: str
    bucket: str


def seaweed_spec(
    directory: Path,
    s3_port: int,
    access_key: str,
    secret_key: str,
    bucket: str,
    *,
    ports: Mapping[str, int],
    weed: Path | None = None,
    host: str = LOOPBACK,
    closed_by: Path | None = None,
    also: Mapping[str, str] | None = None,
) -> SeaweedSpec:
    """
    :param directory: where it keeps everything.
    :param s3_port: port of its S3.
    :param ports: a port for each of :data:`OTHER_PORTS` (others are ignored).
    :param weed: the binary; None: the installed one.
    :param host: the address at which S3 is served. Its gRPC port comes along to that address, and
        whoever speaks to it may change keys; the rest stays on loopback.
    :param closed_by: where certificate.pem and key.pem of a throw-away authority stand, which the
        gRPC port of S3 wants client certificates of: there are none, so nobody gets in.
    :param also: further keys that it takes: access key → secret key. It reads ``files`` again at
        SIGHUP.
    :raises InvalidInput: another host without ``closed_by``.
    :raises InvalidInput: a port is missing, or the bucket's name is too short or long.
    :raises ConfigError: the binary is missing.
    """
    missing = [name for name in OTHER_PORTS if name not in ports]
    if missing:
        raise InvalidInput(f"no port for {missing[0]}", field="ports", allowed=str(OTHER_PORTS))
    if not 3 <= len(bucket) <= 63:
        raise InvalidInput(
            f"bucket {bucket!r} is not allowed", field="bucket", allowed="3 to 63 characters"
        )
    if host != LOOPBACK and closed_by is None:
        raise InvalidInput("its gRPC port must be closed", field="closed_by", allowed="a directory")
    directory = directory.absolute()
    keys = directory / "s3.json"
    program = str(weed or binaries.locate("weed"))
    return SeaweedSpec(
        argv=(program, "server", *_options(directory, s3_port, ports, keys, host)),
        env=_environment(secret_key) | ({} if closed_by is None else _closed(closed_by)),
        files={keys: _identities({access_key: secret_key} | dict(also or {}))},
        directory=directory,
        s3_url=f"http://{host}:{s3_port}",
        bucket=bucket,
    )


def _options(
    directory: Path, s3_port: int, ports: Mapping[str, int], keys: Path, host: str
) -> tuple[str, ...]:
    return (
        f"-dir={directory}",
        f"-ip={LOOPBACK}",
        f"-ip.bind={LOOPBACK}",
        f"-master.port={ports['master']}",
        f"-master.port.grpc={ports['master_grpc']}",
        "-master.telemetry=false",
        # It is alone: nobody to wait for or to elect. Serves after 2.4 s instead of 3.4 to 7.7.
        "-master.peers=none",
        # Else a restart on old data takes 19 s instead of 3; volumes report all it needs to know.
        "-master.resumeState=false",
        "-master.volumeSizeLimitMB=1024",
        f"-volume.port={ports['volume']}",
        f"-volume.port.grpc={ports['volume_grpc']}",
        "-volume.max=100",
        "-volume.preStopSeconds=0",
        "-filer",
        "-filer.disableHttp",
        f"-filer.port={ports['filer']}",
        f"-filer.port.grpc={ports['filer_grpc']}",
        f"-filer.localSocket={_socket(directory, 'filer')}",
        "-s3",
        *((f"-s3.ip.bind={host}",) if host != LOOPBACK else ()),
        f"-s3.port={s3_port}",
        f"-s3.port.grpc={ports['s3_grpc']}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.iam=false",
        "-s3.autoCreateBucket=false",
        f"-s3.config={keys}",
        f"-s3.localSocket={_socket(directory, 's3')}",
    )


def check_left_sockets(ports: Mapping[str, int], directory: Path = Path("/tmp")) -> None:
    """SeaweedFS names sockets in ``/tmp`` by its gRPC ports, wherever TMPDIR points, and cannot
    replace one that another user left there: it would wait for itself for ever.

    :raises ConfigError: there is such a socket.
    """
    for name in ("master", "volume", "filer", "s3"):
        path = directory / f"seaweedfs-{name}-grpc-{ports[f'{name}_grpc']}.sock"
        with contextlib.suppress(FileNotFoundError):
            owner = path.stat(follow_symlinks=False).st_uid
            if os.geteuid() not in (0, owner):
                raise ConfigError(
                    f"{path} was left by another user (uid {owner}), so SeaweedFS cannot start: "
                    "have it removed, or use another --internal-port"
                )


def _socket(directory: Path, name: str) -> str:
    path = str(directory / f"{name}.sock")
    if len(path.encode()) <= _MAX_SOCKET_PATH:
        return path
    short = hashlib.sha256(path.encode()).hexdigest()[:16]
    return f"{tempfile.gettempdir()}/pbcluster-{short}.sock"


def _environment(secret_key: str) -> dict[str, str]:
    """Keys for its inner services; without them anybody on this machine reads every object."""

    def key(label: str) -> str:
        message = f"pbcluster seaweedfs {label}".encode()
        return hmac.new(secret_key.encode(), message, hashlib.sha256).hexdigest()

    return {
        "WEED_JWT_SIGNING_KEY": key("volume write"),
        "WEED_JWT_SIGNING_READ_KEY": key("volume read"),
        "WEED_JWT_FILER_SIGNING_KEY": key("filer write"),
        "WEED_JWT_FILER_SIGNING_READ_KEY": key("filer read"),
    }


def _closed(directory: Path) -> dict[str, str]:
    """Mutual TLS of S3's gRPC port; S3 itself works without a word over it."""
    certificate = str(directory / "certificate.pem")
    return {
        "WEED_GRPC_CA": certificate,
        "WEED_GRPC_S3_CERT": certificate,
        "WEED_GRPC_S3_KEY": str(directory / "key.pem"),
    }


def _identities(keys: Mapping[str, str]) -> str:
    pairs = [{"accessKey": access, "secretKey": secret} for access, secret in keys.items()]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    return json.dumps(
        {"identities": [{"name": "pbcluster", "credentials": pairs, "actions": actions}]}
    )
