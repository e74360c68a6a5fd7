"""The registry of one member, with the membership as of its index.

What holds: both are as of the last entry applied, so every member says the same at the same index.
It applies nothing by itself: ``raft_member`` does, in log order.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from pbcluster.controlplane.registry import Registry
from pbcluster.raft import ConfState, MemberId
from pbcluster.records import MemberRecord


class ReplicatedRegistry:
    """See the module. :ivar id: of this member."""

    def __init__(self, member: MemberId, base_domain: str) -> None:
        self.id = member
        self._registry = Registry(base_domain)
        self._conf = ConfState()

    @property
    def registry(self) -> Registry:
        """Applied state; another object after a snapshot came in."""
        return self._registry

    @property
    def conf(self) -> ConfState:
        """The membership as of :attr:`registry`'s index."""
        return self._conf

    @property
    def votes(self) -> bool:
        """See :class:`Consensus`."""
        return self.id in self._conf.voters

    def members(self) -> tuple[MemberRecord, ...]:
        """See :class:`Consensus`."""
        found = [self._registry.roster.member(voter) for voter in self._conf.voters]
        return tuple(record for record in found if record) if all(found) else ()

    def load(self, data: bytes) -> Registry:
        """The registry in a snapshot, in any thread. :raises ValueError: it is none."""
        try:
            return Registry.from_bytes(self._registry.base_domain, data)
        except msgspec.DecodeError as error:
            raise ValueError(f"it holds no registry: {error}") from None

    def image(self) -> Callable[[], bytes]:
        """The registry as it is now."""
        image = self._registry.image()
        # The interpreter is the reactor's as soon as it wants it.
        return lambda: image.to_bytes(lambda: time.sleep(0))
