"""A tenant that does what it can: a confined process whose attempts are told by errno, and a real
PocketBase in the node's sandbox whose hooks and SQL attack. All calls block.

Each runs in a child of the test that may first become an ordinary user, so that the same attempts
are made below a node that is root and below one that is not.
"""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import errno
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import attrs
import bcrypt

from pbcluster import binaries
from pbcluster.node.interfaces import WorkloadSpec
from pbcluster.node.platform_files import write_platform_files
from pbcluster.node.sandbox.confine import enter
from pbcluster.node.sandbox.limits import Limits
from pbcluster.node.sandbox.sandbox import Sandbox, SandboxSettings, Wanted
from pbcluster.node.workload import owns_listener
from pbcluster.records import InitialSuperuser, TenantQuotas

#: A user that owns nothing.
ORDINARY = 61234
EMAIL, PASSWORD = "me@example.com", "correct horse"
LIMITS = Limits(memory_bytes=256 * 2**20, cpu_share=2.0, file_bytes=16 * 2**20)
START_WITHIN_S = 20.0
QUOTAS = TenantQuotas()
_LIBC = ctypes.CDLL(None, use_errno=True)

HOOK = """
function attempt(what, body) {
  if (what === "read") return toString($os.readFile(body.path));
  if (what === "list") return JSON.stringify($os.readDir(body.path).map((each) => each.name()));
  if (what === "write") return $os.writeFile(body.path, body.text, 0o644);
  if (what === "mkdir") return $os.mkdir(body.path, 0o755);
  if (what === "rename") return $os.rename(body.path, body.to);
  if (what === "remove") return $os.remove(body.path);
  if (what === "exec") return toString($os.cmd(...body.argv).output());
  if (what === "http") return $http.send({ url: body.url, timeout: 5 }).statusCode;
  if (what === "env") return $os.getenv(body.name);
  if (what === "fill") { $os.writeFile(body.path, "x".repeat(body.bytes), 0o644); return "filled"; }
  const until = Date.now() + (body.ms || 0);
  if (what === "burn") { while (Date.now() < until); return "burnt"; }
  if (what === "eat") { const kept = []; for (;;) kept.push($security.randomString(1000000)); }
  throw new Error("no such attempt");
}
"""
ROUTE = """
routerAdd("POST", "/attempt/{what}", (e) => {
  const attempt = require(`${__hooks}/attempt.js`);
  try {
    const result = attempt(e.request.pathValue("what"), e.requestInfo().body);
    return e.json(200, { ok: `${result}` });
  } catch (error) {
    return e.json(200, { refused: `${error}` });
  }
});
"""


#: A child that became another user may not be able to import what is imported late.
(resources.files("pbcluster.node") / "platform" / "first_start.js").read_text()
for _codec in ("idna", "ascii", "latin-1", "utf-8"):
    codecs.lookup(_codec)


def in_child(work: Callable[[], Any], *, uid: int = 0) -> Any:
    """``work()`` in a child, as this user (0: as we are). :returns: its result, by JSON."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            if uid:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
                os.chdir("/")
            content = {"result": work()}
        except BaseException:
            content = {"error": traceback.format_exc()}
        with contextlib.suppress(BaseException), open(writer, "w") as stream:
            json.dump(content, stream)
        os._exit(0)
    os.close(writer)
    with open(reader) as stream:
        text = stream.read()
    status = os.waitpid(pid, 0)[1]
    if not text:
        return {"died": os.waitstatus_to_exitcode(status)}
    answer = json.loads(text)
    if "error" in answer:
        raise AssertionError(answer["error"])
    return answer["result"]


def told(attempt: Callable[[], Any]) -> str:
    """``"ok"``, or the name of the errno that it was refused with."""
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "ok"


def call(number: int, *arguments: Any) -> int:
    """A system call. :raises OSError: it failed."""
    result = int(_LIBC.syscall(ctypes.c_long(number), *map(_word, arguments)))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _word(argument: Any) -> Any:
    return ctypes.c_ulong(argument) if isinstance(argument, int) else argument


@contextlib.contextmanager
def world(mode: str = "landlock", *, users: bool = True) -> Iterator[World]:
    """A data directory with two tenants and a sandbox over it, of the present user."""
    root = Path(tempfile.mkdtemp(prefix="pbhostile-"))
    try:
        root.chmod(0o711)
        (root / "tenants").mkdir(mode=0o711)
        made = World(root, mode, users=users)
        try:
            yield made
        finally:
            made.sandbox.close()
    finally:
        shutil.rmtree(root, ignore_errors=True)


class World:
    """See :func:`world`."""

    def __init__(self, root: Path, mode: str, *, users: bool) -> None:
        self.root = root
        binary = binaries.locate("pocketbase", {})
        settings = SandboxSettings(
            mode=mode, users=(30000, 59999) if users else None, limits=LIMITS
        )
        self.sandbox = Sandbox(settings, root, binary)
        self.sandbox.prepare()
        self.mine, self.other = (self.directory(f"tenant_{name}") for name in ("mine", "other"))

    def directory(self, tenant_id: str) -> Path:
        directory = self.root / "tenants" / tenant_id
        hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
        write_platform_files(
            WorkloadSpec(
                tenant_id=tenant_id,
                directory=directory,
                encryption_key="k" * 32,
                superuser=InitialSuperuser(email=EMAIL, password_hash=hashed),
            )
        )
        (directory / "hooks" / "attempt.js").write_text(HOOK + "\nmodule.exports = attempt;\n")
        (directory / "hooks" / "attempt.pb.js").write_text(ROUTE)
        (directory / "data" / "secret").write_text("secret")
        return directory

    def confined(
        self, work: Callable[[], Any], *, port: int = 1, connect: tuple[int, ...] = ()
    ) -> Any:
        """``work()`` in a process that is confined as the tenant's, and stays Python."""
        plan = self.sandbox.plan(
            Wanted(
                tenant_id="tenant_mine",
                directory=self.mine,
                port=port,
                argv=[],
                env={},
                connect=connect,
                quotas=TenantQuotas(),
            )
        )
        parent = os.getpid()

        def enter_and_work() -> Any:
            os.chdir(self.mine)
            ruleset = os.dup(plan.opened[0])
            enter(attrs.evolve(plan.confinement, parent=parent, ruleset=ruleset))
            os.close(plan.opened[0])
            return work()

        try:
            return in_child(enter_and_work)
        finally:
            plan.close()
            if plan.group is not None:
                plan.group.remove()


