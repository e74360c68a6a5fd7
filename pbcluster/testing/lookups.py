"""Asks members for routes as a gateway does, and tells what came: for histories.

One question at a time to one member, with the first gateway's key. An answer that comes too late is
recognised by its request id and thrown away. A question whose session is lost is given up at once,
as a gateway does, which asks another member then.
"""

from __future__ import annotations

import itertools
import time

import zmq

from pbcluster import wire
from pbcluster.cli.layout import ClusterDir, Plan
from pbcluster.errors import PBClusterError
from pbcluster.testing.dealer import dealer
from pbcluster.testing.histories import MISSING, OK, UNKNOWN

#: A member that is behind ``min_epoch`` waits for it as long as this allows.
TIMEOUT_S = 2.0
#: So often it is looked whether the session is still there.
LOOK_MS = 10


class Lookups:
    """A socket to each member, for one thread."""

    def __init__(self, where: ClusterDir, plan: Plan) -> None:
        self._cluster_id = plan.cluster_id
        self._gateway = plan.of("gateway")[0].id
        self._context = zmq.Context()
        self._numbers = itertools.count(1, 2)
        self._sockets = {
            member.id: dealer(self._context, where, plan, member.id, "requests", name=self._gateway)
            for member in plan.of("member")
        }

    def ask(self, member: str, name: str, min_epoch: int) -> tuple[str, int]:
        """The route of the tenant ``name``.

        :returns: ``ok`` and its epoch; or ``missing``; or ``unknown``: no answer, or a refusal.
        """
        number = next(self._numbers)
        body = wire.LookupRoute(name=name, min_epoch=min_epoch)
        envelope = wire.Envelope(
            self._cluster_id, self._gateway, number, round(TIMEOUT_S * 1000), "", body
        )
        try:
            self._sockets[member].send(wire.encode(envelope), zmq.NOBLOCK)
        except zmq.Again:
            return UNKNOWN, 0
        answer = self._answer(self._sockets[member], number)
        if isinstance(answer, wire.RouteFound):
            return OK, answer.route.epoch
        missing = isinstance(answer, wire.ErrorReply) and answer.code == "not_found"
        return (MISSING if missing else UNKNOWN), 0

    @staticmethod
    def _answer(socket: zmq.Socket[bytes], number: int) -> wire.Body | None:
        until = time.monotonic() + TIMEOUT_S
        while time.monotonic() < until:
            if not socket.poll(LOOK_MS):
                if not socket.poll(0, zmq.POLLOUT):
                    return None  # with IMMEDIATE: there is no session
                continue
            try:
                envelope = wire.decode(socket.recv())
            except PBClusterError:
                continue
            if envelope.request_id == number:
                return envelope.body
        return None

    def close(self) -> None:
        """End the sockets."""
        self._context.destroy(linger=0)
