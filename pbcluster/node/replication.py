"""The node's one Litestream daemon: every active tenant's data.db goes to S3 through it.

What holds (each was measured; see docs/decisions/0014-litestream.rst):

* ``/sync`` is always asked with ``"timeout": -1``: any other value lets the application drop frames
  that are not in S3 yet. The limit is ours, and a sync that takes longer goes on in the daemon.
* A sync is judged by the answer's ``status`` alone.
* One prefix an epoch. A database that the daemon still has under another prefix is unregistered
  first, since it ignores a different URL without a word.
* Credentials go by environment, never into the configuration file or an argument.
* A restore goes to a file of another name, is checked, and takes its place without overwriting.

It retries nothing but a restore that missed a file removed just then, and decides nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.logger import Logger

from pbcluster.errors import InvalidInput, ProcessFailed, S3Unavailable, StorageCorrupt
from pbcluster.node import orphans
from pbcluster.node.claims import replica_path
from pbcluster.node.litestream_client import Answer, LitestreamClient
from pbcluster.node.s3 import S3Address
from pbcluster.node.sync_places import SyncPlaces
from pbcluster.processes import Child, run_child, start_child

log = Logger()

#: It takes 0.1 s; a machine under load takes longer.
START_TIMEOUT_S = 15.0
START_POLL_S = 0.01
#: Its last sync of everything, at S3's speed.
STOP_GRACE_S = 20.0
REGISTER_TIMEOUT_S = 10.0
#: Litestream's own limit for the last sync of one database, and ours, which is a little longer.
UNREGISTER_TIMEOUT_S = 10
#: 1 GB takes 26 s with its check.
RESTORE_TIMEOUT_S = 900.0
#: Restores at once: each fills disk, network and a core.
MAX_RESTORES = 4
RESTORE_ATTEMPTS = 2
#: Of one database: the one that is waited for, and one whose caller gave up (``sync_places``).
MAX_SYNCS = 2
#: A sync whose caller gave up is counted this long; in an S3 outage it waits for S3's return.
SYNC_FORGOTTEN_S = 60.0
#: ``sun_path`` of unix(7) has 108 bytes.
MAX_SOCKET_PATH = 100
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_LTX_NAME = re.compile(r"[0-9a-f]{16}-([0-9a-f]{16})\.ltx")
_SYNCED = ("synced", "no_change")


def replica_url(address: S3Address, tenant_id: str, epoch: int, database: str = "data.db") -> str:
    """Litestream's URL of the epoch's replica. :raises InvalidInput: no bucket's name, or no id."""
    if not _BUCKET.fullmatch(address.bucket):
        raise InvalidInput(
            f"bucket {address.bucket!r} is not allowed",
            field="s3_bucket",
            allowed="3 to 63 of a-z, 0-9, dot and hyphen",
        )
    where = {
        "endpoint": address.endpoint,
        "region": address.region,
        "forcePathStyle": "true",
    }
    return f"s3://{address.bucket}/{replica_path(tenant_id, epoch, database)}?{urlencode(where)}"


def metadata_path(database: Path) -> Path:
    """Litestream's local metadata beside a database."""
    return database.with_name(f".{database.name}-litestream")


