"""What operators ask of a node's tenants, on fakes."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.errors import NotFound, OwnershipLost, ProcessFailed
from pbcluster.node.arrivals import Loading
from pbcluster.node.lifecycle import State
from pbcluster.node.operators import MAX_LIFETIME_S, Operators
from pbcluster.node.prover import NoProof
from pbcluster.node.tenant_logs import TenantLogs
from pbcluster.testing.node_fakes.s3 import FakeS3
from pbcluster.transport.interfaces import Asked
from pbcluster.wire import Login, LogLines, MintLogin, ReadLog
from tests.node.harness import NodeHarness, T, U, assignment

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJpZCI6IngifQ.c2lnbmF0dXJl"
FOUND = {"found": True, "id": "abc", "email": "me@example.com", "token": TOKEN}


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.node = NodeHarness(self.clock, FakeS3(self.clock))
        self.logs = TenantLogs("life")
        self.operators = Operators(self.node.tenants, self.logs, self.clock)
        self.node.assign(assignment())

    def login(self, email: str = "", *, epoch: int = 1, seconds: int = 60) -> Deferred[Login]:
        asked = Asked("member_1", "", 1012.0, 1000.0)  # by another clock than ours
        body = MintLogin(T, epoch, email, seconds)
        return Deferred.fromCoroutine(self.operators.login(asked, body))

    def answers(self, answer: dict[str, Any]) -> None:
        self.node.load()
        self.node.lease()
        self.node.fake.workloads.running[T].replies["login"] = answer


class LoginTests(Case):
    def test_of_a_tenant_that_runs(self) -> None:
        """PocketBase is asked for what was wanted; its answer comes back."""
        self.answers(FOUND)
        login = self.successResultOf(self.login("me@example.com"))
        self.assertEqual(login, Login("me@example.com", "abc", TOKEN))
        self.assertNotIn(TOKEN, repr(login))
        asked = self.node.fake.workloads.running[T].asked
        self.assertEqual(asked, [("login", {"email": "me@example.com", "seconds": 60})])

    def test_wakes_the_tenant(self) -> None:
        """A tenant that sleeps is loaded first, and counts as used while it is asked."""
        self.node.fake.workloads.replies["login"] = FOUND
        waiting = self.login()
        self.node.run(1.0)
        self.assertEqual(self.successResultOf(waiting).token, TOKEN)
        self.assertEqual(self.node.tenant().state, State.ACTIVE)
        self.assertEqual(self.node.tenants.cache.open_requests(T), 0)
        self.assertEqual(self.node.tenants.usage()[0].request_count, 1)

    def test_not_in_time(self) -> None:
        """A tenant that cannot start is waited for until the question's deadline, no longer."""
        self.node.fake.workloads.start_delay_s = 60.0
        waiting = self.login()
        self.node.run(11.0)
        self.assertNoResult(waiting)
        self.node.run(1.5)
        self.failureResultOf(waiting, Loading)

    def test_of_another_epoch(self) -> None:
        """A tenant that is not here, or here under another epoch, is not asked."""
        self.answers(FOUND)
        error = self.failureResultOf(self.login(epoch=2), OwnershipLost).value
        self.assertEqual(error.data["epoch"], 1)
        self.node.assign()
        self.failureResultOf(self.login(), OwnershipLost)

    def test_needs_a_proof(self) -> None:
        """Without a proof of ownership nothing is minted: another node may serve the tenant."""
        self.answers(FOUND)
        self.clock.advance(10.0)
        self.node.fake.s3.faults.down = True
        self.failureResultOf(self.login(), NoProof)
        self.assertEqual(self.node.fake.workloads.running[T].asked, [])

    def test_no_such_superuser(self) -> None:
        """A name that nobody has is told by itself; no other name is."""
        self.answers({"found": False})
        told = str(self.failureResultOf(self.login("x@example.com"), NotFound).value)
        self.assertEqual(told, "the tenant has no superuser 'x@example.com'")
        told = str(self.failureResultOf(self.login(), NotFound).value)
        self.assertEqual(told, "the tenant has no superuser")

    def test_what_hooks_may_answer(self) -> None:
        """Nothing is passed on that is no token, id or address: it goes to an operator's terminal;
        and an operator's token lives an hour at most."""
        for lie in (
            {},
            {"found": True},
            FOUND | {"token": "no token"},
            FOUND | {"token": TOKEN + "\x1b[2J"},
            FOUND | {"token": ["x"]},
            FOUND | {"id": "a b"},
            FOUND | {"email": "x\n"},
            FOUND | {"email": "x" * 300},
        ):
            self.answers(lie)
            self.failureResultOf(self.login(), ProcessFailed)
        self.answers(FOUND)
        self.successResultOf(self.login(seconds=10**9))
        asked = self.node.fake.workloads.running[T].asked
        self.assertEqual(asked[-1][1]["seconds"], MAX_LIFETIME_S)


class LogTests(Case):
    def read(self, tenant: str) -> Deferred[LogLines]:
        asked = Asked("member_1", "", 1.0, 0.0)
        return Deferred.fromCoroutine(self.operators.read_log(asked, ReadLog(tenant, "", 10)))

    def test_of_own_tenants(self) -> None:
        """Lines of a tenant of this node, also while it sleeps; it is not woken. Not of others."""
        self.logs.add(T, 0.0, "t", "word")
        self.logs.add(U, 0.0, "t", "of one that left")
        found = self.successResultOf(self.read(T))
        self.assertEqual(found.lines, ("t word",))
        self.assertEqual(self.node.tenant().state, State.ABSENT)
        self.failureResultOf(self.read(U), OwnershipLost)
