"""Which worker is started when, and who serves for one that is dead."""

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.gateway.crew import (
    FIRST_DELAY_S,
    LONGEST_DELAY_S,
    STEADY_AFTER_S,
    Adopt,
    Crew,
    Release,
    Start,
    State,
)


class CrewTests(SynchronousTestCase):
    def crew(self, count: int = 3) -> Crew:
        """All of them serve."""
        crew = Crew(count)
        crew.begin()
        for number in crew.numbers:
            crew.became_ready(number, 0.0)
        return crew

    def test_begin(self) -> None:
        """All are started at once; the first that serves adopts the others' shares, each other one
        takes its own back."""
        crew = Crew(3)
        self.assertEqual(crew.begin(), [Start(1, 0.0), Start(2, 0.0), Start(3, 0.0)])
        self.assertEqual(crew.became_ready(2, 1.0), [Adopt(2, 1), Adopt(2, 3)])
        self.assertEqual(crew.became_ready(1, 1.1), [Release(2, 1)])
        self.assertEqual(crew.became_ready(3, 1.2), [Release(2, 3)])
        self.assertEqual(crew.ready(), [1, 2, 3])

    def test_death(self) -> None:
        """The share of a dead worker is adopted at once, before it is started again."""
        crew = self.crew()
        self.assertEqual(crew.ended(1, 5.0), [Adopt(2, 1), Start(1, FIRST_DELAY_S)])
        crew.started(1)
        self.assertEqual(crew.became_ready(1, 6.0), [Release(2, 1)])
        self.assertEqual(crew.restarts(1), 1)

    def test_death_of_a_keeper(self) -> None:
        """Who keeps a share and dies leaves two; they are shared out evenly among the living."""
        crew = self.crew(4)
        crew.ended(1, 5.0)
        effects = crew.ended(2, 6.0)
        self.assertEqual(effects, [Adopt(3, 1), Adopt(4, 2), Start(2, FIRST_DELAY_S)])

    def test_nobody_lives(self) -> None:
        """Without a living worker nothing is adopted; the first that serves adopts all."""
        crew = self.crew(2)
        crew.ended(1, 5.0)
        self.assertEqual(crew.ended(2, 5.0), [Start(2, FIRST_DELAY_S)])
        self.assertEqual(crew.became_ready(1, 6.0), [Adopt(1, 2)])

    def test_leaving(self) -> None:
        """One that is told to end by somebody is replaced at its sockets while it drains; its end
        adopts nothing more."""
        crew = self.crew(2)
        self.assertEqual(crew.leaves(1), [Adopt(2, 1)])
        self.assertEqual(crew.state(1), State.LEAVING)
        self.assertEqual(crew.ended(1, 9.0), [Start(1, FIRST_DELAY_S)])

    def test_backoff(self) -> None:
        """Each death doubles the pause up to its bound; who served for long begins anew."""
        crew = self.crew(2)
        delays = []
        for _ in range(12):
            (start,) = [e for e in crew.ended(1, 1.0) if isinstance(e, Start)]
            delays.append(start.delay_s)
        self.assertEqual(delays[:3], [FIRST_DELAY_S, 2 * FIRST_DELAY_S, 4 * FIRST_DELAY_S])
        self.assertEqual(delays[-1], LONGEST_DELAY_S)
        crew.became_ready(1, 100.0)
        effects = crew.ended(1, 100.0 + STEADY_AFTER_S)
        self.assertIn(Start(1, FIRST_DELAY_S), effects)

    def test_stop(self) -> None:
        """Once told to stop it starts and adopts nothing."""
        crew = self.crew(2)
        crew.stop()
        self.assertEqual(crew.ended(1, 5.0), [])
        self.assertEqual(crew.leaves(2), [])
