"""A hostile tenant against the node's sandbox, by the real PocketBase and by bare system calls.

Run by root, everything is tried three ways: below a node that is root and gives users, below one
that is root and gives none, and below one that is an ordinary user.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import mmap
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.errors import ConfigError
from pbcluster.node.sandbox import bubblewrap, landlock, rules
from pbcluster.node.sandbox.confine import NICENESS
from pbcluster.node.sandbox.sandbox import Sandbox, SandboxSettings
from pbcluster.node.sandbox.syscalls import MACHINES, REFUSED
from pbcluster.records import TenantQuotas
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.workload import Client
from tests.integration.hostile import (
    HOOK,
    ORDINARY,
    ROUTE,
    Tenant,
    World,
    call,
    in_child,
    told,
    world,
)
from tests.integration.support import new_tenant

DENIED = "permission denied"
#: Name, uid to become first, users of tenants.
AS_ROOT = (("root with users", 0, True), ("root without users", 0, False))
AS_ORDINARY = (("an ordinary user", ORDINARY if os.geteuid() == 0 else 0, False),)
WAYS = AS_ROOT + AS_ORDINARY if os.geteuid() == 0 else AS_ORDINARY


def needs_landlock() -> None:
    if landlock.abi() < rules.MIN_ABI:
        raise SkipTest(f"needs a kernel with Landlock version {rules.MIN_ABI} (Linux 6.12)")


@contextmanager
def answering() -> Iterator[int]:
    """Port of a listener on loopback that answers each request with 204."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                try:
                    connection = listener.accept()[0]
                except OSError:
                    continue
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            over.set()
            thread.join()


def fastopen(port: int) -> None:
    with socket.socket() as connecting:
        connecting.sendto(b"x", 0x20000000, ("127.0.0.1", port))


def connect(port: int) -> None:
    socket.create_connection(("127.0.0.1", port), timeout=5).close()


def listen(port: int) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()


def system_calls(own: int, allowed: int, other: int, neighbour: Path) -> dict[str, str]:
    """What each attempt meets: "ok" or an errno. Runs confined."""
    machine = MACHINES[os.uname().machine]
    af_vsock, af_netlink, af_packet = 40, 16, 17

    def opened(family: int, kind: int, protocol: int = 0) -> Callable[[], None]:
        return lambda: socket.socket(family, kind, protocol).close()

    parent = os.getppid()
    attempts: dict[str, Callable[[], Any]] = {
        "own file": lambda: Path("data/x").write_text("x"),
        "read hooks": lambda: os.listdir("hooks"),
        "neighbour's file": lambda: os.open(neighbour / "data/secret", os.O_RDONLY),
        "neighbour's folder": lambda: os.listdir(neighbour),
        "/etc/passwd": lambda: os.open("/etc/passwd", os.O_RDONLY),
        "claim note": lambda: os.open("claim.json", os.O_CREAT | os.O_WRONLY),
        "hook": lambda: os.open("hooks/x.pb.js", os.O_CREAT | os.O_WRONLY),
        "symlink": lambda: os.symlink("/etc/passwd", "data/link"),
        "fifo": lambda: os.mkfifo("data/fifo"),
        "link of the neighbour's": lambda: os.link(neighbour / "data/secret", "data/linked"),
        "chmod": lambda: os.chmod(neighbour, 0),
        "listen": lambda: listen(own),
        "second listener": lambda: listen(other),
        "connect": lambda: connect(allowed),
        "connect elsewhere": lambda: connect(other),
        "connect by fast open": lambda: fastopen(other),
        "udp": opened(socket.AF_INET, socket.SOCK_DGRAM),
        "raw": opened(socket.AF_INET, socket.SOCK_RAW),
        "mptcp": opened(socket.AF_INET, socket.SOCK_STREAM, 262),
        "sctp": opened(socket.AF_INET, socket.SOCK_STREAM, 132),
        "unix": opened(socket.AF_UNIX, socket.SOCK_STREAM),
        "netlink": opened(af_netlink, socket.SOCK_RAW),
        "packet": opened(af_packet, socket.SOCK_RAW),
        "vsock": opened(af_vsock, socket.SOCK_STREAM),
        "socketpair": socket.socketpair,
        "fork": lambda: call(machine.clone, signal.SIGCHLD, 0, 0, 0, 0),
        "clone3": lambda: call(machine.clone3, ctypes.create_string_buffer(88), 88),
        "signal to the parent": lambda: os.kill(parent, 0),
        "signal to init": lambda: os.kill(1, 0),
        "signal to itself": lambda: os.kill(os.getpid(), 0),
        "limits of another": lambda: call(machine.prlimit64, parent, 7, None, None),
        "own limits": lambda: call(machine.prlimit64, 0, 7, None, None),
        "untie from the node": lambda: call(machine.prctl, 1, 0, 0, 0, 0),
        "exec": lambda: os.execv("/bin/true", ["true"]),
        "unknown call": lambda: call(600),
    }
    if machine.x32:
        attempts["x32"] = lambda: call(0x40000000 + 39)
    found = {name: told(attempt) for name, attempt in attempts.items()}
    place = list(MACHINES).index(machine.name)
    for name, numbers in REFUSED.items():
        if (number := numbers[place]) is not None:
            found[f"call {name}"] = told(lambda number=number: call(number, 0, 0, 0, 0, 0))  # type: ignore[misc]
    return found


