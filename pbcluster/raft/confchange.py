"""Membership changes: from one configuration to the next, or an error that says why not.

A change of at most one voter is made at once (single-server change, thesis section 4.1); a larger
one enters joint consensus (paper, section 6), which is left by a change without steps. A change is
in force when it is *applied*, as in etcd; that is safe because a leader proposes the next only
after it applied the one before, so that whoever holds the next in its log knows that the one
before is committed, and does not campaign before it has applied it.

Pure: values in, values out. That a member to be promoted has caught up is checked by
:mod:`pbcluster.raft.membership`, which knows its progress.
"""

from __future__ import annotations

from pbcluster.errors import Conflict
from pbcluster.raft.messages import (
    ConfigAction,
    ConfigChange,
    ConfigStep,
    ConfState,
    MemberId,
    decode_change,
)

#: Voters and learners of one group. Each further voter costs every commit; more is a mistake.
MAX_MEMBERS = 15


def _sorted(members: set[MemberId]) -> tuple[MemberId, ...]:
    return tuple(sorted(members))


def apply_change(conf: ConfState, change: ConfigChange) -> ConfState:
    """The configuration after ``change``.

    :raises Conflict: the change does not fit ``conf``; nothing else is wrong with it.
    """
    if not change.steps:
        return _leave_joint(conf)
    if conf.joint:
        raise Conflict("the joint configuration must be left before another change")
    voters, learners = set(conf.voters), set(conf.learners)
    for step in change.steps:
        _apply_step(step, voters, learners)
    if not voters:
        raise Conflict("the change would leave no voter")
    if len(voters | learners) > MAX_MEMBERS:
        raise Conflict(f"a group has at most {MAX_MEMBERS} members")
    if len(voters.symmetric_difference(conf.voters)) <= 1:
        return ConfState(_sorted(voters), (), _sorted(learners))
    old = set(conf.voters)
    return ConfState(_sorted(voters), conf.voters, _sorted(learners - old), _sorted(learners & old))


def after(conf: ConfState, data: bytes) -> ConfState:
    """The configuration once a committed entry with the change ``data`` is applied: one that does
    not fit any more changes nothing, on every member alike."""
    try:
        return apply_change(conf, decode_change(data))
    except Conflict:
        return conf


def _apply_step(step: ConfigStep, voters: set[MemberId], learners: set[MemberId]) -> None:
    member = step.member
    if not member:
        raise Conflict("a change names no member")
    known = member in voters or member in learners
    if step.action is ConfigAction.ADD_LEARNER:
        if member in learners:
            raise Conflict(f"{member} is a learner already")
        voters.discard(member)
        learners.add(member)
    elif step.action is ConfigAction.PROMOTE:
        if member not in learners:
            what = "is a voter already" if known else "is no learner: add it as one first"
            raise Conflict(f"{member} {what}")
        learners.discard(member)
        voters.add(member)
    elif known:
        voters.discard(member)
        learners.discard(member)
    else:
        raise Conflict(f"{member} is no member")


def _leave_joint(conf: ConfState) -> ConfState:
    if not conf.joint:
        raise Conflict("there is no joint configuration to leave")
    return ConfState(conf.voters, (), _sorted({*conf.learners, *conf.learners_next}))
