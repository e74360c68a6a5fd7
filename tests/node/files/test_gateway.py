"""The file gateway against the real SeaweedFS, spoken to by boto3."""

from __future__ import annotations

import secrets

from twisted.internet.defer import DeferredList
from twisted.internet.threads import deferToThread

from pbcluster.errors import StorageFull
from pbcluster.node.files.door import FORM_BYTES, Files
from pbcluster.node.files.signatures import file_secret
from pbcluster.web.interfaces import RequestHead
from tests.node.files.case import TENANT_KEY, A, B, FilesCase, Owner, client_at


class ContentTests(FilesCase):
    async def test_what_is_put_is_got(self) -> None:
        """An object comes back byte for byte with its type and metadata; ranges and conditions
        work; it lies below the tenant's own prefix and nowhere else."""
        client = await self.client(self.files(), Owner())
        body, key = secrets.token_bytes(300_000), "col/rec/ä b+c%41.txt"
        put = await self.do(
            client.put_object,
            Bucket="storage",
            Key=key,
            Body=body,
            ContentType="text/x-test",
            Metadata={"original-filename": "%C3%A4.txt"},
        )
        self.assertEqual(self.keys(), [f"tenants/{A}/storage/{key}"])
        got = await self.do(client.get_object, Bucket="storage", Key=key)
        self.assertEqual(await self.do(got["Body"].read), body)
        self.assertEqual(got["ContentType"], "text/x-test")
        self.assertEqual(got["Metadata"], {"original-filename": "%C3%A4.txt"})
        self.assertEqual(got["ETag"], put["ETag"])
        part = await self.do(client.get_object, Bucket="storage", Key=key, Range="bytes=10-19")
        self.assertEqual(part["ResponseMetadata"]["HTTPStatusCode"], 206)
        self.assertEqual(await self.do(part["Body"].read), body[10:20])
        head = await self.do(client.head_object, Bucket="storage", Key=key)
        self.assertEqual(head["ContentLength"], len(body))
        for conditions, wanted in (
            ({"IfNoneMatch": put["ETag"]}, 304),
            ({"IfMatch": '"0123"'}, 412),
            ({"Range": "bytes=999999999-"}, 416),
        ):
            status, _ = await self.refusal(
                client.get_object, Bucket="storage", Key=key, **conditions
            )
            self.assertEqual(status, wanted, conditions)
        missing = await self.refusal(client.get_object, Bucket="storage", Key="col/rec/other")
        self.assertEqual(missing, (404, "NoSuchKey"))

    async def test_listing_copy_and_parts(self) -> None:
        """Listings, copies and uploads in parts are told in the tenant's names alone."""
        client = await self.client(self.files(), Owner())
        for name in ("a/1", "a/2", "b/1"):
            await self.do(client.put_object, Bucket="storage", Key=name, Body=name.encode())
        await self.do(client.put_object, Bucket="backups", Key="x.zip", Body=b"zip")
        listed = await self.do(client.list_objects_v2, Bucket="storage", Prefix="a/")
        self.assertEqual([row["Key"] for row in listed["Contents"]], ["a/1", "a/2"])
        first = await self.do(client.list_objects_v2, Bucket="storage", MaxKeys=2)
        second = await self.do(
            client.list_objects_v2,
            Bucket="storage",
            ContinuationToken=first["NextContinuationToken"],
        )
        rows = [row["Key"] for page in (first, second) for row in page["Contents"]]
        self.assertEqual(rows, ["a/1", "a/2", "b/1"])
        groups = await self.do(client.list_objects_v2, Bucket="storage", Delimiter="/")
        found = [row["Prefix"] for row in groups["CommonPrefixes"]]
        # SeaweedFS shows folders for a while after their last object went.
        self.assertEqual([each for each in found if each != "col/"], ["a/", "b/"])
        backups = await self.do(client.list_objects_v2, Bucket="backups")
        self.assertEqual([row["Key"] for row in backups["Contents"]], ["x.zip"])
        source = {"Bucket": "storage", "Key": "a/1"}
        await self.do(client.copy_object, Bucket="storage", Key="c/1", CopySource=source)
        got = await self.do(client.get_object, Bucket="storage", Key="c/1")
        self.assertEqual(await self.do(got["Body"].read), b"a/1")

        made = await self.do(
            client.create_multipart_upload, Bucket="storage", Key="big", ContentType="x/y"
        )
        where = {"Bucket": "storage", "Key": "big", "UploadId": made["UploadId"]}
        body, parts = secrets.token_bytes(12 * 1024 * 1024), []
        for number, at in enumerate(range(0, len(body), 6 * 1024 * 1024), 1):
            piece = body[at : at + 6 * 1024 * 1024]
            part = await self.do(client.upload_part, **where, PartNumber=number, Body=piece)
            parts.append({"ETag": part["ETag"], "PartNumber": number})
        self.assertNotIn("big", [row["Key"] for row in (await self.list(client))])
        told = await self.do(client.list_parts, **where)
        self.assertEqual([row["PartNumber"] for row in told["Parts"]], [1, 2])
        done = await self.do(
            client.complete_multipart_upload, **where, MultipartUpload={"Parts": parts}
        )
        self.assertEqual((done["Key"], done["Location"]), ("big", "/storage/big"))
        got = await self.do(client.get_object, Bucket="storage", Key="big")
        self.assertEqual(await self.do(got["Body"].read), body)
        unknown = where | {"UploadId": "f" * 32}
        again = await self.refusal(
            client.complete_multipart_upload, **unknown, MultipartUpload={"Parts": parts}
        )
        self.assertEqual(again, (404, "NoSuchUpload"))
        other = await self.do(client.create_multipart_upload, Bucket="storage", Key="given up")
        await self.do(
            client.abort_multipart_upload,
            Bucket="storage",
            Key="given up",
            UploadId=other["UploadId"],
        )

    async def list(self, client: object, bucket: str = "storage") -> list[dict[str, object]]:
        page = await self.do(client.list_objects_v2, Bucket=bucket)  # type: ignore[attr-defined]
        return page.get("Contents", [])


