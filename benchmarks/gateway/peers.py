"""The other proxies, set up for the same work as far as they know it, and the fast upstream.

All: one thread, keep-alive on both sides without a count after which a connection ends, forwarded
headers overwritten, a request id of their own towards both sides, a W3C ``traceparent`` that is
kept or else made, an access log of JSON lines in a file, repeated attempts where the first could
not be made, a table that brings host names to upstreams, counts of failures for each upstream that
take it out of service. None of them signs.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.gateway.processes import FILES, Running, family, program

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
_NGINX_HEAD = """
worker_processes 1;
daemon off;
error_log stderr warn;
pid {root}/nginx.pid;
worker_rlimit_nofile {files};
events {{ worker_connections {files}; }}
http {{
  client_body_temp_path {root}/body; proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/f;
  uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
  keepalive_requests 1000000000; keepalive_timeout 75s; tcp_nodelay on;
"""
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


def upstream(port: int, core: int | None) -> Peer:
    """The stand-in node: answers a constant, its health, and what it saw of a request."""
    root = make_root("upstream")
    seen = ",".join(f'"{name}":"{value}"' for name, value in _SEEN.items())
    text = (
        _NGINX_HEAD.format(root=root, files=FILES)
        + f"""
  access_log off;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    default_type application/json;
    location / {{ return 200 '{ANSWER}'; }}
    location = {SEEN_PATH} {{ return 200 '{{{seen}}}'; }}
    location = /healthz {{ return 200 '{{"status":"ok"}}'; }}
  }}
}}
"""
    )
    return _nginx(Peer("upstream", root, port, log=False), text, core)


def nginx(port: int, upstream_port: int, core: int | None, more: str = "") -> Peer:
    """
    :param more: further lines of the location that proxies.
    """
    root = make_root("nginx")
    peer = Peer("nginx", root, port)
    assert peer.log is not None
    text = _NGINX_HEAD.format(root=root, files=FILES)
    text += nginx_body(port, upstream_port, peer.log, more=more)
    return _nginx(peer, text, core)


def nginx_tls(port: int, upstream_port: int, core: int | None, certificate: Path) -> Peer:
    """
    :param certificate: a file with certificate and key.
    """
    root = make_root("nginx")
    peer = Peer("nginx", root, port)
    assert peer.log is not None
    tls = f"ssl_certificate {certificate}; ssl_certificate_key {certificate};"
    tls += " ssl_protocols TLSv1.2 TLSv1.3;"
    text = _NGINX_HEAD.format(root=root, files=FILES)
    text += nginx_body(port, upstream_port, peer.log, tls=tls)
    return _nginx(peer, text, core)


_MARKS = ("Gateway", "Tenant", "Epoch", "Time", "Request-ID", "Signature", "Signed")


def nginx_hop(port: int, upstream_port: int, core: int | None) -> Peer:
    """nginx in the place of a node: strips the platform's marks and forwards."""
    peer = Peer("nginx", make_root("nginx-hop"), port, log=False)
    marks = "\n".join(f'      proxy_set_header X-PBCluster-{mark} "";' for mark in _MARKS)
    text = (
        _NGINX_HEAD.format(root=peer.root, files=FILES)
        + f"""
  access_log off;
  upstream pocketbase {{
    server 127.0.0.1:{upstream_port};
    keepalive 64; keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    client_max_body_size 32m;
    location / {{
      proxy_pass http://pocketbase;
      proxy_http_version 1.1;
      proxy_read_timeout 310s;
      proxy_set_header Host $http_host;
      proxy_set_header Connection "";
{marks}
    }}
  }}
}}
"""
    )
    return _nginx(peer, text, core)


_FIELDS = {
    "request_id": "$request_id",
    "peer": "$remote_addr",
    "method": "$request_method",
    "path": "$uri",
    "tenant": "$host",
    "node": "$upstream_addr",
    "outcome": "$request_completion",
    "first_byte_s": "$upstream_header_time",
    "connect_s": "$upstream_connect_time",
    "duration_s": "$request_time",
}
_NUMBERS = {"status": "$status", "bytes_in": "$request_length", "bytes_out": "$body_bytes_sent"}


