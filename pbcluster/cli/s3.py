"""Whether the cluster's own S3 serves: its bucket exists and takes an object.

SeaweedFS answers HTTP before it can store anything (its volume server registers later), so
listening is no proof. Requests are signed by botocore; its large client is not needed for three.
"""

from __future__ import annotations

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from pbcluster.cli.http import Unreachable, ask

PROBE_KEY = "pbcluster-probe"
_TIMEOUT_S = 2.0


def s3_serves(endpoint: str, bucket: str, access_key: str, secret_key: str) -> bool:
    """Make the bucket if there is none, write a small object and read it back.

    :returns: whether all that worked just now.
    """

    def signed(method: str, key: str = "", body: bytes = b"") -> tuple[int, bytes]:
        request = AWSRequest(method, f"{endpoint}/{bucket}{key and '/' + key}", data=body)
        credentials = Credentials(access_key, secret_key)
        S3SigV4Auth(credentials, "s3", "us-east-1").add_auth(request)
        sent = request.prepare()
        headers = {str(name): str(value) for name, value in sent.headers.items()}
        answer = ask(method, str(sent.url), headers=headers, body=body, timeout_s=_TIMEOUT_S)
        return answer.status, answer.body

    try:
        if signed("HEAD")[0] != 200 and signed("PUT")[0] not in (200, 409):
            return False
        written = b"pbcluster"
        return signed("PUT", PROBE_KEY, written)[0] == 200 and (
            signed("GET", PROBE_KEY) == (200, written)
        )
    except Unreachable:
        return False