class RefusalTests(FilesCase):
    async def test_keys_of_others(self) -> None:
        """A wrong secret, an unknown tenant and the real keys are refused; a tenant's own key does
        not reach another tenant's objects, whatever it calls them."""
        files = self.files()
        client = await self.client(files, Owner(A))
        other = await self.client(files, Owner(B))
        await self.do(other.put_object, Bucket="storage", Key="secret", Body=b"of b")
        seaweed = self.seaweed
        for access_key, secret in (
            (A, file_secret(TENANT_KEY, B)),
            (A, file_secret("another cluster", A)),
            ("tenant_cccccccc", file_secret(TENANT_KEY, "tenant_cccccccc")),
            (seaweed.access_key, seaweed.secret_key),
        ):
            wrong = client_at(files.port, access_key, secret)
            refused = await self.refusal(wrong.list_objects_v2, Bucket="storage")
            self.assertEqual(refused, (403, "SignatureDoesNotMatch"))
        for bucket, key in (
            (self.bucket, f"tenants/{B}/storage/secret"),
            ("storage", f"../../{B}/storage/secret"),
            ("storage", "a/../../secret"),
            ("storage", "./secret"),
            ("storage", "a//b"),
            ("storage", "a\\..\\b"),
            ("..", "secret"),
            ("tenants", "secret"),
        ):
            for call in (client.get_object, client.delete_object):
                status, code = await self.refusal(call, Bucket=bucket, Key=key)
                self.assertIn(code, ("InvalidURI", "NoSuchBucket"), (bucket, key))
                self.assertIn(status, (400, 404))
        for source in (
            f"{self.bucket}/tenants/{B}/storage/secret",
            "storage/../x",
            "storage/a%2fb",
        ):
            refused = await self.refusal(
                client.copy_object, Bucket="storage", Key="mine", CopySource=source
            )
            self.assertIn(refused[0], (400, 404), source)
        prefix = await self.refusal(client.list_objects_v2, Bucket="storage", Prefix="../")
        self.assertEqual(prefix, (400, "InvalidArgument"))
        listed = await self.do(client.list_objects_v2, Bucket="storage", Prefix=f"tenants/{B}")
        self.assertEqual(listed["KeyCount"], 0)

    async def test_what_is_not_offered(self) -> None:
        """All other operations of S3, signed URLs and chunked signatures are refused in S3's own
        form, and nothing is changed."""
        client = await self.client(self.files(), Owner())
        await self.do(client.put_object, Bucket="storage", Key="k", Body=b"1")
        for call, more in (
            (client.list_objects, {}),
            (client.head_bucket, {}),
            (client.delete_bucket, {}),
            (client.create_bucket, {}),
            (client.get_bucket_acl, {}),
            (client.get_bucket_location, {}),
            (client.list_multipart_uploads, {}),
            (client.delete_objects, {"Delete": {"Objects": [{"Key": "k"}]}}),
            (client.get_object_acl, {"Key": "k"}),
            (client.put_object_tagging, {"Key": "k", "Tagging": {"TagSet": []}}),
            (client.get_object, {"Key": "k", "VersionId": "1"}),
        ):
            status, _ = await self.refusal(call, Bucket="storage", **more)
            self.assertIn(status, (405, 501), call)
        listed = await self.refusal(client.list_buckets)
        self.assertEqual(listed[0], 404)
        url = client.generate_presigned_url("get_object", {"Bucket": "storage", "Key": "k"})
        status = await deferToThread(_status_of, url)
        self.assertIn(status, (403, 501))
        self.assertEqual(self.keys(), [f"tenants/{A}/storage/k"])

    async def test_without_a_proof(self) -> None:
        """Neither is anything read nor changed for a tenant that is another node's; a tenant whose
        PocketBase ended has no key any more."""
        files, owner = self.files(), Owner()
        client = await self.client(files, owner)
        await self.do(client.put_object, Bucket="storage", Key="k", Body=b"1")
        owner.lost = True
        for call, more in (
            (client.get_object, {"Key": "k"}),
            (client.put_object, {"Key": "k", "Body": b"2"}),
            (client.delete_object, {"Key": "k"}),
            (client.list_objects_v2, {}),
        ):
            refused = await self.refusal(call, Bucket="storage", **more)
            self.assertEqual(refused, (503, "ServiceUnavailable"))
        got = self.real.get_object(Bucket=self.bucket, Key=f"tenants/{A}/storage/k")
        self.assertEqual(got["Body"].read(), b"1")
        owner.lost = False
        files.close(owner)
        refused = await self.refusal(client.get_object, Bucket="storage", Key="k")
        self.assertEqual(refused[0], 403)

    async def test_quota(self) -> None:
        """What does not fit is refused with 507 before its body is read, parts and copies count,
        a deletion makes room; filling and deleting in turns ends at twice the quota."""
        files = self.files()
        client = await self.client(files, Owner(max_file_bytes=1000))
        put = client.put_object
        await self.do(put, Bucket="storage", Key="a", Body=b"x" * 600)
        refused = await self.refusal(put, Bucket="storage", Key="b", Body=b"x" * 500)
        self.assertEqual(refused, (507, "QuotaExceeded"))
        source = {"Bucket": "storage", "Key": "a"}
        refused = await self.refusal(
            client.copy_object, Bucket="storage", Key="b", CopySource=source
        )
        self.assertEqual(refused, (507, "QuotaExceeded"))
        made = await self.do(client.create_multipart_upload, Bucket="storage", Key="m")
        where = {"Bucket": "storage", "Key": "m", "UploadId": made["UploadId"]}
        await self.do(client.upload_part, **where, PartNumber=1, Body=b"x" * 300)
        self.assertEqual(files.used_bytes(A), 900)
        refused = await self.refusal(client.upload_part, **where, PartNumber=2, Body=b"x" * 300)
        self.assertEqual(refused, (507, "QuotaExceeded"))
        await self.do(client.abort_multipart_upload, **where)
        await self.do(client.delete_object, Bucket="storage", Key="a")
        self.assertEqual(files.used_bytes(A), 0)
        await self.do(put, Bucket="storage", Key="b", Body=b"x" * 900)
        await self.do(client.delete_object, Bucket="storage", Key="b")
        refused = await self.refusal(put, Bucket="storage", Key="c", Body=b"x" * 900)
        self.assertEqual(refused, (507, "QuotaExceeded"))
        self.check_before_pocketbase(files)
        # Another life of the tenant counts the same.
        client = await self.client(files, Owner(max_file_bytes=1000))
        await self.do(client.put_object, Bucket="storage", Key="d", Body=b"x" * 100)
        self.assertEqual(files.used_bytes(A), 100)

    def check_before_pocketbase(self, files: Files) -> None:
        """A form that is known not to fit is refused at the front door; what may fit, or brings no
        files, is not; nor is a tenant's whose files are not known."""
        form, json = b"multipart/form-data; boundary=b", b"application/json"
        for tenant, kind, size, full in (
            (A, form, FORM_BYTES + 10_000, True),
            (A, form, FORM_BYTES, False),
            (A, json, FORM_BYTES + 10_000, False),
            (B, form, FORM_BYTES + 10_000, False),
        ):
            fields = ((b"Content-Type", kind),)
            head = RequestHead(b"POST", b"/api", b"a", fields, size, False, "127.0.0.1")
            if full:
                self.assertRaises(StorageFull, files.check_upload, tenant, head)
            else:
                files.check_upload(tenant, head)

    async def test_many_at_once(self) -> None:
        """More requests than may be at work wait for their turn, and all are answered."""
        client = await self.client(self.files(), Owner())
        puts = [
            deferToThread(client.put_object, Bucket="storage", Key=f"k{n}", Body=b"x" * n)
            for n in range(60)
        ]
        results = await DeferredList(puts, fireOnOneErrback=True)
        self.assertEqual(len(results), 60)
        self.assertEqual(len(self.keys()), 60)


def _status_of(url: str) -> int:
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