def nginx_body(port: int, upstream_port: int, log: Path, *, tls: str = "", more: str = "") -> str:
    """The proxying part of its configuration.

    :param tls: further lines for a TLS listener. :param more: of the location.
    """
    fields = ",".join(
        [f'"{name}":"{value}"' for name, value in _FIELDS.items()]
        + [f'"{name}":{value}' for name, value in _NUMBERS.items()]
    )
    table = " ".join(f"{host} nodes;" for host in HOSTS)
    return f"""
  log_format line escape=json '{{"time":"$time_iso8601",{fields}}}';
  access_log {log} line buffer=64k flush=1s;
  server_names_hash_max_size 4096; map_hash_max_size 4096;
  map $host $node {{ default ""; {table} }}
  map $http_traceparent $trace {{
    default $http_traceparent;
    "" "00-$request_id-00f067aa0ba902b7-01";
  }}
  upstream nodes {{
    server 127.0.0.1:{upstream_port} max_fails=5 fail_timeout=2s;
    keepalive 64; keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096 {"ssl" if tls else ""};
    {tls}
    client_max_body_size 32m;
    large_client_header_buffers 4 8k;
    location = /metrics {{ stub_status; }}
    location / {{
      if ($node = "") {{ return 404; }}
      proxy_pass http://$node;
      proxy_http_version 1.1;
      proxy_connect_timeout 1s; proxy_read_timeout 315s;
      proxy_next_upstream error timeout http_502 http_503; proxy_next_upstream_tries 3;
      proxy_set_header Host $http_host;
      proxy_set_header Connection "";
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Request-ID $request_id;
      proxy_set_header traceparent $trace;
      add_header X-Request-ID $request_id always;
      {more}
    }}
  }}
}}
"""


def _nginx(peer: Peer, text: str, core: int | None) -> Peer:
    file = peer.root / "nginx.conf"
    file.write_text(text)
    return peer.run([program("nginx"), "-p", str(peer.root), "-c", str(file)], core)


def haproxy(port: int, upstream_port: int, core: int | None) -> Peer:
    root = make_root("haproxy")
    peer = Peer("haproxy", root, port)
    table = root / "hosts.map"
    table.write_text("".join(f"{host} nodes\n" for host in HOSTS))
    fields = (
        '{"time":"%T","request_id":"%ID","peer":"%ci","method":"%HM","path":"%HP","status":%ST,'
        '"tenant":"%[var(txn.host)]","node":"%s","outcome":"%ts","first_byte_ms":%Tr,'
        '"duration_ms":%Ta,"held_ms":%Tw,"attempts":"%rc","bytes_in":%U,"bytes_out":%B}'
    ).replace('"', r"\"")
    file = root / "haproxy.cfg"
    # Its standard output is the access log: it knows no file of its own.
    file.write_text(f"""
global
  nbthread 1
  maxconn {_HAPROXY_CONNECTIONS}
  log stdout format raw local0 info
defaults
  mode http
  log global
  log-format "{fields}"
  option http-keep-alive
  http-reuse always
  retries 2
  option redispatch
  retry-on conn-failure empty-response
  timeout connect 1s
  timeout client 60s
  timeout server 315s
  timeout http-request 10s
  timeout http-keep-alive 60s
  timeout queue 30s
  unique-id-format %{{+X}}o%ci%cp%fi%fp%Ts%rt%pid
frontend public
  bind 127.0.0.1:{port} backlog 4096
  unique-id-header X-Request-ID
  http-request set-var(txn.host) req.hdr(host),field(1,:),lower
  http-request set-var(txn.id) unique-id
  http-request deny deny_status 404 unless {{ var(txn.host),map_str({table}) -m found }}
  http-request set-header X-Real-IP %[src]
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header traceparent 00-%[uuid(4),regsub(-,,g)]-00f067aa0ba902b7-01 \
unless {{ req.hdr(traceparent) -m found }}
  http-response set-header X-Request-ID %[var(txn.id)]
  use_backend %[var(txn.host),map_str({table},nodes)]
backend nodes
  server node_1 127.0.0.1:{upstream_port} check inter 2s fall 3 rise 2 observe layer7 \
error-limit 5 on-error mark-down pool-max-conn 64
""")
    return peer.run([program("haproxy"), "-db", "-f", str(file)], core, output="access.log")


def caddy(port: int, upstream_port: int, core: int | None) -> Peer:
    root = make_root("caddy")
    peer = Peer("caddy", root, port)
    # With the port in its names it would look for its log under the Host as sent, and find none.
    names = ", ".join(f"http://{host}" for host in HOSTS)
    file = root / "Caddyfile"
    file.write_text(f"""{{
  admin off
  auto_https off
  http_port {port}
  servers {{
    metrics
  }}
}}
{names} {{
  bind 127.0.0.1
  log {{
    output file {peer.log} {{
      roll_disabled
    }}
    format json
  }}
  @untraced not header traceparent *
  request_header @untraced traceparent 00-{{http.request.uuid}}-00f067aa0ba902b7-01
  header X-Request-ID {{http.request.uuid}}
  request_body {{
    max_size 32MB
  }}
  reverse_proxy 127.0.0.1:{upstream_port} {{
    header_up X-Real-IP {{http.request.remote.host}}
    header_up X-Request-ID {{http.request.uuid}}
    lb_try_duration 1s
    fail_duration 2s
    max_fails 5
    health_uri /healthz
    health_interval 2s
    transport http {{
      dial_timeout 1s
      keepalive_idle_conns_per_host 64
    }}
  }}
}}
""")
    argv = [program("caddy"), "run", "--adapter", "caddyfile", "--config", str(file)]
    return peer.run(argv, core)