class LitestreamDaemon:
    """``Replication`` by the real thing."""

    def __init__(self, reactor: Any, *, binary: Path, data_dir: Path, address: S3Address) -> None:
        """
        :param reactor: processes, UNIX sockets and time.
        :param binary: the verified ``litestream``.
        :param data_dir: the node's; its files go to ``litestream/`` there.
        """
        self._reactor = reactor
        self._binary = str(binary)
        self._address = address
        self._directory = data_dir.absolute() / "litestream"
        self._env = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self._directory),
            "LITESTREAM_ACCESS_KEY_ID": address.access_key,
            "LITESTREAM_SECRET_ACCESS_KEY": address.secret_key,
            **orphans.marker(data_dir),
        }
        self._child: Child | None = None
        self._client: LitestreamClient | None = None
        self._socket_dir: Path | None = None
        self._registered: dict[Path, tuple[str, int]] = {}
        self._places = SyncPlaces(reactor, MAX_SYNCS)
        self._lost: list[Callable[[str], None]] = []
        self._restores = DeferredSemaphore(MAX_RESTORES)

    @property
    def pid(self) -> int | None:
        """Process id of the daemon while it runs."""
        return self._child.pid if self._child is not None else None

    # -- its life --

    async def start(self) -> None:
        """Start the daemon and wait until its socket answers.

        :raises ProcessFailed: it ended or did not answer in time; says why.
        """
        if self._child is not None:
            return
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        socket_path = self._socket_path()
        Path(socket_path).unlink(missing_ok=True)
        config = self._write_config(socket_path)
        argv = [self._binary, "replicate", "-config", str(config)]
        child = start_child(self._reactor, "litestream", argv, self._env)
        client = LitestreamClient(self._reactor, socket_path)
        self._registered.clear()
        self._child, self._client = child, client
        self._places.reset()
        try:
            await self._answering(child, client)
        except BaseException:
            self._child = self._client = None
            await client.close()
            await child.kill()
            raise
        child.when_ended(lambda reason: self._ended(child, reason))

    async def _answering(self, child: Child, client: LitestreamClient) -> None:
        until = self._reactor.seconds() + START_TIMEOUT_S
        while self._reactor.seconds() < until:
            if await child.wait(START_POLL_S) is not None:
                raise ProcessFailed(
                    f"litestream did not start ({child.reason}): {child.last_words()}"
                )
            with contextlib.suppress(S3Unavailable):
                if (await client.ask("/info", timeout_s=1.0)).status == 200:
                    return
        raise ProcessFailed(
            f"litestream did not answer within {START_TIMEOUT_S:g} s: {child.last_words()}"
        )

    async def stop(self) -> None:
        """End it; it does a last sync of everything still registered."""
        child, client = self._child, self._client
        self._child = self._client = None
        self._registered.clear()
        if client is not None:
            await client.close()
        if child is not None:
            await child.stop(STOP_GRACE_S)
        if self._socket_dir is not None:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
            self._socket_dir = None

    def when_lost(self, callback: Callable[[str], None]) -> None:
        """``callback(reason)`` when the daemon ended by itself."""
        self._lost.append(callback)

    def waiting_since(self) -> float | None:
        """When the oldest sync began that is under way; None: none is."""
        return self._places.oldest()

    async def end_hanging(self) -> None:
        """End a daemon that hangs, without a last sync; it counts as ended by itself."""
        if self._child is not None:
            await self._child.kill()

    def _ended(self, child: Child, reason: str) -> None:
        if self._child is not child:
            return  # we ended it
        client, self._client = self._client, None
        self._child = None
        self._registered.clear()
        if client is not None:
            Deferred.fromCoroutine(client.close())
        told = f"litestream ended ({reason}): {child.last_words()}"
        log.error("{told}", told=told)
        for callback in list(self._lost):
            callback(told)

    def _write_config(self, socket_path: str) -> Path:
        """Its configuration, in JSON, which is YAML. It holds no secret."""
        content = {
            "socket": {"enabled": True, "path": socket_path, "permissions": 0o600},
            # The default of 15 s LISTs every database all the time.
            "l0-retention-check-interval": "10m",
            # Each sync lists the directory of the newest files twice, so that a tenant under
            # steady writes gets slower with every file there: compact them soon, and let them go.
            "levels": [{"interval": "10s"}, {"interval": "5m"}, {"interval": "1h"}],
            "l0-retention": "10s",
            "logging": {"level": "warn", "stderr": True},
            "dbs": [],
        }
        path = self._directory / "litestream.yml"
        path.unlink(missing_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb") as stream:
            stream.write(msgspec.json.encode(content))
        return path

    def _socket_path(self) -> str:
        path = str(self._directory / "control.sock")
        if len(path.encode()) <= MAX_SOCKET_PATH:
            return path
        self._socket_dir = self._socket_dir or Path(tempfile.mkdtemp(prefix="pbcluster-"))
        return str(self._socket_dir / "control.sock")

    # -- databases --

    async def register(self, tenant_id: str, epoch: int, database: Path) -> None:
        """Begin to replicate ``database`` under the epoch's prefix.

        :raises S3Unavailable: the daemon does not answer or will not.
        """
        if self._registered.get(database) == (tenant_id, epoch):
            return
        if database in self._registered:
            await self.unregister(database)
        url = replica_url(self._address, tenant_id, epoch, database.name)
        body = {"path": str(database), "replica_url": url}
        answer = await self._ask("/register", body, REGISTER_TIMEOUT_S)
        if answer.status == 200 and answer.body.get("status") == "already_registered":
            # From a call whose answer we missed, perhaps under another prefix: begin anew.
            self._registered[database] = ("", 0)
            await self.unregister(database)
            answer = await self._ask("/register", body, REGISTER_TIMEOUT_S)
        if answer.status != 200 or answer.body.get("status") != "registered":
            raise S3Unavailable(f"Litestream does not register {database}: {answer.error}")
        self._registered[database] = (tenant_id, epoch)

    async def unregister(self, database: Path) -> bool:
        """Final sync, then stop replicating. Unknown databases are fine.

        :returns: whether it was replicated until now, so that all of it is in S3. Never after one
            that failed: Litestream forgets the database then, and says 200 without a sync.
        :raises S3Unavailable: it cannot be said that the last sync succeeded.
        """
        if database not in self._registered:
            return False
        # Until it is said to be gone, the next register must not believe that it is.
        known, self._registered[database] = self._registered[database], ("", 0)
        body = {"path": str(database), "timeout": UNREGISTER_TIMEOUT_S}
        answer = await self._ask("/unregister", body, UNREGISTER_TIMEOUT_S + 2.0)
        if answer.status not in (200, 404):
            raise S3Unavailable(f"Litestream's last sync of {database} failed: {answer.error}")
        self._registered.pop(database, None)
        return answer.status == 200 and known != ("", 0)

    async def sync(self, database: Path, *, timeout_s: float) -> int:
        """Everything committed before this call is in S3 when it returns.

        :returns: the TXID reached.
        :raises S3Unavailable: it cannot be said that it is.
        """
        until = self._reactor.seconds() + timeout_s
        place = await self._places.take(database, until)
        waiting: Deferred[Answer] = Deferred()

        def give_up() -> None:
            waiting.errback(S3Unavailable(f"the sync took longer than {timeout_s:g} s"))

        def over(result: Any) -> None:
            if timer.active():
                timer.cancel()
                waiting.callback(result)
            self._places.give_back(place)

        timer = self._reactor.callLater(max(0.0, until - place.began), give_up)
        body = {"path": str(database), "wait": True, "timeout": -1}
        # Its own limit only bounds how long a forgotten one is counted.
        asked = self._ask("/sync", body, max(timeout_s, SYNC_FORGOTTEN_S))
        Deferred.fromCoroutine(asked).addBoth(over)
        answer = await waiting
        if answer.status != 200 or answer.body.get("status") not in _SYNCED:
            raise S3Unavailable(f"Litestream could not sync {database}: {answer.error}")
        return int(answer.body["replicated_txid"])

    async def _ask(self, path: str, body: dict[str, Any], timeout_s: float) -> Answer:
        return await self._running().ask(path, body, timeout_s=timeout_s)

    def _running(self) -> LitestreamClient:
        if self._client is None:
            raise S3Unavailable("Litestream is not running")
        return self._client

    # -- restore --

    async def restore(self, tenant_id: str, epoch: int, target: Path, txid: int = 0) -> None:
        """Restore data.db of ``epoch`` to the new file ``target``, checked for integrity.

        :param txid: as it was after this transaction; 0: the newest.
        :raises StorageCorrupt: it restores, but the check fails; or ``target`` exists.
        :raises S3Unavailable: else.
        """
        await self._restores.acquire()
        try:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            url = replica_url(self._address, tenant_id, epoch, target.name)
            for attempt in range(1, RESTORE_ATTEMPTS + 1):
                error = await self._restore_once(url, target, txid)
                if error is None:
                    return
                # The second try matters when retention removed a file that was about to be read.
                if attempt == RESTORE_ATTEMPTS:
                    raise S3Unavailable(f"epoch {epoch} of {tenant_id} cannot be restored: {error}")
        finally:
            self._restores.release()

    async def _restore_once(self, url: str, target: Path, txid: int) -> str | None:
        beside = target.with_name(f".restore-{secrets.token_hex(6)}")
        point = ["-txid", f"{txid:016x}"] if txid else []
        argv = [self._binary, "restore", "-o", str(beside), "-integrity-check", "quick"]
        argv += [*point, url]
        try:
            try:
                child = await run_child(
                    self._reactor,
                    "litestream restore",
                    argv,
                    self._env,
                    timeout_s=RESTORE_TIMEOUT_S,
                )
            except ProcessFailed as error:
                raise S3Unavailable(str(error)) from None
            words = child.last_words()
            if child.reason == "exit status 0" and beside.is_file():
                _take_place(beside, target)
                return None
            if "integrity check" in words:
                raise StorageCorrupt(f"the restored {target.name} fails its check: {words}")
            return f"{child.reason}: {words}"
        finally:
            for rest in target.parent.glob(f"{beside.name}*"):
                rest.unlink(missing_ok=True)

    # -- local metadata --

    def local_txid(self, database: Path) -> int:
        """The highest TXID in Litestream's local metadata beside ``database``, 0 if none."""
        names = (path.name for path in metadata_path(database).glob("ltx/*/*.ltx"))
        found = (_LTX_NAME.fullmatch(name) for name in names)
        return max((int(name[1], 16) for name in found if name), default=0)

    def forget(self, database: Path) -> None:
        """Remove that metadata: needed before registering under a new prefix."""
        path = metadata_path(database)
        if path.is_symlink():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)


def _take_place(beside: Path, target: Path) -> None:
    try:
        os.link(beside, target, follow_symlinks=False)  # unlike a rename it never overwrites
    except FileExistsError:
        raise StorageCorrupt(f"{target} exists: a copy is never overwritten") from None
