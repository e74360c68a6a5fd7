"""Deleted files on the real SeaweedFS: hidden, kept, brought back, removed for good."""

from __future__ import annotations

import time

from twisted.internet import reactor, task

from pbcluster.errors import OwnershipLost
from pbcluster.node.files.deletions import covered_name, read_name
from pbcluster.node.files.door import Files
from pbcluster.node.files.tenant_files import SETTLE_S
from tests.node.files.case import A, FilesCase, Owner

WINDOW_S = 3600.0
FILE = f"tenants/{A}/storage/col/rec/f"
KEY = {"Bucket": "storage", "Key": "col/rec/f"}


class DeletedTests(FilesCase):
    def stored(self) -> bool:
        return FILE in self.keys()

    def records(self) -> list[str]:
        root = f"tenants/{A}/deletes/"
        return [key for key in self.keys(root) if read_name(key[len(root) :])]

    async def visible(self, client: object) -> bool:
        listed = await self.do(client.list_objects_v2, Bucket="storage")  # type: ignore[attr-defined]
        seen = [row["Key"] for row in listed.get("Contents", [])]
        try:
            await self.do(client.head_object, **KEY)  # type: ignore[attr-defined]
        except Exception:
            self.assertEqual(seen, [])
            return False
        self.assertEqual(seen, [KEY["Key"]])
        return True

    async def covered(self, files: Files) -> None:
        """Wait until its deletions are covered, and COVERED is there."""
        found = files.gateway.find(A)
        assert found is not None
        while (await found.ledger()).uncovered:
            await task.deferLater(reactor, 0.02)
        self.assertIn(f"tenants/{A}/deletes/{covered_name(1)}", self.keys())

    async def test_hidden_then_removed(self) -> None:
        """A deleted object is gone for the tenant at once, in S3 only after a sync covered it and
        the window passed; then its record goes too. A missing one leaves no record."""
        files, owner = self.files(window_s=WINDOW_S), Owner()
        client = await self.client(files, owner)
        await self.do(client.put_object, **KEY, Body=b"1")
        owner.syncs = False
        await self.do(client.delete_object, **KEY)
        await self.do(client.delete_object, Bucket="storage", Key="col/rec")
        self.assertFalse(await self.visible(client))
        copied = await self.refusal(
            client.copy_object, Bucket="storage", Key="other", CopySource=KEY
        )
        self.assertEqual(copied, (404, "NoSuchKey"))
        self.assertEqual((self.stored(), len(self.records())), (True, 1))
        self.ahead_s = WINDOW_S + 10
        await self.collect(files)
        self.assertTrue(self.stored(), "removed before a sync covered it")
        owner.syncs = True
        await self.covered(files)
        self.ahead_s = WINDOW_S - 10
        await self.collect(files)
        self.assertTrue(self.stored(), "removed before the window passed")
        self.ahead_s = WINDOW_S + 10
        await self.collect(files)
        self.assertEqual((self.stored(), self.records()), (False, []))
        self.assertEqual(files.collector.removed, 1)
        await self.collect(files)

    async def test_back_after_a_takeover(self) -> None:
        """A deletion whose row's deletion was never covered is void for the next owner: the file
        is there again, and is not removed when its time comes."""
        files, owner = self.files(window_s=WINDOW_S), Owner(epoch=1)
        client = await self.client(files, owner)
        await self.do(client.put_object, **KEY, Body=b"1")
        owner.syncs = False
        await self.do(client.delete_object, **KEY)
        other = self.files(window_s=WINDOW_S)
        client = await self.client(other, Owner(epoch=2))
        self.assertTrue(await self.visible(client))
        self.ahead_s = 10 * WINDOW_S
        await self.collect(other)
        self.assertEqual((self.stored(), self.records()), (True, []))

    async def test_gone_after_a_takeover(self) -> None:
        """A covered deletion stands for the next owner, who removes the file when it is due; under
        the same epoch it stands without having been covered."""
        files, owner = self.files(window_s=WINDOW_S), Owner(epoch=1)
        client = await self.client(files, owner)
        await self.do(client.put_object, **KEY, Body=b"1")
        owner.syncs = False
        await self.do(client.delete_object, **KEY)
        again = self.files(window_s=WINDOW_S)
        client = await self.client(again, Owner(epoch=1))
        self.assertFalse(await self.visible(client))
        await self.covered(again)
        other = self.files(window_s=WINDOW_S)
        client = await self.client(other, Owner(epoch=2))
        self.assertFalse(await self.visible(client))
        self.ahead_s = 2 * WINDOW_S
        await self.collect(other)
        self.assertEqual((self.stored(), self.records()), (False, []))

    async def test_a_new_file_of_the_name(self) -> None:
        """An upload, a copy or an upload in parts under a deleted name cancels the deletion before
        it is answered; the new object outlives the window."""
        files = self.files(window_s=WINDOW_S)
        client = await self.client(files, Owner())
        await self.do(client.put_object, Bucket="storage", Key="source", Body=b"s")
        made = await self.do(client.create_multipart_upload, **KEY)
        where = {**KEY, "UploadId": made["UploadId"]}
        part = await self.do(client.upload_part, **where, PartNumber=1, Body=b"parts")
        listed = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        source = {"Bucket": "storage", "Key": "source"}
        for body, call, more in (
            (b"1", client.put_object, {**KEY, "Body": b"1"}),
            (b"s", client.copy_object, {**KEY, "CopySource": source}),
            (
                b"parts",
                client.complete_multipart_upload,
                {**where, "MultipartUpload": listed},
            ),
        ):
            await self.do(client.put_object, **KEY, Body=b"old")
            await self.do(client.delete_object, **KEY)
            self.assertEqual(len(self.records()), 1)
            await self.do(call, **more)
            self.assertEqual(self.records(), [])
            got = await self.do(client.get_object, **KEY)
            self.assertEqual(await self.do(got["Body"].read), body)
            self.ahead_s += 2 * WINDOW_S
            await self.collect(files)
            self.assertTrue(self.stored())
            self.ahead_s = 0

    async def test_a_deposed_owner_removes_nothing(self) -> None:
        """A node that stood still between its look at the object and its removal of it does not
        remove what the new owner wrote under the name: its proof fails; and S3 refuses a removal
        that comes later than it was signed for."""
        files, owner = self.files(window_s=WINDOW_S), Owner(epoch=1)
        client = await self.client(files, owner)
        await self.do(client.put_object, **KEY, Body=b"1")
        await self.do(client.delete_object, **KEY)
        await self.covered(files)
        self.ahead_s = 2 * WINDOW_S
        owner.lost = True
        await self.assertFailure(self.collect(files), OwnershipLost)
        self.assertTrue(self.stored())
        late = files._bucket.sign_delete(FILE, 1)
        await task.deferLater(reactor, 2.5)
        with self.assertRaises(Exception) as caught:
            await files._bucket.send_delete(late)
        self.assertIn("403", str(caught.exception))
        self.assertTrue(self.stored())

    async def test_a_disputed_name(self) -> None:
        """While a former life may be removing an object, nobody writes its name; soon after, the
        name is free, and its new object is not removed by the old deletion."""
        files, owner = self.files(window_s=WINDOW_S), Owner(epoch=1)
        client = await self.client(files, owner)
        await self.do(client.put_object, **KEY, Body=b"1")
        await self.do(client.delete_object, **KEY)
        await self.covered(files)
        self.ahead_s = 2 * WINDOW_S
        other = self.files(window_s=WINDOW_S)
        client = await self.client(other, Owner(epoch=2))
        refused = await self.refusal(client.put_object, **KEY, Body=b"2")
        self.assertEqual(refused, (503, "SlowDown"))
        found = other.gateway.find(A)
        assert found is not None
        found._opened_at -= SETTLE_S + 1
        await self.do(client.put_object, **KEY, Body=b"2")
        await self.collect(other)
        self.assertTrue(await self.visible(client))

    async def test_written_behind_its_back(self) -> None:
        """A deletion that speaks of another object than the one that is there removes nothing."""
        files = self.files(window_s=WINDOW_S)
        client = await self.client(files, Owner())
        await self.do(client.put_object, **KEY, Body=b"1")
        await self.do(client.delete_object, **KEY)
        await self.covered(files)
        self.real.put_object(Bucket=self.bucket, Key=FILE, Body=b"late upload")
        self.ahead_s = 2 * WINDOW_S
        await self.collect(files)
        self.assertTrue(self.stored())
        self.assertEqual((self.records(), files.collector.kept), ([], 1))

    async def test_reinstated(self) -> None:
        """Before a restore to an earlier time, what was deleted since is brought back; what was
        deleted before that stays away."""
        files = self.files(window_s=WINDOW_S)
        client = await self.client(files, Owner())
        await self.do(client.put_object, Bucket="storage", Key="earlier", Body=b"0")
        await self.do(client.put_object, **KEY, Body=b"1")
        await self.do(client.delete_object, Bucket="storage", Key="earlier")
        self.ahead_s = 100
        await self.do(client.delete_object, **KEY)
        since_ms = int((time.time() + 50) * 1000)
        self.assertEqual(await files.reinstate(A, since_ms), 1)
        self.assertTrue(await self.visible(client))
        self.ahead_s = 2 * WINDOW_S
        await self.covered(files)
        await self.collect(files)
        self.assertEqual(self.keys(f"tenants/{A}/storage"), [FILE])

    async def test_a_page_of_hidden_objects(self) -> None:
        """A page that would hold hidden objects only is not taken for the end of the listing."""
        client = await self.client(self.files(), Owner())
        for n in range(5):
            await self.do(client.put_object, Bucket="storage", Key=f"k{n}", Body=b"1")
        for n in range(4):
            await self.do(client.delete_object, Bucket="storage", Key=f"k{n}")
        listed = await self.do(client.list_objects_v2, Bucket="storage", MaxKeys=2)
        self.assertEqual([row["Key"] for row in listed["Contents"]], ["k4"])
