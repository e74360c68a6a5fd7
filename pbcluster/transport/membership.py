"""What a process knows of who the control plane's members are. Pure.

Answers to ``ListMembers`` come in; what is worth doing about them comes out. The rules:

* An answer with no members says that nothing is known yet: what the settings say stays.
* An answer older than the newest one is ignored: it came from a member that is behind.
* A record that cannot be used is left out and the reason given; the others are used. If none can,
  everything stays as it is.
* A broadcast may be ahead of what the asked member has applied: then it is asked again soon, but
  not for ever, since after a restore of the control plane its index may never come.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import attrs

from pbcluster.config import Peer
from pbcluster.errors import ConfigError
from pbcluster.records import MemberRecord
from pbcluster.transport.addresses import MemberAddress, connectable
from pbcluster.wire import Members

#: Groups have 1 to 7 members, a few more while they are replaced; more means a mistake.
MAX_MEMBERS = 32
#: Questions in a row for what a broadcast told of; then the next regular one is waited for.
MAX_HASTY = 10


@attrs.frozen
class Usable:
    """A member that one can connect to.

    :ivar peer: it and its key (empty: that of the peers file, or plain sockets).
    """

    peer: Peer
    requests: MemberAddress
    broadcasts: MemberAddress


def read_record(record: MemberRecord) -> Usable:
    """What ``record`` means.

    :raises ConfigError: an endpoint is none that one can connect to, or the id is none.
    """
    return Usable(
        Peer(record.id, "member", record.curve_public),
        connectable(record.requests, record.id),
        connectable(record.broadcasts, record.id),
    )


class Membership:
    """What the answers so far said.

    :ivar index: of the newest answer; -1: none yet.
    """

    def __init__(self, ids: Collection[str]) -> None:
        """
        :param ids: of the members that the settings name.
        """
        self.index = -1
        self._ids = frozenset(name for name in ids if name)
        self._done: tuple[MemberRecord, ...] = ()
        self._heard = -1
        self._hasty = 0

    def news(self, answer: Members) -> tuple[MemberRecord, ...]:
        """The records to use instead of what is used now; none: leave everything as it is.

        :raises ConfigError: more members than can be.
        """
        if not answer.members or answer.index < self.index:
            return ()
        if len(answer.members) > MAX_MEMBERS:
            raise ConfigError(
                f"{len(answer.members)} members are told of; more than {MAX_MEMBERS} cannot be"
            )
        self.index = answer.index
        return () if answer.members == self._done else answer.members

    def gone(self, records: Sequence[MemberRecord]) -> list[str]:
        """Ids of those that were members and are not among ``records``."""
        return sorted(self._ids - {record.id for record in records})

    def used(self, records: Sequence[MemberRecord], *, all_of_them: bool) -> None:
        """``records`` are in use now; unless ``all_of_them`` are, they are news the next time."""
        self._ids = frozenset(record.id for record in records)
        self._done = tuple(records) if all_of_them else ()

    def changed(self, index: int) -> None:
        """A broadcast said that the members changed at ``index``."""
        if index > self._heard:
            self._heard, self._hasty = index, 0

    def is_behind(self) -> bool:
        """Whether it is worth asking at once."""
        return self.index < self._heard and self._hasty < MAX_HASTY

    def asked(self) -> None:
        """A question is over, answered or not."""
        self._hasty += 1
