"""What the platform sets in every tenant, asked of a real PocketBase. No S3, no Litestream."""

from __future__ import annotations

import secrets
import signal
import socket
from pathlib import Path
from typing import Any

import attrs
import bcrypt
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from pbcluster import binaries
from pbcluster.errors import ProcessFailed
from pbcluster.node.directories import NodeDirectories
from pbcluster.node.interfaces import WorkloadSpec
from pbcluster.node.platform_door import HEADER, PREFIX
from pbcluster.node.workload import PocketBaseProcess, PocketBaseWorkloads
from pbcluster.records import InitialSuperuser, TenantLogs
from tests.integration.test_node_parts import EMAIL, PASSWORD, Http

HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(5)).decode()
#: What a tenant's hook can ask and do on the connection that writes.
PROBE = """
routerAdd("GET", "/api/probe/autocheckpoint", (e) => {
  const found = new DynamicModel({ wal_autocheckpoint: -1 });
  $app.nonconcurrentDB().newQuery("PRAGMA wal_autocheckpoint").one(found);
  return e.json(200, { pages: found.wal_autocheckpoint });
});
routerAdd("GET", "/api/probe/busy", (e) => {
  const told = [$app.nonconcurrentDB(), $app.auxNonconcurrentDB()].map((pool) => {
    const found = new DynamicModel({ timeout: -1 });
    pool.newQuery("PRAGMA busy_timeout").one(found);
    return found.timeout;
  });
  return e.json(200, { told });
});
routerAdd("POST", "/api/probe/autocheckpoint", (e) => {
  $app.nonconcurrentDB().newQuery("PRAGMA wal_autocheckpoint=1000").execute();
  return e.json(200, {});
});
routerAdd("GET", "/api/probe/secrets", (e) => {
  return e.json(200, {
    environment: JSON.stringify(process.env),
    hook: toString($os.readFile(__hooks + "/pbcluster.pb.js")),
  });
});
routerAdd("GET", "/api/probe/s3", (e) => e.json(200, { secret: $app.settings().s3.secret }));
routerAdd("GET", "/api/probe/address", (e) => e.json(200, { address: e.realIP() }));
"""
S3 = {
    "enabled": True,
    "bucket": "files",
    "region": "us-east-1",
    "endpoint": "http://127.0.0.1:1",
    "accessKey": "tenant",
    "secret": "of the tenant's own",
    "forcePathStyle": True,
}


