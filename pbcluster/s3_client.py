"""How a boto3 client of one bucket is made, and what its answers mean in our words.

For the nodes, whose calls run in threads (``pbcluster.node.s3``), and for the command line, which
waits (``pbcluster.cli.bucket``). No call is ever repeated inside, each ends by its timeouts, and
"it was refused" (:class:`PreconditionFailed`, :class:`S3Refused`) is told apart from "nobody knows"
(:class:`~pbcluster.errors.S3Unavailable`). No error and no repr holds the credentials.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import attrs
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    ParamValidationError,
)

from pbcluster.errors import Conflict, S3Unavailable

T = TypeVar("T")

CONNECT_TIMEOUT_S = 2.0
READ_TIMEOUT_S = 5.0
#: Larger objects than this are not ours: owner.json, READY and generations have some hundred bytes.
MAX_OBJECT_BYTES = 1024 * 1024
#: Pages of 1000 keys in one listing; beyond it something is wrong, and memory is not endless.
MAX_PAGES = 200


class PreconditionFailed(Conflict):
    """The object is not what the condition of a PUT says; nothing was written."""

    code = "precondition_failed"


class S3Refused(S3Unavailable):
    """S3 answered that it will not do this: credentials, permissions, bucket or request.

    ``data["s3_status"]`` and ``data["s3_code"]`` are what S3 said, where it did.
    """

    code = "s3_refused"


@attrs.frozen(kw_only=True)
class S3Address:
    """Where the bucket is, and with which keys.

    :ivar endpoint: ``http(s)://HOST:PORT``, without a path.
    """

    endpoint: str
    bucket: str
    region: str = "us-east-1"
    access_key: str = attrs.field(repr=False)
    secret_key: str = attrs.field(repr=False)


def new_client(
    address: S3Address, connections: int = 1, *, read_timeout_s: float = READ_TIMEOUT_S
) -> Any:
    """A boto3 client; opens no connection yet.

    :param connections: that are kept open. :param read_timeout_s: silence of S3's in a call.
    """
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=read_timeout_s,
        retries={"total_max_attempts": 1},
        max_pool_connections=connections,
        s3={"addressing_style": "path", "payload_signing_enabled": True},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        parameter_validation=False,
        proxies={},
        user_agent_extra="pbcluster",
    )
    return _session().client(
        "s3",
        endpoint_url=address.endpoint,
        config=config,
        aws_access_key_id=address.access_key,
        aws_secret_access_key=address.secret_key,
        region_name=address.region,
    )


@functools.cache
def _session() -> Any:
    """boto3's description of S3, read once; without credentials."""
    import boto3  # late: it takes 0.1 s, and most commands of the command line need no S3

    return boto3.session.Session()


def translated(method: str, key: str, call: Callable[[], T]) -> T:
    """Run ``call``, which blocks; botocore's errors become ours.

    :raises PreconditionFailed, S3Refused, S3Unavailable: see the module.
    """
    try:
        return call()
    except ClientError as error:
        refuse(method, key, status_of(error), code_of(error))
    except (HTTPClientError, OSError) as error:
        raise S3Unavailable(f"S3 did not answer {method} {key}: {type(error).__name__}") from None
    except ParamValidationError as error:
        raise S3Refused(f"botocore refuses {method} {key}: {type(error).__name__}") from None
    except BotoCoreError as error:
        raise S3Unavailable(f"{method} {key} failed: {type(error).__name__}") from None


def refuse(method: str, key: str, status: int, code: str) -> NoReturn:
    """Raise what an answer means that is no success.

    :param status: of HTTP. :param code: S3's own word, empty if it said none.
    """
    if status == 412 or code == "ConditionalRequestConflict":
        raise PreconditionFailed(f"{method} {key}: the object is not what was expected") from None
    told = f"S3 answered {method} {key} with {status} {code}"
    if status == 403:
        why = f"{told}: check the S3 keys and what they may do"
        raise S3Refused(why, s3_status=status, s3_code=code) from None
    if code == "NoSuchBucket":
        # Not final: whoever starts S3 makes the bucket a moment later.
        raise S3Unavailable(f"{told}: the bucket does not exist; create it") from None
    if 400 <= status < 500 and status not in (408, 409, 429):
        raise S3Refused(told, s3_status=status, s3_code=code) from None
    raise S3Unavailable(told) from None


def status_of(error: ClientError) -> int:
    """The HTTP status that S3 answered, 0 if there is none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def code_of(error: ClientError) -> str:
    """S3's own word for what is wrong."""
    return str(error.response.get("Error", {}).get("Code", ""))
