"""A whole member as its own process: it starts, tells where it is, and ends as it should."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from twisted.trial.unittest import SynchronousTestCase

import pbcluster
from pbcluster.config import FIRST_START

WAIT_S = 30.0


class TestProcess(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)
        for name in ("secrets.toml", "peers.toml"):
            file = self.directory / name
            file.touch(0o600)
        (self.directory / "data").mkdir()
        (self.directory / "data" / FIRST_START).write_text("found\n")

    def start(self, *flags: str, before: str = "") -> subprocess.Popen[str]:
        """:param before: code that runs before twistd does."""
        given = {
            "id": "member_1",
            "cluster-id": "c1",
            "data-dir": str(self.directory / "data"),
            "secrets-file": str(self.directory / "secrets.toml"),
            "peers-file": str(self.directory / "peers.toml"),
            "insecure-plain-sockets": "true",
            "request-endpoint": "tcp://127.0.0.1:0",
            "broadcast-endpoint": "tcp://127.0.0.1:0",
            "admin-listen": "127.0.0.1:0",
            "raft-endpoint": "tcp://127.0.0.1:0",
        }
        given.update(flag.split("=", 1) for flag in flags)
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", f"{before}\nfrom twisted.scripts.twistd import run; run()"),
                *("--nodaemon", "--pidfile=", "pbcp"),
                *(f"--{name}={value}" for name, value in given.items()),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=Path(pbcluster.__file__).parent.parent,
        )
        self.addCleanup(self.end, process)
        return process

    def end(self, process: subprocess.Popen[str]) -> str:
        if process.poll() is None:
            process.kill()
        told = process.communicate()[0] if process.stdout and not process.stdout.closed else ""
        return told

    def ready(self, process: subprocess.Popen[str]) -> dict[str, str]:
        file, until = self.directory / "data" / "ready.json", time.monotonic() + WAIT_S
        while not file.exists():
            if process.poll() is not None or time.monotonic() > until:
                self.fail(f"it does not serve: {self.end(process)}")
            time.sleep(0.02)
        content: dict[str, str] = json.loads(file.read_text())
        return content

    def leads(self, ready: dict[str, str]) -> None:
        """It serves before it leads: an election of one takes half a second at most, and longer on
        a busy machine."""
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            try:
                with urlopen(f"{ready['admin']}/api/cp/health", timeout=WAIT_S):
                    return
            except HTTPError as error:
                self.assertEqual(error.code, 503)
                time.sleep(0.02)
        self.fail("it does not lead")

    def test_it_serves_survives_a_kill_and_stops(self) -> None:
        """ready.json names real ports; after SIGKILL it starts again; SIGTERM removes the file."""
        process = self.start()
        ready = self.ready(process)
        self.assertEqual(ready["pid"], process.pid)
        self.leads(ready)
        with urlopen(f"{ready['admin']}/api/cp/health", timeout=WAIT_S) as answer:
            self.assertEqual(json.loads(answer.read())["status"], "ok")
        for name in ("request", "broadcast"):
            self.assertRegex(ready[name], r"^tcp://127.0.0.1:[1-9]\d*$")
        process.kill()
        process.wait(WAIT_S)
        (self.directory / "data" / "ready.json").unlink()
        process = self.start()
        self.ready(process)
        process.terminate()
        process.wait(WAIT_S)
        self.assertFalse((self.directory / "data" / "ready.json").exists())

    def test_it_says_that_it_serves_once_it_heeds_signals(self) -> None:
        """Before the reactor runs SIGTERM ends a process at once, and leaves its ready file: until
        then there is none."""
        ready = self.directory / "data" / "ready.json"
        before = (
            "import os\nfrom twisted.internet import reactor\n"
            "reactor.addSystemEventTrigger('before', 'startup', lambda: "
            f"print('ready file:', os.path.exists({str(ready)!r}), flush=True))"
        )
        process = self.start(before=before)
        self.ready(process)
        process.terminate()
        told = process.communicate(timeout=WAIT_S)[0]
        self.assertIn("ready file: False", told)
        self.assertIn("Server Shut Down", told)
        self.assertFalse(ready.exists())

    def test_a_port_in_use_ends_it_with_one_sentence(self) -> None:
        """It names port and option, and the process ends instead of waiting for ever."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            for option, value in (
                ("admin-listen", f"127.0.0.1:{port}"),
                ("request-endpoint", f"tcp://127.0.0.1:{port}"),
                ("broadcast-endpoint", f"tcp://127.0.0.1:{port}"),
                ("raft-endpoint", f"tcp://127.0.0.1:{port}"),
            ):
                process = self.start(f"{option}={value}")
                told = process.communicate(timeout=WAIT_S)[0]
                self.assertRegex(told, rf"pbcp: cannot listen at .*{port}.*--{option}")
                self.assertNotIn("Traceback", told)

    def test_another_clusters_store_ends_it(self) -> None:
        """A wrong directory is one sentence."""
        process = self.start()
        self.ready(process)
        second = self.start().communicate(timeout=WAIT_S)[0]
        self.assertIn("in use by another process", second)
        process.terminate()
        process.wait(WAIT_S)
        told = self.start("cluster-id=c2").communicate(timeout=WAIT_S)[0]
        self.assertIn("has cluster_id 'c1', this member has 'c2'", told)

    def test_wrong_options_are_one_sentence(self) -> None:
        """Option, value and what is allowed."""
        told = self.start("admin-listen=nowhere").communicate(timeout=WAIT_S)[0]
        self.assertIn("'admin_listen' (--admin-listen) is 'nowhere'; allowed:", told)
        self.assertNotIn("Traceback", told)

    def test_health_and_figures(self) -> None:
        """The metrics listener says that it lives, that it is ready, and what it counts; with
        ``log_format = json`` each line of the log is an object that names this process, and an
        admin request's has its id."""
        process = self.start("log-format=json")
        ready = self.ready(process)

        def get(path: str) -> str:
            with urlopen(f"{ready['metrics']}{path}", timeout=WAIT_S) as answer:
                return str(answer.read().decode())

        self.leads(ready)
        self.assertEqual(json.loads(get("/livez")), {"status": "ok"})
        self.assertEqual(json.loads(get("/readyz")), {"ready": True, "reasons": []})
        asked = Request(f"{ready['admin']}/api/cp/health", headers={"X-Request-Id": "my-own-id"})
        with urlopen(asked, timeout=WAIT_S) as answer:
            self.assertEqual(answer.headers["X-Request-Id"], "my-own-id")
        figures = get("/metrics")
        for line in (
            "pbcluster_member_leader 1.0",
            'pbcluster_member_admin_requests_total{operation="health",status="200"}',
            "pbcluster_member_term ",
        ):
            self.assertIn(line, figures)
        process.send_signal(signal.SIGTERM)
        told, _ = process.communicate(timeout=WAIT_S)
        lines = [json.loads(line) for line in told.splitlines()]
        self.assertEqual({line["service"] for line in lines}, {"member_1"})
        (request,) = (line for line in lines if line.get("request_id") == "my-own-id")
        self.assertEqual((request["method"], request["status"]), ("GET", 200))
        self.assertRegex(request["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
