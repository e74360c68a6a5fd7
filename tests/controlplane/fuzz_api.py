"""The admin API held against its OpenAPI document by schemathesis: every operation, every role.

``python -m tests.controlplane.fuzz_api --examples 200`` is the long form (``make fuzz-api``);
``test_openapi`` runs a short one. The API runs in this process, over real HTTP, before a member
without sockets and disk and stand-ins for nodes; schemathesis is a process of its own. The seed is
fixed: what fails once fails again.
"""

import argparse
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet import task
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from pbcluster import authority
from pbcluster.controlplane import admin_auth, membership
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.admin_api import AdminAPI
from pbcluster.controlplane.admin_auth import AdminAuth
from pbcluster.controlplane.executor import utc_now
from pbcluster.controlplane.service import listen
from pbcluster.records import Role
from tests.controlplane.lease_world import World

ADMIN_TOKEN = "the-admin-token"
#: No token at all: everything is refused but what anybody may ask.
NOBODY = "none"
ROLES = (*(role.value for role in Role), NOBODY)
SEED = 20261126
#: What a right request may be answered: the members are one, and it has no other to hand over to.
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "422"]
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "409", "414", "422", "431"]
"""


class Served:
    """The API of a world, on a free port."""

    def __init__(self, reactor: Any) -> None:
        self.world = world = World(1, nodes=2, tenants=2, capacity=1000)
        self.tokens = {Role.ADMIN.value: ADMIN_TOKEN, NOBODY: ""}
        self._ticking = task.LoopingCall(world.run_for, 0.02)
        self._ticking.start(0.004)
        for number, role in enumerate((Role.OPERATOR, Role.VIEWER)):
            self.tokens[role.value] = token = f"apitoken_{number}.secret"
            made = c.CreateApiToken(
                utc_now(),
                f"apitoken_{number}",
                role.value,
                role,
                hashlib.sha256(token.encode()).digest(),
                "admin",
                utc_now() + timedelta(days=1),
            )
            Deferred.fromCoroutine(world.consensus.propose(made))
        world.run_for(1.0)
        api = AdminAPI(
            world.clock,
            world.consensus,
            world.liveness,
            world.planner,
            world.executor,
            world.requests,
            AdminAuth(
                hashlib.sha256(ADMIN_TOKEN.encode()).hexdigest(),
                lambda: world.consensus.registry.api_tokens,
            ),
            maybeDeferred,
            group=membership.Membership(world.clock, world.consensus, utc_now),
            cluster_id="cluster_1",
            migrating=world.migrating,
            authority=authority.new("cluster_1", utc_now()),
        )
        self._port = listen(reactor, ("127.0.0.1", 0), api, "admin-listen")
        self.url = f"http://127.0.0.1:{self._port.getHost().port}"

    async def close(self) -> None:
        await maybeDeferred(self._port.stopListening)
        self._ticking.stop()
        self.world.close()


class _Child(ProcessProtocol):
    def __init__(self, tell: Callable[[bytes], object]) -> None:
        self.ended: Deferred[int] = Deferred()
        self.output = b""
        self._tell = tell

    def outReceived(self, data: bytes) -> None:
        self.output += data
        self._tell(data)

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        code = reason.value.exitCode if reason.check(ProcessTerminated) else 0
        self.ended.callback(1 if code is None else code)


async def hold(
    reactor: Any,
    served: Served,
    role: str,
    *,
    examples: int,
    phases: str,
    further: tuple[str, ...] = (),
    tell: Callable[[bytes], object] = lambda data: None,
) -> tuple[int, str]:
    """Ask as ``role``; exit status (0: all checks passed) and output."""
    with tempfile.TemporaryDirectory() as home:
        config = Path(home, "schemathesis.toml")
        config.write_text(CONFIG)
        arguments = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config)]
        arguments += ["run", f"{served.url}/api/cp/openapi.json", "--checks=all", "--no-color"]
        arguments += [f"--seed={SEED}", f"--max-examples={examples}", f"--phases={phases}"]
        arguments += ["--continue-on-failure", "--request-timeout=20", "--warnings=off"]
        arguments += ["--generation-database=none", *further]
        if served.tokens[role]:
            arguments += ["-H", f"Authorization: Bearer {served.tokens[role]}"]
        child = _Child(tell)
        # Wrong tokens are part of the checks: their bound would hide what they are answered.
        with (
            mock.patch.object(admin_auth, "MAX_FAILURES", 10**9),
            mock.patch("pbcluster.controlplane.placement.RESERVE", 0.0, create=True),
        ):
            reactor.spawnProcess(child, sys.executable, arguments, env=dict(os.environ), path=home)
            status = await child.ended
    return status, child.output.decode("utf-8", "replace")


async def _main(reactor: Any, examples: int, roles: tuple[str, ...], phases: str) -> None:
    failed = []
    for role in roles:
        served = Served(reactor)
        print(f"== {role}", flush=True)
        try:
            status, _ = await hold(
                reactor,
                served,
                role,
                examples=examples,
                phases=phases,
                tell=lambda data: (sys.stdout.buffer.write(data), sys.stdout.flush()),
            )
        finally:
            await served.close()
        if status:
            failed.append(role)
    if failed:
        raise SystemExit(f"the API is not as its document says, asked by: {', '.join(failed)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--roles", default=",".join(ROLES))
    parser.add_argument("--phases", default="examples,coverage,fuzzing,stateful")
    given = parser.parse_args()
    task.react(_main, (given.examples, tuple(given.roles.split(",")), given.phases))