EXPECTED = {
    "own file": "ok",
    "read hooks": "ok",
    "neighbour's file": "EACCES",
    "neighbour's folder": "EACCES",
    "/etc/passwd": "EACCES",
    "claim note": "EACCES",
    "hook": "EACCES",
    "symlink": "EPERM",
    "fifo": "EPERM",
    "chmod": "EPERM",
    "listen": "ok",
    "second listener": "EACCES",
    "connect": "ok",
    "connect elsewhere": "EACCES",
    "connect by fast open": "EPERM",
    "udp": "EACCES",
    "raw": "EACCES",
    "mptcp": "EPROTONOSUPPORT",
    "sctp": "EACCES",
    "unix": "EACCES",
    "netlink": "EACCES",
    "packet": "EACCES",
    "vsock": "EACCES",
    "socketpair": "EPERM",
    "fork": "EPERM",
    "clone3": "ENOSYS",
    "signal to the parent": "EPERM",
    "signal to init": "EPERM",
    "signal to itself": "ok",
    "limits of another": "EPERM",
    "own limits": "ok",
    "untie from the node": "EPERM",
    "exec": "EACCES",
    "unknown call": "ENOSYS",
}


class SystemCallTests(SynchronousTestCase):
    def test_each_refusal(self) -> None:
        """Every way out of the sandbox that a system call is answers its errno."""
        needs_landlock()
        for name, uid, users in WAYS:
            with answering() as allowed, answering() as other:
                with socket.socket() as own:
                    own.bind(("127.0.0.1", 0))
                    port = int(own.getsockname()[1])

                def attempts(users: bool = users, port: int = port) -> dict[str, str]:
                    with world(users=users) as where:
                        neighbour = where.other
                        result = where.confined(
                            lambda: system_calls(port, allowed, other, neighbour),
                            port=port,
                            connect=(allowed,),
                        )
                        assert isinstance(result, dict)
                        return result

                found = in_child(attempts, uid=uid)
            linked = found.pop("link of the neighbour's")
            self.assertIn(linked, ("EACCES", "EXDEV", "EPERM"), name)
            if os.uname().machine == "x86_64":
                self.assertEqual(found.pop("x32"), "ENOSYS", name)
            refused = {key: found.pop(key) for key in list(found) if key.startswith("call ")}
            self.assertEqual(found, EXPECTED, name)
            self.assertEqual(set(refused.values()), {"EPERM"}, (name, refused))

    def test_call_of_another_architecture(self) -> None:
        """A call by the 32-bit gate, whose numbers mean other things, ends the process."""
        needs_landlock()
        if os.uname().machine != "x86_64":
            raise SkipTest("only x86-64 has such a gate")

        def gate() -> str:

            # mov eax, 20 (getpid of i386); int 0x80; ret
            code = mmap.mmap(-1, 4096, prot=7)
            code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
            address = ctypes.addressof(ctypes.c_char.from_buffer(code))
            ctypes.CFUNCTYPE(ctypes.c_int)(address)()
            return "survived"

        with world() as where:
            self.assertEqual(where.confined(gate), {"died": -signal.SIGSYS})

    def test_parent_death(self) -> None:
        """A confined process, of another user too, dies with the node."""
        needs_landlock()

        def node() -> int:
            with world() as where:
                tenant = Tenant(where, where.mine)
                tenant.wait()
                return tenant.process.pid

        pid = in_child(node)  # the "node" is gone when this returns
        until = time.monotonic() + 10
        while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
            time.sleep(0.02)
        self.assertFalse(Path(f"/proc/{pid}").exists())


