"""What every tenant of a node works with, in one value; and how coroutines are started and paused.

No part of it decides anything.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pbcluster.errors import Unavailable
from pbcluster.node.interfaces import (
    ClaimStore,
    Replication,
    TenantDirectories,
    TenantFilesDoor,
    Workloads,
)
from pbcluster.node.outages import NeverAway, Outages
from pbcluster.node.proofs import Proofs
from pbcluster.wire import Assignment, TenantReport

T = TypeVar("T")
U = TypeVar("U")
log = Logger()


class Observer(Protocol):
    """Where a tenant's figures go (``status_page.Metrics``)."""

    def loaded(self, how: str, duration_s: float) -> None:
        """A load ended well. :param how: ``warm``, ``restored`` or ``empty``."""

    def load_failed(self, cause: str) -> None:
        """A load failed. :param cause: the error's class name."""

    def synced(self, duration_s: float) -> None:
        """A sync of a group of writes succeeded."""

    def acknowledged(self, waited_s: float) -> None:
        """A write was acknowledged so long after its response arrived."""

    def withheld(self, reason: str) -> None:
        """A write was not acknowledged."""

    def proof(self, basis: str) -> None:
        """A request was judged: ``lease``, ``head`` or ``missing``."""

    def fenced(self) -> None:
        """A tenant was found to be another node's."""


class WarmCopies(Protocol):
    """Copies that were restored before their tenant came (``warming``)."""

    async def take(self, tenant_id: str, epoch: int, target: Path) -> bool:
        """Put the copy to ``target`` if it is all that the epoch's replica holds now.

        :returns: False: there is none that is; restore.
        """


class NoWarmCopies:
    """None at all."""

    async def take(self, tenant_id: str, epoch: int, target: Path) -> bool:
        """Never."""
        return False


@attrs.frozen(kw_only=True)
class NodeParts:
    """The seams and settings that all tenants of a node share.

    :ivar boottime: seconds of CLOCK_BOOTTIME. :ivar utc_now: wall clock, for what people read.
    :ivar new_nonce: a fresh random word. :ivar encryption_key: tenant id → PocketBase's settings
        key (32 characters). :ivar auxiliary: whether auxiliary.db is replicated, too.
    :ivar report: tells the control plane, repeated until it answers.
    :ivar files: where uploaded files are kept; None: on the disk.
    """

    node_id: str
    clock: IReactorTime
    boottime: Callable[[], float]
    utc_now: Callable[[], datetime]
    new_nonce: Callable[[], str]
    encryption_key: Callable[[str], str]
    claims: ClaimStore
    replication: Replication
    workloads: Workloads
    directories: TenantDirectories
    proofs: Proofs
    report: Callable[[TenantReport], None]
    observer: Observer
    files: TenantFilesDoor | None = None
    warm: WarmCopies = attrs.field(factory=NoWarmCopies)
    auxiliary: bool = False
    outages: Outages = attrs.field(factory=NeverAway)


def tenant_report(
    parts: NodeParts,
    assignment: Assignment,
    outcome: str,
    observed_epoch: int = 0,
    detail: str = "",
) -> TenantReport:
    """What became of an assignment; its incarnation is filled in when it is sent."""
    return TenantReport(
        node_id=parts.node_id,
        incarnation=0,
        tenant_id=assignment.tenant_id,
        epoch=assignment.epoch,
        outcome=outcome,
        observed_epoch=observed_epoch,
        detail=detail,
    )


def spawn(coroutine: Coroutine[Deferred[Any], Any, Any], what: str) -> Deferred[None]:
    """Run ``coroutine`` on its own; a fault in it is logged, never lost.

    :returns: fires with None when it ended, however it ended. Cancelling it ends a coroutine that
        is in a :func:`pause`.
    """

    def failed(failure: Any) -> None:
        if failure.check(CancelledError):
            return
        log.failure("{what} failed", failure=failure, what=what)

    started: Deferred[Any] = Deferred.fromCoroutine(coroutine)
    started.addErrback(failed)
    return started.addCallback(lambda _: None)


async def tolerate(step: Coroutine[Deferred[Any], Any, T], whose: str) -> T | None:
    """Do one step of an end: what follows it must happen in any case.

    :returns: its result; None if it failed, and then the log says why.
    """
    try:
        return await step
    except Exception as error:
        log.warn("{whose}: at its end: {error}", whose=whose, error=error)
        return None


async def pause(clock: IReactorTime, seconds: float) -> None:
    """Wait ``seconds`` of the clock."""
    waiting: Deferred[None] = Deferred()
    call = clock.callLater(seconds, waiting.callback, None)
    try:
        await waiting
    finally:
        if call.active():
            call.cancel()


async def both(
    first: Coroutine[Deferred[Any], Any, T], second: Coroutine[Deferred[Any], Any, U]
) -> tuple[T, U]:
    """Run two at once and wait for both; the first's error is raised before the second's."""
    one: Deferred[T] = Deferred.fromCoroutine(first)
    two: Deferred[U] = Deferred.fromCoroutine(second)
    settled: list[Any] = []
    for each in (one, two):
        caught: Deferred[Any] = each.addBoth(lambda result: (result,))
        settled.append((await caught)[0])
    for result in settled:
        if hasattr(result, "raiseException"):
            result.raiseException()
    return settled[0], settled[1]


class Changes:
    """Wakes everybody who waits for the next change of something; bounded.

    :ivar limit: waiters at once; one more is refused with :class:`Unavailable`.
    """

    def __init__(self, clock: IReactorTime, limit: int) -> None:
        self._clock = clock
        self._limit = limit
        self._waiters: list[Deferred[bool]] = []

    def __len__(self) -> int:
        return len(self._waiters)

    def fire(self) -> None:
        """Something changed."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(True)

    async def wait(self, timeout_s: float) -> bool:
        """Wait for the next change.

        :returns: False if none came within ``timeout_s``.
        :raises Unavailable: too many wait already.
        """
        if timeout_s <= 0:
            return False
        if len(self._waiters) >= self._limit:
            raise Unavailable(f"{self._limit} requests wait for this already")
        waiter: Deferred[bool] = Deferred(self._waiters.remove)
        self._waiters.append(waiter)

        def give_up() -> None:
            self._waiters.remove(waiter)
            waiter.callback(False)

        call = self._clock.callLater(timeout_s, give_up)
        try:
            return await waiter
        finally:
            if call.active():
                call.cancel()
