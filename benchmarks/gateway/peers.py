"""The other proxies, set up for the same work as far as they know it, and the fast upstream. Their
configuration files stand in ``settings``.

All: one thread, keep-alive on both sides without a count after which a connection ends, forwarded
headers overwritten, a request id of their own towards both sides, a W3C ``traceparent`` that is
kept or else made, an access log of JSON lines in a file, repeated attempts where the first could
not be made, a table that brings host names to upstreams, counts of failures for each upstream that
take it out of service. None of them signs.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.gateway.processes import FILES, Running, family, program

#: The directory with these benchmarks.
HERE = Path(__file__).resolve().parent.parent.parent
#: The tenant under load and its neighbours in the tables of host names.
TENANT = "bench"
HOST = f"{TENANT}.localhost"
HOSTS = (HOST, *(f"tenant{number:03d}.localhost" for number in range(99)))
#: What nearly all measures ask for: a record of a collection, 200 bytes of JSON.
PATH = "/api/collections/posts/records/k3j9x0q2m5n7p1r"
ANSWER_BYTES = 200
_ANSWER = '{"id":"k3j9x0q2m5n7p1r","collectionName":"posts","title":"'
ANSWER = _ANSWER + "x" * (ANSWER_BYTES - len(_ANSWER) - 2) + '"}'
#: Shows which fields of a request came to the upstream.
SEEN_PATH = "/seen"
_SEEN = {
    "forwarded-for": "$http_x_forwarded_for",
    "forwarded-proto": "$http_x_forwarded_proto",
    "forwarded-host": "$http_x_forwarded_host",
    "real-ip": "$http_x_real_ip",
    "request-id": "$http_x_request_id",
    "traceparent": "$http_traceparent",
    "signature": "$http_x_pbcluster_signature$http_x_pbcluster_signed",
    "connection": "$http_connection",
}
#: The platform's header names, of all checkouts.
_MARKS = ("Gateway", "Tenant", "Epoch", "Time", "Request-ID", "Signature", "Signed")
#: Each takes two descriptors, and it refuses to start without enough of them.
_HAPROXY_CONNECTIONS = 4000


class Peer:
    """A program with one listener.

    :ivar log: its access log, None if it writes none. :ivar port: where it listens.
    """

    def __init__(self, name: str, root: Path, port: int, *, log: bool = True) -> None:
        self.name = name
        self.port = port
        self.root = root
        self.log = root / "access.log" if log else None
        self._running: Running | None = None

    def logs(self) -> list[Path]:
        """The files of its access log."""
        return [] if self.log is None else [self.log]

    def pids(self) -> list[int]:
        """All its processes."""
        assert self._running is not None
        return family(self._running.pid)

    def run(
        self,
        argv: list[str],
        core: int | None,
        output: str = "output.log",
        env: Mapping[str, str] | None = None,
    ) -> Peer:
        """Start it; returns when it listens.

        :param output: file for what it prints.
        """
        env = {"GOMAXPROCS": "1", "HOME": str(self.root), **(env or {})}
        self._running = Running(argv, self.root / output, core=core, env=env)
        try:
            self._running.wait_listening(self.port, self.name)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End it, and remove its files."""
        if self._running is not None:
            self._running.stop()
        shutil.rmtree(self.root, ignore_errors=True)


def make_root(name: str) -> Path:
    """A directory for a program's files, under the system's temporary one."""
    root = Path(tempfile.mkdtemp(prefix=f"bench-{name}-"))
    root.chmod(0o755)
    return root


def settings(name: str, **values: object) -> str:
    """The content of a file in ``settings``, with each ``@NAME@`` replaced by a value.

    :raises KeyError: it has a name for which there is no value.
    """
    text = (Path(__file__).parent / "settings" / name).read_text()
    return re.sub("@([A-Z_]+)@", lambda found: str(values[found[1]]), text)