def attack(where: World, *, allowed: int, other: int) -> dict[str, Any]:
    """All that hooks and SQL of one tenant try; the neighbour answers at the end as before."""
    mine, neighbour = where.mine, where.other
    found: dict[str, Any] = {}
    outside = f"/tmp/pbhostile-{os.getpid()}"
    with Tenant(where, mine, connect=(allowed,)) as tenant, Tenant(where, neighbour) as victim:
        tenant.sign_in()
        found["attach"] = tenant.sql(f"ATTACH DATABASE '{neighbour}/data/data.db' AS n")
        found["vacuum to neighbour"] = tenant.sql(f"VACUUM INTO '{neighbour}/data/x.db'")
        found["vacuum outside"] = tenant.sql(f"VACUUM INTO '{outside}.db'")
        found["vacuum to hooks"] = tenant.sql(f"VACUUM INTO '{mine}/hooks/x.pb.js'")
        found["vacuum inside"] = tenant.sql(f"VACUUM INTO '{mine}/data/x.db'")
        found["read neighbour"] = tenant.attempt("read", path=f"{neighbour}/data/secret")
        found["read system"] = tenant.attempt("read", path="/etc/passwd")
        found["read own"] = tenant.attempt("read", path=f"{mine}/data/secret")
        found["list"] = tenant.attempt("list", path=str(where.root))
        found["write outside"] = tenant.attempt("write", path=outside, text="x")
        found["write neighbour"] = tenant.attempt("write", path=f"{neighbour}/data/y", text="x")
        found["write hook"] = tenant.attempt("write", path=f"{mine}/hooks/y.pb.js", text="x")
        found["write claim"] = tenant.attempt("write", path=f"{mine}/claim.json", text="{}")
        found["rename"] = tenant.attempt(
            "rename", path=f"{mine}/data/x.db", to=f"{neighbour}/data/x"
        )
        found["exec"] = tenant.attempt("exec", argv=["/bin/true"])
        found["exec itself"] = tenant.attempt("exec", argv=[str(where.sandbox.binary), "serve"])
        found["connect"] = tenant.attempt("http", url=f"http://127.0.0.1:{allowed}/")
        found["connect elsewhere"] = tenant.attempt("http", url=f"http://127.0.0.1:{other}/")
        found["connect to neighbour"] = tenant.attempt(
            "http", url=f"http://127.0.0.1:{victim.port}/"
        )
        found["name"] = tenant.attempt("http", url="http://example.invalid/")
        found["file"] = tenant.attempt("fill", path=f"{mine}/data/fat", bytes=20 * 2**20)
        tenant.sql("CREATE TABLE fat (content)")
        found["row"] = tenant.sql("INSERT INTO fat VALUES (zeroblob(30000000))")
        found["after"] = tenant.sql("SELECT 1")[0]
        found["backup"] = tenant.ask("POST", "/api/backups", {"name": "a.zip"})[0]
        found["restored"] = restore(tenant, mine / "data" / "data.db")
        found["victim"] = victim.ask("GET", "/api/health")[0]
    found["left outside"] = Path(outside).exists()
    return found