class Tenant:
    """A PocketBase in the sandbox, started without a reactor."""

    def __init__(
        self,
        where: World,
        directory: Path,
        *,
        connect: tuple[int, ...] = (),
        quotas: TenantQuotas = QUOTAS,
        listen_at: int = 0,
    ) -> None:
        reservation = socket.socket()
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.bind(("127.0.0.1", 0))
        self.port = int(reservation.getsockname()[1])
        self._reservation, self._token, self._sandbox = reservation, "", where.sandbox
        names = {"dir": "data", "hooksDir": "hooks", "migrationsDir": "migrations"}
        flags = [f"--{flag}={directory / name}" for flag, name in names.items()]
        flags += [f"--publicDir={directory / 'public'}", "--encryptionEnv=KEY", "--hooksPool=2"]
        flags += ["--hooksWatch=false", f"--http=127.0.0.1:{listen_at or self.port}"]
        plan = where.sandbox.plan(
            Wanted(
                tenant_id=directory.name,
                directory=directory,
                port=self.port,
                argv=[str(where.sandbox.binary), "serve", *flags],
                env={},
                connect=connect,
                quotas=quotas,
            )
        )
        self.group = plan.group

        def prepare() -> None:
            for place, fd in enumerate(plan.inherited):
                os.dup2(fd, 3 + place)
            enter(plan.confinement)

        self.process = subprocess.Popen(
            plan.argv,
            cwd=directory,
            env={
                "KEY": "k" * 32,
                "TMPDIR": str(directory / "tmp"),
                "TZ": "UTC",
                "GODEBUG": "multipathtcp=0",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=prepare,  # noqa: PLW1509 - as the node does it
            pass_fds=[3] if where.sandbox.mechanism == "bubblewrap" else [],
        )
        plan.close()

    def __enter__(self) -> Tenant:
        self.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> str:
        """End it. :returns: what it printed."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        printed = self.process.communicate(timeout=10)[0]
        self._reservation.close()
        if self.group is not None:
            self.group.remove()
        return printed

    def wait(self) -> None:
        """Until it answers."""
        until = time.monotonic() + START_WITHIN_S
        while time.monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.ask("GET", "/api/health")[0] == 200:
                    assert owns_listener(self.pid, self.port)
                    return
            time.sleep(0.02)
        raise AssertionError(f"it does not answer: {self.close()}")

    @property
    def pid(self) -> int:
        if self._sandbox.mechanism != "bubblewrap":
            return self.process.pid
        from pbcluster.node.sandbox.bubblewrap import inner

        return inner(self.process.pid) or 0

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = {"Content-Type": "application/json", "Authorization": self._token}
        try:
            connection.request(method, path, json.dumps(body or {}), headers)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, text.decode()

    def sign_in(self) -> None:
        path = "/api/collections/_superusers/auth-with-password"
        status, body = self.ask("POST", path, {"identity": EMAIL, "password": PASSWORD})
        assert status == 200, body
        self._token = body["token"]

    def attempt(self, what: str, **body: Any) -> str:
        """What a hook got: the result, or the error's text."""
        status, answer = self.ask("POST", f"/attempt/{what}", body)
        assert status == 200, answer
        return str(answer.get("ok", answer.get("refused")))

    def sql(self, query: str) -> tuple[int, str]:
        """Status and text of raw SQL."""
        status, body = self.ask("POST", "/api/sql", {"query": query})
        return status, json.dumps(body)


def say(*words: object) -> None:
    print(*words, file=sys.__stderr__)
