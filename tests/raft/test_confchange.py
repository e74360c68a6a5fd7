"""Membership changes as values."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.errors import Conflict
from pbcluster.raft import ConfigAction, ConfigChange, ConfigStep, ConfState
from pbcluster.raft.confchange import MAX_MEMBERS, apply_change
from pbcluster.raft.messages import decode_change, encode_change

ABC = ConfState(("a", "b", "c"))
SIGNS = {"+": ConfigAction.ADD_LEARNER, "^": ConfigAction.PROMOTE, "-": ConfigAction.REMOVE}


def change(*steps: str) -> ConfigChange:
    return ConfigChange(tuple(ConfigStep(SIGNS[step[0]], step[1:]) for step in steps))


class ApplyTests(SynchronousTestCase):
    def test_a_learner_changes_no_quorum(self) -> None:
        """It is added, promoted by one voter more, removed again: no joint configuration."""
        conf = apply_change(ABC, change("+d"))
        self.assertEqual(conf, ConfState(("a", "b", "c"), (), ("d",)))
        conf = apply_change(conf, change("^d"))
        self.assertEqual(conf, ConfState(("a", "b", "c", "d")))
        self.assertEqual(apply_change(conf, change("-d")), ABC)

    def test_several_voters_change_by_joint_consensus(self) -> None:
        """Both memberships until it is left; then the new one."""
        start = ConfState(("a", "b", "c"), (), ("d",))
        joint = apply_change(start, change("^d", "-a"))
        self.assertEqual(joint, ConfState(("b", "c", "d"), ("a", "b", "c")))
        self.assertTrue(joint.joint)
        self.assertEqual(apply_change(joint, ConfigChange()), ConfState(("b", "c", "d")))

    def test_a_demoted_voter_becomes_a_learner_at_the_end(self) -> None:
        """As long as it votes in the old half it is no learner."""
        joint = apply_change(ABC, change("+a", "-b"))
        self.assertEqual(joint, ConfState(("c",), ("a", "b", "c"), (), ("a",)))
        self.assertEqual(joint.members(), ("a", "b", "c"))
        self.assertEqual(apply_change(joint, ConfigChange()), ConfState(("c",), (), ("a",)))

    def test_demotion_of_one_is_simple(self) -> None:
        """One voter less needs no joint configuration."""
        self.assertEqual(apply_change(ABC, change("+a")), ConfState(("b", "c"), (), ("a",)))

    def test_what_is_refused(self) -> None:
        """Strangers promoted or removed, doubles, nobody left, too many, and two at a time."""
        joint = ConfState(("a",), ("b",))
        many = ConfState(tuple(f"m{i:02}" for i in range(MAX_MEMBERS)))
        cases = [
            (ABC, change("^d")),
            (ABC, change("^a")),
            (ABC, change("-d")),
            (ABC, change("+")),
            (ABC, change("-a", "-b", "-c")),
            (ABC, ConfigChange()),
            (joint, change("+c")),
            (many, change("+x")),
            (ConfState(("a",), (), ("b",)), change("+b")),
        ]
        for conf, wanted in cases:
            self.assertRaises(Conflict, apply_change, conf, wanted)

    def test_a_change_survives_the_log(self) -> None:
        """Encoded and decoded it is the same."""
        wanted = ConfigChange(change("+d", "-a").steps, b"address")
        self.assertEqual(decode_change(encode_change(wanted)), wanted)