def restore(tenant: Tenant, database: Path) -> bool:
    """Restore its backup in place; whether the same process serves the new file."""
    before, pid = database.stat().st_ino, tenant.pid
    assert tenant.ask("POST", "/api/backups/a.zip/restore")[0] == 204
    until = time.monotonic() + 15
    while time.monotonic() < until:
        try:
            if database.stat().st_ino != before and tenant.ask("GET", "/api/health")[0] == 200:
                return tenant.pid == pid and tenant.sql("SELECT 1")[0] == 200
        except OSError:
            pass
        time.sleep(0.05)
    return False


class PocketBaseTests(SynchronousTestCase):
    def check(self, mode: str, uid: int, users: bool) -> tuple[dict[str, Any], str]:
        """Run the attack; check what is the same everywhere; what is left."""
        with answering() as allowed, answering() as other:

            def attacked() -> dict[str, Any]:
                with world(mode, users=users) as where:
                    return attack(where, allowed=allowed, other=other)

            found = in_child(attacked, uid=uid)
        shown = f"{mode}, uid {uid}, users {users}: {found}"
        for name in ("attach", "vacuum to neighbour", "vacuum outside", "vacuum to hooks"):
            status, text = found.pop(name)
            self.assertEqual(status, 400, (name, shown))
            self.assertIn("unable to open database file", text, (name, shown))
        self.assertEqual(found.pop("vacuum inside")[0], 200, shown)
        self.assertEqual(found.pop("read own"), "secret", shown)
        for name in ("exec", "exec itself"):
            self.assertIn("operation not permitted", found.pop(name), (name, shown))
        self.assertEqual(found.pop("connect"), "204", shown)
        self.assertIn("socket: permission denied", found.pop("name"), shown)
        self.assertIn("file too large", found.pop("file"), shown)
        status, text = found.pop("row")
        self.assertEqual((status, "disk I/O error" in text), (400, True), shown)
        expected = {"after": 200, "backup": 204, "restored": True, "victim": 200}
        expected["left outside"] = False
        self.assertEqual({name: found.pop(name) for name in expected}, expected, shown)
        return found, shown

    def test_landlock(self) -> None:
        """Neither SQL nor hooks reach a neighbour, the system, another program, port or service;
        backup and restore in place work."""
        needs_landlock()
        for _, uid, users in WAYS:
            found, shown = self.check("landlock", uid, users)
            for name, text in found.items():
                self.assertIn(DENIED, text, (name, shown))

    def test_bubblewrap(self) -> None:
        """The same where Landlock is too old, but for TCP ports, which are not limited there."""
        program = bubblewrap.find()
        if program is None:
            raise SkipTest("needs bubblewrap")
        why = bubblewrap.cannot(program, None)
        if why:
            raise SkipTest(f"bubblewrap cannot be used here: {why}")
        for _, uid, users in (WAYS[0], WAYS[-1]):
            found, shown = self.check("bubblewrap", uid, users)
            self.assertEqual(found.pop("connect elsewhere"), "204", shown)
            self.assertEqual(found.pop("connect to neighbour"), "404", shown)
            self.assertEqual(found.pop("list"), '["tenants"]', shown)
            gone = ("no such file or directory", "read-only file system")
            for name, text in found.items():
                self.assertTrue(any(word in text for word in gone), (name, shown))

    def test_second_listener(self) -> None:
        """A PocketBase told to listen at another port than its own cannot."""
        needs_landlock()
        with world() as where, socket.create_server(("127.0.0.1", 0)) as probe:
            port = int(probe.getsockname()[1])
            probe.close()
            tenant = Tenant(where, where.mine, listen_at=port)
            tenant.process.wait(20)
            self.assertIn("bind: permission denied", tenant.close())


