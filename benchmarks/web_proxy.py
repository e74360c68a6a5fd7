"""CPU time of one proxied keep-alive request of 200 bytes through the HTTP core.

    python -m benchmarks.web_proxy [SECONDS [JSON-FILE]]

Three processes on the loopback: an upstream that answers a constant, the proxy (twice: on the
epoll reactor and on the one the services use), and a load generator, ``wrk`` if it is installed,
else a client of our own. The figure is the proxy process's own CPU time (user and system) divided
by the requests it served, so that the other processes may share the machine. Before that, the core
alone is measured in memory.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import measured, report
from benchmarks.measured import Measured

CONNECTIONS = 32
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 200\r\n\r\n" + b"x" * 200
)
REQUEST = (
    b"GET /api/collections/posts/records/abc HTTP/1.1\r\nHost: shop.localhost\r\n"
    b"User-Agent: benchmark/1.0\r\nAccept: application/json\r\nAccept-Language: en\r\n\r\n"
)


def install_reactor(name: str) -> None:
    if name == "uvloop":
        from pbcluster.reactor import install

        install()
    else:
        from twisted.internet import epollreactor

        epollreactor.install()


def listen(factory: object) -> None:
    from twisted.internet import reactor

    port = reactor.listenTCP(0, factory, backlog=4096, interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    reactor.run()


def upstream() -> None:
    install_reactor("epoll")
    from twisted.internet.protocol import Factory, Protocol

    class Constant(Protocol):
        def dataReceived(self, data: bytes) -> None:
            self.transport.write(ANSWER * data.count(b"\r\n\r\n"))

    listen(Factory.forProtocol(Constant))


def make_factory(clock: object, endpoints: object, upstream_port: int) -> object:
    from pbcluster.web.headers import end_to_end
    from pbcluster.web.interfaces import Attempt, Exchange, Forward
    from pbcluster.web.limits import Limits
    from pbcluster.web.pool import UpstreamPool
    from pbcluster.web.server import HTTPServerFactory

    def done(attempt: Attempt) -> None:
        pass

    def handler(exchange: Exchange) -> None:
        head = exchange.head
        fields = end_to_end(head.headers)
        fields.append((b"X-Real-IP", head.peer_host.encode()))
        plan = Forward(
            host="127.0.0.1",
            port=upstream_port,
            method=head.method,
            target=head.target,
            headers=fields,
        )
        exchange.forward(plan, done)

    pool = UpstreamPool(clock, endpoints)
    return HTTPServerFactory(handler, Limits(), clock, pool=pool)


def proxy(reactor_name: str, upstream_port: int) -> None:
    install_reactor(reactor_name)
    from twisted.internet import reactor

    from pbcluster.web.pool import tcp_endpoints

    listen(make_factory(reactor, tcp_endpoints(reactor), upstream_port))


def core(requests: int) -> None:
    """The core alone: transports that do nothing, so no system calls and no reactor."""
    from twisted.internet.defer import Deferred, succeed
    from twisted.internet.task import Clock
    from twisted.internet.testing import StringTransport

    class Silent(StringTransport):
        def write(self, data: bytes) -> None:
            pass

    class Endpoint:
        def connect(self, factory: object) -> Deferred[object]:
            self.made = factory.buildProtocol(None)
            self.made.makeConnection(Silent())
            return succeed(self.made)

    endpoint = Endpoint()
    factory = make_factory(Clock(), lambda *_: endpoint, 80)
    front = factory.buildProtocol(None)
    front.makeConnection(Silent())
    for count in (requests // 10, requests):
        began = time.process_time()
        for _ in range(count):
            front.dataReceived(REQUEST)
            endpoint.made.dataReceived(ANSWER)
        used = time.process_time() - began
    print(used / requests * 1e6)


def client(port: int, seconds: float) -> None:
    install_reactor("epoll")
    from twisted.internet import reactor
    from twisted.internet.protocol import Factory, Protocol

    served = 0

    class Load(Protocol):
        got = b""

        def connectionMade(self) -> None:
            self.transport.write(REQUEST)

        def dataReceived(self, data: bytes) -> None:
            nonlocal served
            self.got += data
            head = self.got.find(b"\r\n\r\n")
            if head >= 0 and len(self.got) >= head + 204:
                self.got = b""
                served += 1
                self.transport.write(REQUEST)

    class LoadFactory(Factory):
        def doStart(self) -> None: ...
        def doStop(self) -> None: ...
        def startedConnecting(self, connector: object) -> None: ...
        def clientConnectionFailed(self, connector: object, reason: object) -> None: ...
        def clientConnectionLost(self, connector: object, reason: object) -> None: ...

    for _ in range(CONNECTIONS):
        reactor.connectTCP("127.0.0.1", port, LoadFactory.forProtocol(Load))
    reactor.callLater(seconds, reactor.stop)
    reactor.run()
    print(served)


def spawn(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.web_proxy", *map(str, arguments)]
    # A checkout need not be installed.
    paths = [str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def cpu_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(port: int, seconds: float) -> int:
    wrk = shutil.which("wrk")
    if wrk is None:
        output, _ = spawn("client", port, seconds).communicate()
        return int(output)
    url = f"http://127.0.0.1:{port}/api/collections/posts/records/abc"
    command = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s"]
    command += ["-H", "Host: shop.localhost", "-H", "Accept: application/json", url]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        raise SystemExit(output)
    found = re.search(r"(\d+) requests in", output)
    if found is None:
        raise SystemExit(output)
    return int(found[1])


def measure(seconds: float) -> Measured:
    found = {"core, no transports": [{"cpu_us": float(spawn("core", 20_000).communicate()[0])}]}
    back = spawn("upstream")
    upstream_port = int(back.stdout.readline())
    try:
        for name in ("epoll", "uvloop"):
            front = spawn("proxy", name, upstream_port)
            try:
                port = int(front.stdout.readline())
                load(port, 1.0)
                before, began = cpu_s(front.pid), time.monotonic()
                served = load(port, seconds)
                used, took = cpu_s(front.pid) - before, time.monotonic() - began
                found[name] = [{"cpu_us": used / served * 1e6, "rate": served / took}]
            finally:
                front.terminate()
                front.wait()
    finally:
        back.terminate()
        back.wait()
    title = "One proxied keep-alive request of 200 bytes through the HTTP core"
    return Measured("http", title, found, ours=("uvloop",), compared=False)


def told(seconds: float, json_file: Path | None = None) -> None:
    found = measure(seconds)
    print(report.text(found))
    measured.write(json_file, [found])


def main(arguments: list[str]) -> None:
    match arguments:
        case ["upstream"]:
            upstream()
        case ["proxy", name, port]:
            proxy(name, int(port))
        case ["core", requests]:
            core(int(requests))
        case ["client", port, seconds]:
            client(int(port), float(seconds))
        case [seconds]:
            told(float(seconds))
        case [seconds, file]:
            told(float(seconds), Path(file))
        case _:
            told(5.0)


if __name__ == "__main__":
    main(sys.argv[1:])
