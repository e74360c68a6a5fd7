"""How the commands of ``join_commands`` change the registry. Pure; the invariants are the
registry's, those of tokens and processes ``join_tokens``' and ``roster``'s.
"""

from __future__ import annotations

import msgspec

from pbcluster.controlplane import join_commands as c
from pbcluster.controlplane.join_tokens import JoinTokens
from pbcluster.controlplane.outcomes import Outcome
from pbcluster.controlplane.registry_records import Change, RegistryRecords
from pbcluster.controlplane.roster import Roster
from pbcluster.errors import Conflict, NotFound
from pbcluster.records import NodeStatus

#: The broadcast that makes everybody ask anew who is there.
TOPIC = "members.changed"


class JoinChanges(RegistryRecords):
    """One method a command; each raises what refuses it, and has changed nothing then."""

    def __init__(self, base_domain: str) -> None:
        super().__init__(base_domain)
        #: The control plane's own members, and all processes that may speak to them.
        self.roster = Roster()
        self.join_tokens = JoinTokens()

    def _create_join_token(self, index: int, command: c.CreateJoinToken) -> Change:
        self.roster.check_new(command.process_id)
        if command.process_id in self._nodes:
            raise Conflict(f"{command.process_id} is a node already", field="id")
        self.join_tokens.create(command)
        return Change(Outcome(index))

    def _revoke_join_token(self, index: int, command: c.RevokeJoinToken) -> Change:
        self.join_tokens.revoke(command.token_id)
        return Change(Outcome(index))

    def _join(self, index: int, command: c.Join) -> Change:
        process, token = command.process, self.join_tokens.get(command.token_id)
        key = process.curve_public
        if token.check(command.digest, process.role, process.id, key, command.at):
            # Its place is where the first answer said, whatever it says now.
            return Change(Outcome(index))
        if command.member is not None:
            self.roster.check_new(process.id)
            self.roster.put(command.member)
        else:
            if process.id in self._nodes:
                raise Conflict(f"{process.id} is a node already", field="id")
            self.roster.check_new(process.id)
            self.roster.put_process(process)
        self.join_tokens.spend(token.id, key, command.at)
        return self._members_changed(index)

    def _set_process(self, index: int, command: c.SetProcess) -> Change:
        if not self.roster.put_process(command.process):
            return Change(Outcome(index))
        return self._members_changed(index)

    def _remove_process(self, index: int, command: c.RemoveProcess) -> Change:
        name, role = command.process_id, command.role
        if self.roster.is_former_process(name):
            return Change(Outcome(index))  # it was done already, and the answer was lost
        if role == "member":
            return self._forget_member(index, name)
        node = self._nodes.get(name) if role == "node" else None
        known = self.roster.process(name)
        if node is None and (known is None or known.role != role):
            raise NotFound(f"no {role} {name!r}")
        if self.count_of(name) and not command.force:
            raise Conflict(
                f"{name} has {self.count_of(name)} tenants: drain it first, or remove it by force "
                "(they are placed elsewhere then, as if it had died)"
            )
        self.roster.remove_process(name, role)
        self.join_tokens.forget_of(name)
        if node is None:
            return self._members_changed(index)
        self._nodes[name] = msgspec.structs.replace(
            node, removed=True, status=NodeStatus.DOWN, version=index
        )
        outcome = Outcome(index, incarnation=node.incarnation)
        return Change(outcome, topic="node.down", node_id=name)

    def _forget_member(self, index: int, name: str) -> Change:
        """Of one that is in no group: the group's changes do that for the others."""
        if self.roster.member(name) is None:
            raise NotFound(f"no member {name!r}")
        self.roster.left([name])
        self.join_tokens.forget_of(name)
        return self._members_changed(index)

    def _members_changed(self, index: int) -> Change:
        self.roster.index = index
        return Change(Outcome(index), topic=TOPIC)