class PlatformCase(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.data_dir = Path(self.mktemp()).absolute()
        self.data_dir.mkdir(parents=True)
        self.directories = NodeDirectories(self.data_dir)
        self.tenant = f"tenant_{secrets.token_hex(8)}"
        self.printed: list[str] = []
        self.workloads = PocketBaseWorkloads(
            reactor,
            binary=binaries.locate("pocketbase"),
            data_dir=self.data_dir,
            lock_fd=self.directories.lock_fd,
            on_line=lambda tenant, line: self.printed.append(line),
        )
        self.spec = WorkloadSpec(
            tenant_id=self.tenant,
            directory=self.directories.path(self.tenant),
            encryption_key="0123456789abcdef" * 2,
            hosts=("shop.localhost",),
            superuser=InitialSuperuser(email=EMAIL, password_hash=HASH),
        )

    def put_hook(self, text: str) -> None:
        hooks = self.spec.directory / "hooks"
        hooks.mkdir(parents=True, exist_ok=True)
        (hooks / "tenant.pb.js").write_text(text)

    async def start(self, **changed: Any) -> tuple[PocketBaseProcess, Http]:
        """Start it and sign in; a second start has no superuser to make."""
        workload = await self.workloads.start(attrs.evolve(self.spec, **changed))
        self.spec = attrs.evolve(self.spec, superuser=None)
        self.addCleanup(lambda: Deferred.fromCoroutine(workload.kill()))
        http = Http(workload)
        await http.log_in()
        return workload, http

    async def settings(self, http: Http) -> dict[str, Any]:
        status, found = await http.ask("GET", "/settings")
        self.assertEqual(status, 200, found)
        return dict(found)

    async def change(self, http: Http, **wanted: Any) -> None:
        status, found = await http.ask("PATCH", "/settings", wanted)
        self.assertEqual(status, 200, found)


class SettingsTests(PlatformCase):
    def check(self, settings: dict[str, Any]) -> None:
        self.assertEqual(settings["trustedProxy"]["headers"], ["X-Real-IP"])
        self.assertFalse(settings["trustedProxy"]["useLeftmostIP"])
        self.assertEqual(settings["meta"]["appURL"], "http://shop.localhost")
        self.assertEqual(settings["logs"]["minLevel"], 8)
        self.assertEqual(settings["logs"]["maxDays"], 5)
        self.assertTrue(settings["batch"]["enabled"])

    async def test_they_hold_from_the_first_start_and_again_after_each(self) -> None:
        """Trusted header, URL, quiet logs and batches are set at the first start; what a superuser
        changed by hand is set again at the next, and what is the tenant's own stays."""
        workload, http = await self.start()
        self.check(await self.settings(http))
        await self.change(
            http,
            trustedProxy={"headers": ["X-Forwarded-For"], "useLeftmostIP": True},
            meta={"appURL": "https://elsewhere.example", "appName": "Ours"},
            logs={"minLevel": -4, "maxDays": 90},
            batch={"enabled": False, "maxRequests": 7, "timeout": 9},
        )
        await workload.stop()
        _, http = await self.start()
        settings = await self.settings(http)
        self.check(settings)
        self.assertEqual(settings["meta"]["appName"], "Ours")
        self.assertEqual((settings["batch"]["maxRequests"], settings["batch"]["timeout"]), (7, 9))

    async def test_a_batch_is_accepted(self) -> None:
        """POST /api/batch works without anybody having turned it on."""
        _, http = await self.start()
        await http.make_collection()
        url = "/api/collections/words/records"
        requests = [{"method": "POST", "url": url, "body": {"word": w}} for w in ("a", "b")]
        status, body = await http.ask("POST", "/batch", {"requests": requests})
        self.assertEqual(status, 200, body)
        self.assertEqual(await http.words(), {"a", "b"})

    async def test_logs_as_asked(self) -> None:
        """With errors a good request is not in its log and a failing one is; with info both are;
        with off neither is. A change counts from the next start on."""
        self.put_hook('routerAdd("GET", "/api/bad", (e) => { throw new Error("deliberate"); });')
        for logs, seen in (
            (TenantLogs.ERRORS, {"bad"}),
            (TenantLogs.INFO, {"bad", "health"}),
            (TenantLogs.OFF, set()),
        ):
            workload, http = await self.start(logs=logs)
            await http.ask("DELETE", "/logs")
            mark = secrets.token_hex(4)
            await http.ask("GET", f"/bad?{mark}")
            await http.ask("GET", f"/health?{mark}")
            # It logs a request after its answer, on its own time, and writes every 3 s; at an end
            # it writes what was logged until then, not what still was to be.
            await self.seen(http, mark, seen)
            await workload.stop()
            _, http = await self.start(logs=logs)
            self.assertEqual(await self.logged(http, mark), seen, logs)

    async def logged(self, http: Http, mark: str) -> set[str]:
        """Which of the two requests with ``mark`` stand in the log."""
        status, page = await http.ask("GET", "/logs?perPage=500")
        self.assertEqual(status, 200, page)
        urls = {str(item["data"].get("url", "")) for item in page["items"]}
        return {name for name in ("bad", "health") if f"/api/{name}?{mark}" in urls}

    async def seen(self, http: Http, mark: str, wanted: set[str]) -> None:
        """Wait until ``wanted`` are logged; the test's own limit ends it."""
        while not wanted <= await self.logged(http, mark):
            await deferLater(reactor, 0.2, lambda: None)

    async def test_only_our_header_names_the_client(self) -> None:
        """X-Real-IP is believed, X-Forwarded-For is not."""
        self.put_hook(PROBE)
        _, http = await self.start()
        http.headers |= {"X-Real-IP": "203.0.113.9", "X-Forwarded-For": "198.51.100.1"}
        _, found = await http.ask("GET", "/probe/address")
        self.assertEqual(found["address"], "203.0.113.9")

    async def test_file_storage(self) -> None:
        """The S3 that is handed in is set for files at the first start and again after a superuser
        turned it off; its secret arrives whole and is shown to no superuser."""
        self.put_hook(PROBE)
        storage = {"s3": S3, "backups": {"s3": S3 | {"bucket": "backups"}}}
        workload, http = await self.start(settings=storage)
        await self.change(http, s3=S3 | {"enabled": False, "bucket": "mine", "secret": "mine"})
        await workload.stop()
        _, http = await self.start(settings=storage)
        settings = await self.settings(http)
        self.assertTrue(settings["s3"]["enabled"])
        self.assertEqual(settings["s3"]["bucket"], "files")
        self.assertEqual(settings["backups"]["s3"]["bucket"], "backups")
        self.assertNotIn("of the tenant's own", str(settings))
        _, found = await http.ask("GET", "/probe/s3")
        self.assertEqual(found["secret"], "of the tenant's own")


class CheckpointTests(PlatformCase):
    async def pages(self, http: Http) -> int:
        _, found = await http.ask("GET", "/probe/autocheckpoint")
        pages: int = found["pages"]
        return pages

    async def test_autocheckpoint_is_off_and_renewed(self) -> None:
        """The writing connection checkpoints nothing; one that has SQLite's default again, as a new
        one of the pool has, is set by the job that runs each minute; the optimize job is gone."""
        self.put_hook(PROBE)
        _, http = await self.start()
        self.assertEqual(await self.pages(http), 0)
        await http.ask("POST", "/probe/autocheckpoint")
        self.assertEqual(await self.pages(http), 1000)
        _, crons = await http.ask("GET", "/crons")
        jobs = {cron["id"]: cron["expression"] for cron in crons}
        self.assertEqual(jobs["__pbcluster__"], "* * * * *")
        self.assertNotIn("__pbDBOptimize__", jobs)
        status, _ = await http.ask("POST", "/crons/__pbcluster__")
        self.assertEqual(status, 204)
        # The answer comes before the job's end.
        for _ in range(200):
            if await self.pages(http) == 0:
                return
        self.fail("the job did not set it again")

    async def test_waits_are_as_before_after_a_backup(self) -> None:
        """A backup waits for no checkpoint; when it is over, or has failed, PocketBase waits for
        locks as long as it did before."""
        self.put_hook(
            PROBE + 'onBackupCreate((e) => { if (e.name === "no.zip") throw 1; e.next(); });'
        )
        _, http = await self.start()
        _, before = await http.ask("GET", "/probe/busy")
        self.assertGreater(min(before["told"]), 1000)
        for name, wanted in (("yes.zip", 204), ("no.zip", 400)):
            status, answer = await http.ask("POST", "/backups", {"name": name})
            self.assertEqual(status, wanted, answer)
            self.assertEqual((await http.ask("GET", "/probe/busy"))[1], before)


class DoorTests(PlatformCase):
    async def test_a_login_is_minted(self) -> None:
        """The token signs in as that superuser, for as long as was asked; it cannot be renewed;
        without a name it is the first superuser's; a name that nobody has is told."""
        workload, http = await self.start()
        more = {
            "email": "b@example.com",
            "password": "long enough",
            "passwordConfirm": "long enough",
        }
        status, made = await http.ask("POST", "/collections/_superusers/records", more)
        self.assertEqual(status, 200, made)
        found = await workload.ask("login", {"email": "", "seconds": 60})
        self.assertEqual((found["found"], found["email"]), (True, EMAIL))
        found = await workload.ask("login", {"email": "b@example.com", "seconds": 60})
        self.assertEqual((found["email"], found["id"]), ("b@example.com", made["id"]))
        http.headers["Authorization"] = found["token"]
        self.assertEqual((await http.ask("GET", "/settings"))[0], 200)
        _, again = await http.ask("POST", "/collections/_superusers/auth-refresh")
        self.assertEqual(again["token"], found["token"])
        found = await workload.ask("login", {"email": "c@example.com", "seconds": 60})
        self.assertEqual(found, {"found": False})

    async def test_a_token_ends(self) -> None:
        """A token of one second is refused when that is over."""
        workload, http = await self.start()
        found = await workload.ask("login", {"email": "", "seconds": 1})
        http.headers["Authorization"] = found["token"]
        while (await http.ask("GET", "/settings"))[0] == 200:
            pass
        self.assertEqual((await http.ask("GET", "/settings"))[0], 401)

    async def test_nobody_else_gets_in(self) -> None:
        """Without the secret, with a wrong one, with the secret's hash, and with another start's,
        it is as if the route were not there; and neither the environment of the process nor its
        files hold the secret."""
        self.put_hook(PROBE)
        workload, http = await self.start()
        door = workload._door
        path = f"{PREFIX.removeprefix('/api')}login"
        for given in ({}, {HEADER: ""}, {HEADER: "x"}, {HEADER: door.secret_hash}):
            http.headers |= given
            self.assertEqual((await http.ask("POST", path, {"seconds": 60}))[0], 404, given)
        http.headers[HEADER] = door._secret
        self.assertEqual((await http.ask("POST", path, {"seconds": 60}))[0], 200)
        _, found = await http.ask("GET", "/probe/secrets")
        self.assertIn(door.secret_hash, found["hook"])
        self.assertIn("PB_ENCRYPTION_KEY", found["environment"])
        self.assertNotIn(door._secret, str(found))
        await workload.stop()
        workload, http = await self.start()
        http.headers[HEADER] = door._secret
        self.assertEqual((await http.ask("POST", path, {"seconds": 60}))[0], 404)

    async def test_pages(self) -> None:
        """What rows take is told; deleting them frees it at once, without VACUUM."""
        workload, http = await self.start()
        await http.make_collection()
        before = (await workload.ask("pages", {}))["usedBytes"]
        for _ in range(30):
            await http.add("x" * 4900)
        full = (await workload.ask("pages", {}))["usedBytes"]
        self.assertGreater(full, before + 30 * 4900)
        self.assertEqual((await http.ask("DELETE", "/collections/words/truncate"))[0], 204)
        self.assertLess((await workload.ask("pages", {}))["usedBytes"], before + 8192)

    async def test_a_process_that_does_not_answer(self) -> None:
        """A PocketBase that is gone, and hooks that answer nonsense, are told in words."""
        workload, _ = await self.start()
        await workload.kill()
        with self.assertRaisesRegex(ProcessFailed, "does not answer the platform"):
            await workload.ask("login", {})
        self.put_hook('routerUse((e) => e.string(200, "x".repeat(100000)))')
        workload = await self.workloads.start(self.spec)
        self.addCleanup(lambda: Deferred.fromCoroutine(workload.kill()))
        with self.assertRaisesRegex(ProcessFailed, "more than 16384 bytes"):
            await workload.ask("login", {})


class PrintedTests(PlatformCase):
    async def test_the_installers_url(self) -> None:
        """What a tenant without a superuser prints tells of the installer, not of its token."""
        workload = await self.workloads.start(attrs.evolve(self.spec, superuser=None))
        self.addCleanup(lambda: Deferred.fromCoroutine(workload.kill()))
        while not any("pbinstal" in line for line in self.printed):
            await _turn()
        self.assertNotIn("eyJ", str(self.printed))
        self.assertIn("pbinstall/[token]", str(self.printed))

    async def test_a_flood_is_slowed_down(self) -> None:
        """A tenant that prints without end gets through no more than its bytes a second, answers
        other requests meanwhile, and is ended as fast as ever."""
        self.put_hook(
            'routerAdd("GET", "/api/flood", (e) => {'
            ' for (;;) { console.log("Authorization: Bearer hidden " + "x".repeat(2000)); } });'
        )
        workload, http = await self.start()
        with socket.create_connection((workload.host, workload.port)) as flood:
            flood.sendall(b"GET /api/flood HTTP/1.1\r\nHost: x\r\n\r\n")
            while len(self.printed) < 300:
                await _turn()
            self.assertEqual((await http.ask("GET", "/health"))[0], 200)
            seen = len(self.printed)
            for _ in range(5):
                await _turn(0.1)
            # In half a second no more than the rest of one second's, and one second's more.
            self.assertLess(len(self.printed) - seen, 700)
            self.assertNotIn("hidden", str(self.printed))
            workload._child.signal(signal.SIGKILL)
            self.assertIn("SIGKILL", await workload._child.wait(5.0) or "")


async def _turn(seconds: float = 0.01) -> None:
    waiting: Deferred[None] = Deferred()
    reactor.callLater(seconds, waiting.callback, None)
    await waiting