class LimitTests(SynchronousTestCase):
    """Limits that only root can set."""

    def test_memory(self) -> None:
        """A tenant that eats memory is killed at its limit; the kernel says so, and the neighbour
        answers as before."""
        with world() as where:
            state = where.sandbox.report["memory"]
            if state != "on":
                if os.environ.get("PBCLUSTER_EXPECT_MEMORY_LIMIT") == "1":
                    self.fail(f"no memory limit can be set here, and one must be: {state}")
                raise SkipTest(f"needs control groups that this user may write: {state}")
            quotas = TenantQuotas(memory_bytes=100 * 2**20)
            with (
                Tenant(where, where.mine, quotas=quotas) as tenant,
                Tenant(where, where.other) as victim,
            ):
                with contextlib.suppress(OSError):
                    tenant.attempt("eat")
                self.assertEqual(tenant.process.wait(20), -signal.SIGKILL)
                assert tenant.group is not None
                self.assertEqual(tenant.group.out_of_memory_kills(), 1)
                self.assertEqual(victim.ask("GET", "/api/health")[0], 200)
                assert victim.group is not None
                self.assertEqual(victim.group.out_of_memory_kills(), 0)

    def test_full_disk(self) -> None:
        """On a full file system a write is refused with a clear error; the tenant goes on."""
        if os.geteuid() != 0:
            raise SkipTest("needs root, to mount a small file system")
        with world() as where:
            data = where.mine / "data"
            mount = ["mount", "-t", "tmpfs", "-o", "size=12m,mode=0700", "none", str(data)]
            done = subprocess.run(mount, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SkipTest(f"needs to mount a file system: {done.stderr}")
            try:
                with Tenant(where, where.mine) as tenant:
                    tenant.sign_in()
                    tenant.sql("CREATE TABLE fat (content)")
                    for _ in range(12):
                        status, text = tenant.sql("INSERT INTO fat VALUES (zeroblob(1500000))")
                        if status != 200:
                            break
                    self.assertEqual(status, 400)
                    self.assertIn("database or disk is full", text)
                    self.assertEqual(tenant.sql("SELECT count(*) FROM fat")[0], 200)
            finally:
                subprocess.run(["umount", str(data)], check=True)

    def test_limits_without_groups(self) -> None:
        """Where no control group can be had, resource limits hold."""
        needs_landlock()
        uid = ORDINARY if os.geteuid() == 0 else 0

        def limits() -> dict[str, str]:
            with world() as where, Tenant(where, where.mine) as tenant:
                lines = Path(f"/proc/{tenant.pid}/limits").read_text().splitlines()
                yields = str(os.getpriority(os.PRIO_PROCESS, tenant.pid))
                found = {line[:26].strip(): line[26:].split()[0] for line in lines[1:]}
                return found | {"niceness": yields}

        found = in_child(limits, uid=uid)
        self.assertEqual(found["niceness"], str(max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0))))
        # It cannot take that back.
        self.assertEqual(found["Max nice priority"], "0")
        self.assertEqual(found["Max core file size"], "0")
        self.assertEqual(found["Max file size"], str(16 * 2**20))
        self.assertEqual(found["Max data size"], str((256 + 256) * 2**20))
        self.assertEqual(found["Max address space"], str(256 * 2**20 + 2**31))
        self.assertLessEqual(int(found["Max open files"]), 4096)


