"""slowhttptest's three modes against a real cluster, whose good requests go on meanwhile."""

from __future__ import annotations

import csv
import http.client
import re
import shutil
import subprocess
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.workload import Client
from tests.integration.support import EMAIL, PASSWORD

CONNECTIONS = 300
LENGTH_S = 8
#: Small, so that an attack of a few seconds meets them.
HEADER_TIMEOUT_S, BODY_IDLE_S = 2.0, 2.0
#: What slow readers ask for, all together, is much more than this.
MAX_GROWTH_KIB = 150 * 1024
_ASSET = re.compile(rb'src="(\./)?(assets/[^"]+\.js)"')


def resident_kib(pid: int) -> int:
    """Memory of a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", text)[1])  # type: ignore[index]


class SlowClientTests(SynchronousTestCase):
    timeout = 120

    def setUp(self) -> None:
        program = shutil.which("slowhttptest")
        if program is None:
            raise SkipTest("slowhttptest is not installed (Debian package slowhttptest)")
        self.program = program
        limits = {"header_timeout_s": HEADER_TIMEOUT_S, "body_idle_s": BODY_IDLE_S}
        self.cluster = RealCluster(nodes=1, members=1, settings={"gateway": limits})
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        self.cluster.create_tenant("shop", EMAIL, PASSWORD)
        self.client = Client(self.cluster.gateway_url, self.cluster.host("shop"))
        self.port = int(self.cluster.gateway_url.rpartition(":")[2])
        self.reports = Path(self.mktemp())
        self.reports.mkdir()

    def attack(self, name: str, *options: str) -> subprocess.Popen[bytes]:
        """One run of slowhttptest; its report is ``name.csv``."""
        return subprocess.Popen(
            [
                *(
                    self.program,
                    "-c",
                    str(CONNECTIONS),
                    "-r",
                    "150",
                    "-l",
                    str(LENGTH_S),
                    "-p",
                    "5",
                ),
                # Its name does not resolve everywhere: asked by the whole URL, as a proxy is.
                *("-d", f"127.0.0.1:{self.port}", "-g", "-o", str(self.reports / name), *options),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def largest_page(self) -> str:
        """The path of the dashboard's script: about a megabyte."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        self.addCleanup(connection.close)
        connection.request("GET", "/_/", headers={"Host": self.cluster.host("shop")})
        answer = connection.getresponse()
        page = answer.read()
        self.assertEqual(answer.status, 200)
        found = _ASSET.search(page)
        assert found is not None, page
        return "/_/" + found[2].decode()

    def most_connected(self, name: str) -> int:
        """How many connections of an attack were open at once."""
        with (self.reports / f"{name}.csv").open() as lines:
            return max(int(row["Connected"]) for row in csv.DictReader(lines))

    def test_three_modes(self) -> None:
        """Slow heads, slow bodies and slow readers at once: all good requests are answered 200, the
        slow heads and bodies are all ended by their deadlines, and memory stays bounded."""
        url = f"http://{self.cluster.host('shop')}:{self.port}"
        page = self.largest_page()
        gateway = self.cluster.child(self.cluster.ids("gateway")[0])
        assert gateway.pid is not None
        before = resident_kib(gateway.pid)
        slow_read = ("-w", "10", "-y", "20", "-n", "1", "-z", "32", "-k", "5")
        attacks = {
            "heads": self.attack("heads", "-H", "-i", "1", "-u", url + "/"),
            "bodies": self.attack("bodies", "-B", "-i", "1", "-s", "8192", "-u", url + "/"),
            "readers": self.attack("readers", "-X", *slow_read, "-u", url + page),
        }
        served = 0
        try:
            while any(attack.poll() is None for attack in attacks.values()):
                self.assertEqual(self.client.ask("GET", "/api/health")[0], 200)
                served += 1
        finally:
            for attack in attacks.values():
                attack.kill()
        grown = resident_kib(gateway.pid) - before
        said = {name: attack.communicate()[0] for name, attack in attacks.items()}
        self.assertGreater(served, 50)
        self.assertLess(grown, MAX_GROWTH_KIB)
        for name in ("heads", "bodies"):
            self.assertIn(b"No open connections left", said[name], said[name][-800:])
        # It sees its connections once a second.
        self.assertGreater(self.most_connected("readers"), CONNECTIONS // 2)
        self.assertEqual(self.client.ask("GET", "/api/health")[0], 200)
