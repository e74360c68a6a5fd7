"""The life of a gateway, as real processes: workers, drain, replacement, reload, warm start."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.cli import procfs
from pbcluster.testing.free_ports import free_ports
from tests.gateway.gateway_process import HOST, WITHIN_S, Gateway, Load, Member, Node, wait_for


class LifeCase(SynchronousTestCase):
    timeout = 120

    def setUp(self) -> None:
        self.node = Node()
        self.addCleanup(self.node.close)

    def gateway(self, alone: bool = False, **settings: Any) -> Gateway:
        """
        :param alone: there is no control plane.
        """
        member = None if alone else Member()
        if member is not None:
            self.addCleanup(member.close)
        gateway = Gateway(Path(self.mktemp()), self.node, member, **settings)
        self.addCleanup(gateway.close)
        return gateway

    def workers(self, gateway: Gateway) -> dict[int, int]:
        """Worker → process id, of the last starts that the log tells."""
        rows = re.findall(r"worker (\d+) serves \(process (\d+)\)", gateway.log.read_text())
        return {int(number): int(pid) for number, pid in rows}


class WorkerTests(LifeCase):
    def test_all_serve_one_port(self) -> None:
        """Connections to one port reach all workers; one page shows all workers' figures, one
        health; routes and breakers name their worker."""
        gateway = self.gateway(workers=3)
        gateway.start()
        for _ in range(60):
            self.assertEqual(gateway.get()[:2], (200, b"hello"))
        counted = [
            gateway.metric(
                f'pbcluster_gateway_requests_total{{node="node_a",status="2xx",worker="{n}"}}'
            )
            for n in (1, 2, 3)
        ]
        self.assertEqual(sum(counted), 60)
        # A fair die gives a worker none of 60 with a chance of 10^-10.
        self.assertGreater(min(counted), 0)
        self.assertEqual(gateway.page("/healthz")[0], 200)
        self.assertEqual(gateway.page("/livez")[0], 200)
        self.assertEqual(gateway.page("/readyz")[0], 200)
        routes = json.loads(gateway.page("/debug/routes")[1])
        self.assertEqual({row["worker"] for row in routes["routes"]}, {1, 2, 3})
        self.assertEqual(gateway.metric('pbcluster_gateway_worker_up{worker="2"}'), 1)
        breakers = json.loads(gateway.page("/debug/breakers")[1])
        self.assertEqual({row["worker"] for row in breakers}, {1, 2, 3})

    def test_kill_9_of_a_worker(self) -> None:
        """A worker is killed under load: nobody is refused, only its own connections break, and
        another one takes its place."""
        gateway = self.gateway(workers=2)
        gateway.start()
        before = self.workers(gateway)
        load = Load(gateway, fresh=2, kept=4)
        with load.running():
            load.wait_for_more(100)
            os.kill(before[1], signal.SIGKILL)
            load.wait_for_more(200)
            wait_for(lambda: self.workers(gateway)[1] != before[1], "the new worker")
            load.wait_for_more(100)
        self.assertEqual([e for e in load.errors if "refused" in e.lower()], [])
        # Each client had at most one request in the dead worker.
        self.assertLessEqual(len(load.errors), 6, load.errors)
        self.assertEqual(gateway.metric('pbcluster_gateway_worker_restarts{worker="1"}'), 1)
        self.assertEqual(self.workers(gateway)[2], before[2])

    def test_a_worker_that_is_stuck(self) -> None:
        """A worker that lives and answers nothing is killed and replaced: what waited in its socket
        is answered by another one."""
        gateway = self.gateway(workers=2)
        gateway.start()
        before = self.workers(gateway)
        os.kill(before[1], signal.SIGSTOP)
        load = Load(gateway, fresh=4, kept=0)
        with load.running():
            wait_for(lambda: self.workers(gateway)[1] != before[1], "the new worker")
            load.wait_for_more(50)
        # It may have accepted one connection of each client before it was stopped.
        self.assertLessEqual(len(load.errors), 4, load.errors)

    def test_sigterm_to_one_worker(self) -> None:
        """A worker that is told to end drains while another one accepts for it, and comes back:
        nobody sees an error."""
        gateway = self.gateway(workers=2)
        gateway.start()
        before = self.workers(gateway)
        load = Load(gateway, fresh=3, kept=3)
        with load.running():
            load.wait_for_more(100)
            os.kill(before[1], signal.SIGTERM)
            wait_for(lambda: self.workers(gateway)[1] != before[1], "the new worker")
            load.wait_for_more(100)
        self.assertEqual(load.errors, [])

    def test_workers_do_not_outlive_their_master(self) -> None:
        """kill -9 of the master takes the workers along, and the port is free for the next."""
        gateway = self.gateway(workers=2)
        master = gateway.start()
        known = [procfs.identify(pid) for pid in self.workers(gateway).values()]
        master.kill()
        master.wait(WITHIN_S)
        wait_for(
            lambda: not any(who is not None and procfs.alive(who) for who in known), "their end"
        )
        gateway.start()
        self.assertEqual(gateway.get()[0], 200)

    def test_stop(self) -> None:
        """SIGTERM reaches the workers; when all are gone the master ends and the port is closed."""
        gateway = self.gateway(workers=2)
        master = gateway.start()
        known = [procfs.identify(pid) for pid in self.workers(gateway).values()]
        master.terminate()
        master.wait(WITHIN_S)
        self.assertFalse(any(who is not None and procfs.alive(who) for who in known))
        self.assertRaises(ConnectionRefusedError, gateway.get)
        self.assertEqual(gateway.ready(), {})


class DrainTests(LifeCase):
    def drained(self, **settings: Any) -> None:
        gateway = self.gateway(drain_ready_s=2, drain_s=4, **settings)
        process = gateway.start()
        ready = gateway.ready()
        slow, events, kept = gateway.connect(), gateway.connect(), gateway.connect()
        slow.request("GET", "/slow", headers={"Host": HOST})
        self.assertTrue(self.node.asked.wait(WITHIN_S))
        events.request("GET", "/events", headers={"Host": HOST})
        stream = events.getresponse()
        self.assertEqual(stream.readline(), b"data: 1\n")
        kept.request("GET", "/", headers={"Host": HOST})
        self.assertEqual(kept.getresponse().read(), b"hello")

        process.terminate()
        wait_for(lambda: gateway.page("/readyz", ready)[0] == 503, "not ready")
        self.assertIn("being stopped", gateway.page("/readyz", ready)[1])
        # It still accepts, and says that the connection ends.
        wait_for(lambda: gateway.get() == (200, b"hello", "close"), "Connection: close")
        kept.request("GET", "/", headers={"Host": HOST})
        answer = kept.getresponse()
        self.assertEqual((answer.read(), answer.getheader("Connection")), (b"hello", "close"))
        wait_for(lambda: self.refused(gateway), "the end of accepting")
        self.node.go.set()
        answer = slow.getresponse()
        self.assertEqual((answer.status, answer.read()), (200, b"hello"))
        self.assertEqual(process.wait(WITHIN_S), -signal.SIGTERM)

    def refused(self, gateway: Gateway) -> bool:
        try:
            socket.create_connection(("127.0.0.1", gateway.port), WITHIN_S).close()
        except ConnectionRefusedError:
            return True
        return False

    def test_drain(self) -> None:
        """At SIGTERM /readyz answers 503 at once while connections are still accepted and told to
        end; then none is accepted, and a request under way gets its answer."""
        self.drained()

    def test_drain_of_workers(self) -> None:
        """The same with workers."""
        self.drained(workers=2)

    def test_event_streams_are_cut_at_the_end(self) -> None:
        """An event stream goes on while the gateway drains and is cut when its time is over."""
        gateway = self.gateway(drain_s=1)
        process = gateway.start()
        events = gateway.connect()
        events.request("GET", "/events", headers={"Host": HOST})
        stream = events.getresponse()
        self.assertEqual(stream.readline(), b"data: 1\n")
        process.terminate()
        process.wait(WITHIN_S)
        self.assertFalse(self.node.go.is_set())


class ReplacementTests(LifeCase):
    def replaced(self, times: int, **settings: Any) -> None:
        gateway = self.gateway(**settings)
        running = gateway.start()
        load = Load(gateway, fresh=3, kept=2)
        with load.running():
            for _ in range(times):
                load.wait_for_more(50)
                successor = gateway.start("--take-over=true")
                self.assertEqual(running.wait(WITHIN_S), 0, gateway.tail())
                running = successor
            load.wait_for_more(50)
        self.assertEqual(load.errors, [])

    def test_five_restarts_under_load(self) -> None:
        """Five times a successor takes the port over under load: no connection is refused, none is
        reset, no request fails; each predecessor ends by itself with status 0."""
        self.replaced(5)

    def test_with_workers(self) -> None:
        """The same with masters and their workers."""
        self.replaced(2, workers=2)

    def test_other_number_of_workers(self) -> None:
        """A gateway of one process is replaced by one of three workers, and that by one of two:
        every socket of the first has somebody who accepts."""
        gateway = self.gateway(workers=1)
        running = gateway.start()
        load = Load(gateway, fresh=4, kept=0)
        with load.running():
            for workers in (3, 2, 1):
                load.wait_for_more(50)
                gateway.configure(workers=workers)
                successor = gateway.start("--take-over=true")
                self.assertEqual(running.wait(WITHIN_S), 0, gateway.tail())
                running = successor
            load.wait_for_more(50)
        self.assertEqual(load.errors, [])

    def test_a_successor_that_fails_changes_nothing(self) -> None:
        """A successor that dies before it serves, or whose configuration is wrong, leaves the
        running gateway as it was; the next one succeeds."""
        gateway = self.gateway(alone=True)
        running = gateway.start()
        dying = gateway.start("--take-over=true", wait=False)
        wait_for(lambda: "routes of an earlier run" in self.last_lines(gateway, 2), "its start")
        dying.kill()
        dying.wait(WITHIN_S)
        self.assertEqual(gateway.get()[0], 200)
        self.assertIsNone(running.poll())
        gateway.start("--take-over=true")
        self.assertEqual(running.wait(WITHIN_S), 0)

    def last_lines(self, gateway: Gateway, starts: int) -> str:
        text = gateway.log.read_text()
        return text if text.count("routes of an earlier run") >= starts else ""

    def test_two_by_mistake(self) -> None:
        """Without --take-over a second gateway does not share the port: it ends with a sentence."""
        gateway = self.gateway()
        gateway.start()
        second = gateway.start(wait=False)
        self.assertEqual(second.wait(WITHIN_S), 1)
        self.assertIn("(--listen): Address already in use", gateway.tail())

    def test_nothing_to_take_over(self) -> None:
        """After a kill -9 --take-over finds nobody and binds."""
        gateway = self.gateway()
        gateway.start().kill()
        gateway.processes[0].wait(WITHIN_S)
        gateway.start("--take-over=true")
        self.assertEqual(gateway.get()[0], 200)

    def test_who_may_ask(self) -> None:
        """The socket in the data directory is for its owner alone, whatever the umask."""
        gateway = self.gateway()
        gateway.start()
        mode = (gateway.data / "handover.sock").stat().st_mode
        self.assertEqual(mode & 0o777, 0o600)


class ActivationTests(LifeCase):
    def start(self, gateway: Gateway, bound: socket.socket, *flags: str) -> subprocess.Popen[bytes]:
        # As a service manager does: the descriptor is 3, and LISTEN_PID is the process's own.
        script = 'exec 3<&"$1"; shift; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
        fd = bound.fileno()
        before = ("/bin/bash", "-c", script, "-", str(fd))
        return gateway.start(*flags, before=before, pass_fds=(fd,))

    def test_socket_activation(self) -> None:
        """The service manager's socket is used, by one process or by workers; while the gateway is
        away a connection waits and is answered by the next one."""
        bound = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.addCleanup(bound.close)
        port = bound.getsockname()[1]
        gateway = self.gateway(listen=f"127.0.0.1:{port}")
        first = self.start(gateway, bound)
        self.assertEqual(gateway.get()[0], 200)
        first.terminate()
        first.wait(WITHIN_S)
        waiting = gateway.connect()
        waiting.request("GET", "/", headers={"Host": HOST})
        gateway.configure(workers=2)
        self.start(gateway, bound)
        self.assertEqual(waiting.getresponse().read(), b"hello")


class ReloadTests(LifeCase):
    def reloaded(self, **settings: Any) -> None:
        gateway = self.gateway(**settings)
        process = gateway.start()
        self.assertEqual(gateway.get(host="shop.example.com")[0], 503)  # asked for, nobody knows
        failed = "pbcluster_gateway_config_reload_failed"
        done = "pbcluster_gateway_config_reloads"
        if "workers" in settings:
            failed = "pbcluster_gateway_master_config_reload_failed"
            done = 'pbcluster_gateway_config_reloads{worker="2"}'

        gateway.configure(text='base_domains = "[')
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: gateway.metric(failed) == 1, "the refusal")
        self.assertEqual(gateway.log.read_text().count("the former one stays"), 1)
        self.assertIn("is not valid TOML", gateway.tail())
        self.assertEqual(gateway.get()[0], 200)

        logs = wait_for(lambda: list(gateway.data.glob("access*.log")), "an access log")
        of_workers = [log for log in logs if log.name.startswith("access-")]
        self.assertEqual(of_workers, logs if "workers" in settings else [])
        for log in logs:  # as a tool that rotates logs does
            log.rename(log.with_suffix(".moved"))
        gateway.configure(base_domains=["example.com"], listen="127.0.0.1:1")
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: gateway.metric(done) >= 1 and gateway.metric(failed) == 0, "the reload")
        self.assertIn("these changes need a restart: listen", gateway.log.read_text())
        gateway.settings["listen"] = settings["listen"]
        # The name is known now: the tenant answers below the other base domain too.
        wait_for(lambda: gateway.get(host="shop.example.com")[0] == 200, "the other domain")
        wait_for(lambda: list(gateway.data.glob("access*.log")), "a new access log")

    def test_reload(self) -> None:
        """SIGHUP: a broken file changes nothing, one line and one figure say so; a good one holds
        at once, and what cannot change is named."""
        self.reloaded(listen=self.address())

    def test_reload_of_workers(self) -> None:
        """The same with workers: the master reads first, then passes it on."""
        self.reloaded(workers=2, listen=self.address())

    def address(self) -> str:
        return f"127.0.0.1:{free_ports(1)[0]}"

    def test_a_worker_started_beside_a_broken_file(self) -> None:
        """A worker that dies while the file is broken comes back with the settings in use."""
        gateway = self.gateway(workers=2)
        gateway.start()
        before = self.workers(gateway)
        gateway.configure(text="nonsense")
        os.kill(before[2], signal.SIGKILL)
        wait_for(lambda: self.workers(gateway)[2] != before[2], "the new worker")
        self.assertEqual(gateway.get()[0], 200)


class WarmStartTests(LifeCase):
    def test_a_restart_without_a_control_plane(self) -> None:
        """A gateway that never met a control plane serves the tenants of its file, is ready, and
        answers 503 with Retry-After for others; stopped and started it still does."""
        gateway = self.gateway(alone=True)
        for _ in range(2):
            process = gateway.start()
            self.assertEqual(gateway.page("/readyz")[0], 200)
            self.assertEqual(gateway.get()[:2], (200, b"hello"))
            connection = gateway.connect()
            connection.request("GET", "/", headers={"Host": "other.localhost"})
            answer = connection.getresponse()
            answer.read()
            self.assertEqual(answer.status, 503)
            self.assertIsNotNone(answer.getheader("Retry-After"))
            connection.close()
            process.terminate()
            process.wait(WITHIN_S)
        file = gateway.data / "routes" / "1.routes"
        self.assertEqual(file.stat().st_mode & 0o777, 0o600)

    def test_a_torn_file(self) -> None:
        """A torn file is set aside with one line, and the gateway starts without routes."""
        gateway = self.gateway()
        file = gateway.data / "routes" / "1.routes"
        file.write_bytes(file.read_bytes()[:-3])
        began = time.monotonic()
        gateway.start()
        self.assertLess(time.monotonic() - began, WITHIN_S)
        self.assertEqual(gateway.log.read_text().count("its checksum is wrong"), 1)
        self.assertTrue((gateway.data / "routes" / "1.routes.damaged").exists())
        self.assertEqual(gateway.get()[0], 503)
