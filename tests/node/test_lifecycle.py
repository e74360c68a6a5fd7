"""The states of a tenant."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.node.lifecycle import (
    CRASH_WINDOW_S,
    MAX_CRASHES,
    TRANSITIONS,
    Crashes,
    Event,
    Life,
    State,
)


class LifeTests(SynchronousTestCase):
    def test_whole_life(self) -> None:
        """The way through all states, there and back."""
        life = Life()
        way = (
            (Event.LOAD_WANTED, State.CLAIMING),
            (Event.CLAIM_WON, State.RESTORING),
            (Event.COPY_READY, State.STARTING),
            (Event.WORKLOAD_ANSWERED, State.SYNCING),
            (Event.SYNCED, State.ACTIVE),
            (Event.STOP_WANTED, State.DRAINING),
            (Event.DRAINED, State.STOPPING),
            (Event.STOPPED, State.ABSENT),
        )
        for event, state in way:
            self.assertIs(life.happened(event), state)

    def test_warm_copy_skips_the_restore(self) -> None:
        """A trusted copy starts at once."""
        life = Life(State.CLAIMING)
        self.assertIs(life.happened(Event.RESUMED), State.STARTING)

    def test_everything_else_is_refused(self) -> None:
        """Each pair that stands not in the table raises and changes nothing."""
        for state in State:
            for event in Event:
                life = Life(state)
                if (state, event) in TRANSITIONS:
                    self.assertIs(life.happened(event), TRANSITIONS[(state, event)])
                else:
                    self.assertRaises(ValueError, life.happened, event)
                    self.assertIs(life.state, state)

    def test_every_state_is_reached_and_left(self) -> None:
        """No state is a dead end, none is unreachable."""
        self.assertEqual({state for state, _ in TRANSITIONS}, set(State))
        self.assertEqual(set(TRANSITIONS.values()), set(State))

    def test_cause_is_kept_until_active(self) -> None:
        """Why it failed is known until it serves again."""
        life = Life(State.RESTORING)
        life.happened(Event.FAILED, "the disk is full")
        life.happened(Event.LOAD_WANTED)
        self.assertEqual(life.cause, "the disk is full")
        life.state = State.SYNCING
        life.happened(Event.SYNCED)
        self.assertEqual(life.cause, "")


class CrashTests(SynchronousTestCase):
    def test_backoff_doubles_then_gives_up(self) -> None:
        """Each restart waits longer; too many within the window are a loop."""
        crashes = Crashes()
        waits = [crashes.add(float(n)) for n in range(MAX_CRASHES)]
        self.assertEqual(waits, [0.1, 0.2, 0.4, 0.8, 1.6])
        self.assertIsNone(crashes.add(float(MAX_CRASHES)))

    def test_rare_crashes_are_forgotten(self) -> None:
        """A crash now and then always restarts quickly."""
        crashes = Crashes()
        for n in range(20):
            self.assertEqual(crashes.add(n * CRASH_WINDOW_S), 0.1)
