"""What the unit files in the documentation start, started as systemd would: ExecStart=, a socket of
our own in NOTIFY_SOCKET, no new privileges where the unit says so, and KillSignal= at the end.

Not systemd itself: what its other settings take away (ProtectSystem= and the like) is not tried.
"""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.cli.spec import service_environment
from pbcluster.testing.cluster import RealCluster
from tests import unit_files
from tests.integration.support import new_tenant

READY_WITHIN_S = 60.0


class Service:
    """One unit that was started."""

    def __init__(self, unit: unit_files.Unit, instance: str, cluster: RealCluster, told: str):
        self.unit = unit
        self._told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._told.bind("\0" + told)
        argv = unit.argv(instance, cluster.where.root / "config")
        if unit.settings.get("NoNewPrivileges") == "true" and shutil.which("setpriv"):
            argv = ["setpriv", "--no-new-privs", *argv]
        log = cluster.where.log(f"{unit.name}-{instance}")
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                argv,
                env=service_environment() | {"NOTIFY_SOCKET": "@" + told},
                cwd=cluster.where.root,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.log: Path = log

    def heard(self, word: str, within_s: float) -> bool:
        """Whether the service tells this in time; other words before it are read over."""
        until = time.monotonic() + within_s
        while (left_s := until - time.monotonic()) > 0:
            self._told.settimeout(left_s)
            try:
                if word in self._told.recv(4096).decode().split("\n"):
                    return True
            except TimeoutError:
                return False
        return False

    def end(self) -> None:
        """Whatever happened."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)
        self._told.close()


class UnitTests(SynchronousTestCase):
    timeout = 240

    def setUp(self) -> None:
        self.cluster = RealCluster(nodes=1, members=1)
        self.addCleanup(self.cluster.close)
        self.cluster.start("s3_1")
        self.units = unit_files.services()

    def begin(self, name: str, instance: str) -> Service:
        told = f"pbcluster-{os.getpid()}-{name}-{instance}"
        service = Service(self.units[name], instance, self.cluster, told)
        self.addCleanup(service.end)
        return service

    def serves(self, service: Service) -> None:
        heard = service.heard("READY=1", READY_WITHIN_S)
        self.assertTrue(heard, service.log.read_text())

    def stop(self, service: Service) -> None:
        """As ``systemctl stop``: its signal, then it says that it stops and ends in time."""
        service.process.send_signal(service.unit.kill_signal)
        self.assertTrue(service.heard("STOPPING=1", service.unit.stops_within_s))
        status = service.process.wait(service.unit.stops_within_s)
        # For systemd an end by SIGTERM is a clean one.
        self.assertIn(status, (0, -service.unit.kill_signal), service.log.read_text())

    def test_the_three_services(self) -> None:
        """Each says READY=1 when it serves, a tenant answers through all three, a second gateway
        instance takes the place of the first, which ends by itself, and each stops in the time that
        its unit gives it."""
        cluster = self.cluster
        member = self.begin("pbcp@.service", "member_1")
        self.serves(member)
        node = self.begin("pbnode@.service", "node_1")
        self.serves(node)
        a = self.begin("pbgateway@.service", "a")
        self.serves(a)
        new_tenant(cluster, "shop")
        b = self.begin("pbgateway@.service", "b")
        self.serves(b)
        self.assertEqual(a.process.wait(a.unit.stops_within_s), 0)
        self.assertEqual(cluster.ask_tenant("shop", "GET", "/api/health").status, 200)
        for service in (b, node, member):
            self.stop(service)

    def test_a_gateway_without_instances(self) -> None:
        """pbgateway.service says that it serves even while there is no control plane; its socket
        unit only gives it the sockets, which it can bind by itself."""
        gateway = self.begin("pbgateway.service", "")
        self.serves(gateway)
        self.stop(gateway)