def upstream(port: int, core: int | None) -> Peer:
    """The stand-in node: answers a constant, its health, and what it saw of a request."""
    peer = Peer("upstream", make_root("upstream"), port, log=False)
    seen = ",".join(f'"{name}":"{value}"' for name, value in _SEEN.items())
    return _nginx(peer, "upstream.conf", core, ANSWER=ANSWER, SEEN_PATH=SEEN_PATH, SEEN=seen)


def nginx(
    port: int,
    upstream_port: int,
    core: int | None,
    more: str = "",
    tls: str = "",
    workers: int = 1,
) -> Peer:
    """
    :param more: further lines of the location that proxies. :param tls: of a TLS listener.
    :param workers: processes; several have a listening socket each, as the gateway's have.
    """
    peer = Peer("nginx", make_root("nginx"), port)
    table = " ".join(f"{host} nodes;" for host in HOSTS)
    values = {"UPSTREAM": upstream_port, "LOG": peer.log, "TABLE": table, "MORE": more}
    listen = " ".join(["ssl"] * bool(tls) + ["reuseport"] * (workers > 1))
    return _nginx(peer, "nginx.conf", core, **values, TLS=tls, LISTEN=listen, WORKERS=workers)


def nginx_tls(port: int, upstream_port: int, core: int | None, certificate: Path) -> Peer:
    """
    :param certificate: a file with certificate and key.
    """
    tls = f"ssl_certificate {certificate}; ssl_certificate_key {certificate};"
    return nginx(port, upstream_port, core, tls=f"{tls} ssl_protocols TLSv1.2 TLSv1.3;")


def nginx_hop(port: int, upstream_port: int, core: int | None) -> Peer:
    """nginx in the place of a node: strips the platform's marks and forwards."""
    peer = Peer("nginx", make_root("nginx-hop"), port, log=False)
    marks = "\n      ".join(f'proxy_set_header X-PBCluster-{mark} "";' for mark in _MARKS)
    return _nginx(peer, "nginx-hop.conf", core, UPSTREAM=upstream_port, MARKS=marks)


def _nginx(peer: Peer, name: str, core: int | None, **values: object) -> Peer:
    file = peer.root / "nginx.conf"
    file.write_text(settings(name, ROOT=peer.root, FILES=FILES, PORT=peer.port, **values))
    return peer.run([program("nginx"), "-p", str(peer.root), "-c", str(file)], core)


def haproxy(port: int, upstream_port: int, core: int | None) -> Peer:
    peer = Peer("haproxy", make_root("haproxy"), port)
    table, file = peer.root / "hosts.map", peer.root / "haproxy.cfg"
    table.write_text("".join(f"{host} nodes\n" for host in HOSTS))
    values = {"PORT": port, "UPSTREAM": upstream_port, "TABLE": table}
    file.write_text(settings("haproxy.cfg", CONNECTIONS=_HAPROXY_CONNECTIONS, **values))
    return peer.run([program("haproxy"), "-db", "-f", str(file)], core, output="access.log")


def caddy(port: int, upstream_port: int, core: int | None) -> Peer:
    peer = Peer("caddy", make_root("caddy"), port)
    # With the port in its names it would look for its log under the Host as sent, and find none.
    names = ", ".join(f"http://{host}" for host in HOSTS)
    file = peer.root / "Caddyfile"
    values = {"PORT": port, "UPSTREAM": upstream_port, "LOG": peer.log, "NAMES": names}
    file.write_text(settings("Caddyfile", **values))
    argv = [program("caddy"), "run", "--adapter", "caddyfile", "--config", str(file)]
    return peer.run(argv, core)


def copier(port: int, upstream_port: int, core: int | None) -> Peer:
    """No gateway: it copies bytes on the streams that ours has (``copying``)."""
    peer = Peer("copier", make_root("copier"), port, log=False)
    argv = [sys.executable, "-P", "-m", "benchmarks.gateway.copying", str(port), str(upstream_port)]
    return peer.run(argv, core, env={"PYTHONPATH": str(HERE)})