class ClusterTests(SynchronousTestCase):
    """What `pbcluster up` starts is confined without being asked."""

    timeout = 120

    def test_a_tenant_of_a_cluster(self) -> None:
        """A tenant reaches no part of its cluster; one that eats memory is ended and started again,
        and the node says why; the way out leads to no private address."""
        needs_landlock()
        settings = {"node": {"egress": True, "tenant_memory_bytes": 96 * 2**20}}
        with RealCluster(nodes=1, members=1, settings=settings) as cluster:
            cluster.start()
            new_tenant(cluster, "shop").close()
            (directory,) = cluster.where.root.glob("data/node_1/tenants/tenant_*")
            (directory / "hooks" / "attempt.js").write_text(HOOK + "\nmodule.exports = attempt;\n")
            (directory / "hooks" / "attempt.pb.js").write_text(ROUTE)
            self.end_pocketbase(directory)
            client = Client(cluster.gateway_url, cluster.host("shop"))
            self.addCleanup(client.close)

            def attempt(what: str, **body: Any) -> str:
                status, answer = client.ask("POST", f"/attempt/{what}", body)
                return (
                    str(answer.get("ok", answer.get("refused"))) if status == 200 else str(status)
                )

            cluster.wait_until(lambda: attempt("env", name="TZ") == "UTC", "the hook", 20.0)
            for process in cluster.plan.processes:
                for use, port in process.ports.items():
                    told_ = attempt("http", url=f"http://127.0.0.1:{port}/")
                    self.assertIn("connect: permission denied", told_, (process.id, use))
            self.assertEqual(attempt("http", url="http://10.0.0.1/"), "403")
            self.assertEqual(attempt("http", url="http://169.254.169.254/latest"), "403")
            log = cluster.where.root / "log" / "node_1.log"
            logs = log.read_text()
            self.assertIn("sandbox: landlock", logs)
            if os.geteuid() == 0:
                self.assertIn("users: on", logs)
                self.assertGreaterEqual((directory / "data" / "data.db").stat().st_uid, 30000)
            for process in cluster.plan.processes:
                if process.kind != "node":
                    mode = cluster.where.data(process.id).stat().st_mode
                    self.assertEqual(mode & 0o077, 0, process.id)
            if "cpu: on" in logs:
                self.weighs(cluster, directory, lambda: attempt("burn", ms=1000))
            if "memory: on" not in logs:
                self.assertNotEqual(os.environ.get("PBCLUSTER_EXPECT_MEMORY_LIMIT"), "1", logs)
                return  # what follows needs control groups; the rest held
            attempt("eat")
            cluster.wait_until(lambda: attempt("env", name="TZ") == "UTC", "a restart", 20.0)
            self.assertIn("at its memory limit of 100663296 bytes", log.read_text())

    def weighs(self, cluster: RealCluster, directory: Path, burn: Callable[[], str]) -> None:
        """A tenant that fills its limit of a core weighs less, and as before once it rests."""
        data = str(cluster.where.data("node_1").resolve())
        own = "pbcluster-" + hashlib.sha256(data.encode()).hexdigest()[:12]
        files = {"cpu.shares": (1024, 64), "cpu.weight": (100, 6)}
        groups = Path("/sys/fs/cgroup")
        found = [
            path / name
            for name in files
            for path in (groups / f"cpu/{own}/{directory.name}", groups / f"{own}/{directory.name}")
            if (path / name).exists()
        ]
        if not found:  # groups stand somewhere else here; where limits are expected they must not
            self.assertNotEqual(os.environ.get("PBCLUSTER_EXPECT_MEMORY_LIMIT"), "1", own)
            return
        usual, light = files[found[0].name]

        def is_now(weight: int) -> bool:
            return int(found[0].read_text()) == weight

        self.assertTrue(is_now(usual))
        over = threading.Event()

        def burn_on() -> None:
            while not over.is_set():
                burn()

        with ThreadPoolExecutor(1) as other:
            other.submit(burn_on)
            try:
                cluster.wait_until(lambda: is_now(light), "the light weight", 40.0)
            finally:
                over.set()
        cluster.wait_until(lambda: is_now(usual), "the usual weight", 20.0)

    def end_pocketbase(self, directory: Path) -> None:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    argv = (entry / "cmdline").read_bytes().split(b"\0")
                    if argv[0].endswith(b"pocketbase") and directory.name.encode() in argv[2]:
                        os.kill(int(entry.name), signal.SIGKILL)

    def test_no_sandbox_no_node(self) -> None:
        """A node on which no sandbox works refuses to start, and says what is missing."""
        self.patch(landlock, "abi", lambda: 2)
        self.patch(bubblewrap, "find", lambda: None)
        sandbox = Sandbox(SandboxSettings(), Path(self.mktemp()), Path("/bin/true"))
        text = str(self.assertRaises(ConfigError, sandbox.prepare))
        self.assertIn("Landlock version 2, 6 is needed", text)
        self.assertIn("bubblewrap cannot be used: it is not installed", text)
        self.assertIn("insecure_no_sandbox", text)
