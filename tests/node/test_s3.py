"""The S3 client: every answer of S3 becomes the right word."""

from __future__ import annotations

import threading
from typing import Any

from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pbcluster import s3_client
from pbcluster.errors import S3Unavailable
from pbcluster.node import s3
from pbcluster.node.s3 import PreconditionFailed, S3Address, S3Refused

ADDRESS = S3Address(
    endpoint="http://127.0.0.1:1", bucket="bucket", access_key="AKID", secret_key="hidden-word"
)


def answer(status: int, code: str) -> ClientError:
    content: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(content, "PutObject")


class Translation(SynchronousTestCase):
    def translated(self, error: Exception) -> Exception:
        def call() -> None:
            raise error

        try:
            s3_client.translated("PUT", "k", call)
        except Exception as found:
            return found
        raise AssertionError("nothing was raised")

    def test_conditions(self) -> None:
        """412 and AWS's 409 for a race both say: the condition did not hold."""
        for error in (
            answer(412, "PreconditionFailed"),
            answer(409, "ConditionalRequestConflict"),
        ):
            self.assertIsInstance(self.translated(error), PreconditionFailed)

    def test_refusals(self) -> None:
        """Wrong keys and a bad request are refusals, each with its word."""
        for error, word in (
            (answer(403, "SignatureDoesNotMatch"), "keys"),
            (answer(400, "InvalidRequest"), "400 InvalidRequest"),
        ):
            found = self.translated(error)
            self.assertIsInstance(found, S3Refused)
            self.assertIn(word, str(found))

    def test_a_missing_bucket_may_come(self) -> None:
        """A missing bucket is told, and is no final answer: somebody may be about to make it."""
        found = self.translated(answer(404, "NoSuchBucket"))
        self.assertNotIsInstance(found, S3Refused)
        self.assertIn("the bucket does not exist", str(found))

    def test_unknown_outcomes(self) -> None:
        """Faults of S3, of the network, and slow-down answers leave the outcome unknown."""
        for error in (
            answer(500, "InternalError"),
            answer(503, "SlowDown"),
            answer(429, "TooMany"),
            answer(408, "RequestTimeout"),
            EndpointConnectionError(endpoint_url="http://x"),
            ReadTimeoutError(endpoint_url="http://x"),
            ConnectionResetError(),
        ):
            found = self.translated(error)
            self.assertIsInstance(found, S3Unavailable, error)
            self.assertNotIsInstance(found, S3Refused)


class NoThreads:
    """A reactor whose threads hand their results in when the test says so."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.callLater = self.clock.callLater

    def callFromThread(self, f: Any, *args: Any) -> None:
        self.clock.callLater(0, f, *args)


class Bounds(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = NoThreads()
        self.objects = s3.S3Objects(self.reactor, ADDRESS, call_timeout_s=3)
        self.go = threading.Event()
        self.addCleanup(self.objects.stop)
        self.addCleanup(self.go.set)

    def call(self) -> Any:
        from twisted.internet.defer import Deferred

        def wait() -> str:
            self.go.wait(10)
            return "etag"

        return Deferred.fromCoroutine(self.objects._run("GET", "k", wait))

    def test_the_deadline_holds_whatever_the_thread_does(self) -> None:
        """A call fails at its deadline; the thread's late answer is dropped without a word."""
        asked = self.call()
        self.reactor.clock.advance(2.9)
        self.assertNoResult(asked)
        self.reactor.clock.advance(0.2)
        self.failureResultOf(asked, S3Unavailable)
        self.go.set()
        for _ in range(1000):
            self.reactor.clock.advance(0)
            if not self.objects._calls:
                break
            threading.Event().wait(0.005)  # for the thread, which no event of ours can announce
        self.assertEqual(self.objects._calls, 0)

    def test_too_many_calls_are_refused(self) -> None:
        """Beyond the bound a call fails at once."""
        self.patch(s3, "MAX_CALLS", 2)
        waiting = [self.call(), self.call()]
        self.failureResultOf(self.call(), S3Unavailable)
        self.reactor.clock.advance(4)
        for each in waiting:
            self.failureResultOf(each, S3Unavailable)

    def test_no_secret_in_any_repr(self) -> None:
        """Neither the address nor the client shows the secret key."""
        for thing in (ADDRESS, self.objects):
            self.assertNotIn("hidden-word", repr(thing))
            self.assertNotIn("AKID", repr(thing))
