"""Measures "tls" and "handshakes": requests over TLS that is open, and a connection a request."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path
from typing import Any

import attrs

from benchmarks.gateway import peers, wrk
from benchmarks.gateway.options import Options
from benchmarks.gateway.ours import Ours
from benchmarks.gateway.processes import free_ports
from benchmarks.gateway.proxied import CONNECTIONS, WARM_UP_S
from benchmarks.gateway.turns import take_turns, together, weigh
from benchmarks.measured import Measured

NEEDS = ("nginx", "wrk", "taskset")


def certificate(root: Path) -> Path:
    """A self-signed one for the tenant's host, ECDSA P-256, with its key in ``default.pem``."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, peers.HOST)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(peers.HOST)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = root / "default.pem"
    file.touch(0o600)
    file.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return file


def lua(root: Path) -> Path:
    """wrk names the URL's host to the server (SNI) but connects to the loopback."""
    script = root / "resolve.lua"
    script.write_text(
        "wrk.resolve = function(host, service)\n"
        '  wrk.addrs = wrk.lookup("127.0.0.1", service)\n'
        "end\n"
    )
    return script


def measure_requests(options: Options) -> Measured:
    return _measure(options, "tls", f"A request over TLS, {CONNECTIONS} connections", close=False)


def measure_handshakes(options: Options) -> Measured:
    return _measure(options, "handshakes", "A TLS connection for each request", close=True)


def _measure(options: Options, name: str, title: str, *, close: bool) -> Measured:
    with together() as to:
        root = peers.make_root("tls")
        to.add(_Directory(root))
        certificate(root)
        systems = _started(options, to, root)
        if not systems:
            reason = "pbgateway of this checkout has no option --tls-listen"
            return Measured(name, title, {}, (), skipped=reason)
        script = lua(root)

        def one(system: Any, number: int) -> dict[str, float]:
            def load(seconds: float) -> Any:
                return wrk.run(
                    f"https://{peers.HOST}:{system.tls_port}{peers.PATH}",
                    {"Connection": "close"} if close else {},
                    connections=CONNECTIONS,
                    seconds=seconds,
                    core=options.other,
                    script=script,
                )

            if number == 0:
                load(WARM_UP_S)
            figures = weigh(system.pids(), lambda: load(options.seconds))
            if not close:
                return figures
            return {"cpu_handshake_us": figures["cpu_us"], "handshakes": figures["rate"]}

        found = take_turns(systems, options.rounds, one)
    return Measured(name, title, found, options.labels)


@attrs.frozen
class _Directory:
    root: Path

    def stop(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


def _started(options: Options, to: Any, root: Path) -> list[Any]:
    """Every checkout's gateway and nginx, each with ``tls_port``; empty: one cannot do it."""
    upstream_port, nginx_port, *ports = free_ports(2 + len(options.checkouts))
    to.add(peers.upstream(upstream_port, options.other))
    cores = {"gateway": options.core, "other": options.other}
    systems: list[Any] = []
    for checkout, port in zip(options.checkouts, ports, strict=True):
        settings = {"tls_listen": [f"127.0.0.1:{port}"], "tls_certificates": str(root)}
        ours = to.add(Ours(checkout, upstream_port, cores, settings=settings))
        if not ours.has_option("tls-listen"):
            return []
        ours.tls_port = port
        systems.append(ours)
    nginx = to.add(peers.nginx_tls(nginx_port, upstream_port, options.core, root / "default.pem"))
    nginx.tls_port = nginx.port
    return [*systems, nginx]
