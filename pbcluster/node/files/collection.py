"""Removes for good what was deleted long enough ago, and records that mean nothing any more.

Runs where the tenant is active, under a proof, a few at a time; it may end at any point and be done
again. What makes it safe against a node that stood still in the middle of it:

* the object is removed only if it is the one that was deleted (its identity);
* the removal is signed first, for :data:`~pbcluster.node.files.tenant_files.REMOVAL_EXPIRES_S`
  seconds, then the proof is looked at, then it is sent: S3 itself refuses it when it comes late;
* a new owner lets nobody write a name whose removal may be under way for as long, and more
  (``TenantFiles.begin_write``);
* here, nobody writes a name while it is removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from pbcluster.errors import PBClusterError
from pbcluster.node.files.deletions import Deletion, Ledger, covered_name
from pbcluster.node.files.tenant_files import REMOVAL_EXPIRES_S, FilesSetting, TenantFiles
from pbcluster.node.parts import pause, spawn

log = Logger()

#: Objects of one tenant removed in a round: four requests each, one tenant after the other.
MAX_A_ROUND = 100
#: Rounds are so far apart, or a tenth of the window if that is less.
ROUND_S = 60.0
MIN_ROUND_S = 0.2


class Collector:
    """See the module.

    :ivar removed: objects removed since the start. :ivar kept: deletions that turned out to speak
        of an object that is not there any more.
    """

    def __init__(self, setting: FilesSetting, tenants: Callable[[], Iterable[TenantFiles]]) -> None:
        """
        :param tenants: the tenants whose PocketBase runs.
        """
        self.removed = 0
        self.kept = 0
        self._setting = setting
        self._tenants = tenants
        self._window_ms = int(setting.window_s * 1000)
        self._round_s = max(MIN_ROUND_S, min(ROUND_S, setting.window_s / 10))
        self._running: Deferred[None] | None = None
        self._closed = False

    def start(self) -> None:
        """Begin; call once."""
        self._running = spawn(self._run(), "removal of deleted files")

    async def stop(self) -> None:
        """End; returns when nothing is under way."""
        self._closed = True
        running, self._running = self._running, None
        if running is not None:
            running.cancel()  # a pause ends; what was sent is waited for
            await running

    async def _run(self) -> None:
        while not self._closed:
            await pause(self._setting.clock, self._round_s)
            for files in list(self._tenants()):
                if self._closed:
                    return
                try:
                    await self.collect(files)
                except PBClusterError as error:
                    log.warn(
                        "{tenant}: deleted files are not removed: {error}",
                        tenant=files.owner.tenant_id,
                        error=error,
                    )
                except Exception:  # one tenant's trouble must not end it for all others
                    log.failure("removal of deleted files failed")

    async def collect(self, files: TenantFiles) -> None:
        """One round for one tenant. :raises PBClusterError: S3 or the proof is missing."""
        ledger = files.known_ledger
        if ledger is None:
            # Nobody has asked for a file in this life; what is due is due all the same.
            ledger = await files.ledger()
        await files.usage()
        for deletion in ledger.due(self._setting.unix_ms(), self._window_ms, MAX_A_ROUND):
            if files.closed or self._closed:
                return
            if deletion.key not in files.writing:
                await self._remove(files, ledger, deletion)
        await self._tidy(files, ledger)

    async def _remove(self, files: TenantFiles, ledger: Ledger, deletion: Deletion) -> None:
        bucket, full = self._setting.bucket, files.names.root + deletion.key
        files.removing.add(deletion.key)
        try:
            found = await bucket.head(full)
            if found is not None and found.identity == deletion.identity:
                signed = bucket.sign_delete(full, REMOVAL_EXPIRES_S)
                await files.prove()
                await bucket.send_delete(signed)
                self.removed += 1
            else:
                await files.prove()
                self.kept += 1
            await self._setting.objects.delete(files.names.deletes + deletion.name)
            ledger.gone(deletion)
        finally:
            files.removing.discard(deletion.key)

    async def _tidy(self, files: TenantFiles, ledger: Ledger) -> None:
        void = [each.name for each in ledger.take_void(MAX_A_ROUND)]
        needed = {each.epoch for each in ledger}
        done = [epoch for epoch in files.former_covers if epoch not in needed]
        if void or done:
            await files.prove()
        for name in (*void, *(covered_name(epoch) for epoch in done)):
            await self._setting.objects.delete(files.names.deletes + name)
        files.former_covers.difference_update(done)
