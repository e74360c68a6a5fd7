"""When the gateway turns new requests away."""

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.gateway.shedding import Overload, Shedding


class SheddingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.shedding = Shedding(max_lag_s=0.1, max_share=0.8)

    def after(self, *late_s: float) -> Overload:
        for each in late_s:
            self.shedding.late(each)
        return self.shedding.state

    def test_lag(self) -> None:
        """Lateness that lasts sheds; it ends below half of the limit, not at it."""
        self.assertIs(self.after(*[0.09] * 50), Overload.NONE)
        self.assertIs(self.after(*[0.12] * 50), Overload.LAG)
        self.assertIs(self.after(*[0.06] * 50), Overload.LAG)
        self.assertIs(self.after(*[0.04] * 50), Overload.NONE)

    def test_one_pause(self) -> None:
        """One pause, however long, turns nobody away; a second one does."""
        self.assertIs(self.after(3600.0), Overload.NONE)
        self.assertIs(self.after(3600.0), Overload.LAG)

    def test_soon_over(self) -> None:
        """A second after the last lateness all are served."""
        self.after(*[5.0] * 100)
        self.assertIs(self.after(*[0.0] * 10), Overload.NONE)

    def test_early(self) -> None:
        """A clock that went back is not less than on time."""
        self.assertIs(self.after(-1000.0, 0.0), Overload.NONE)
        self.assertEqual(self.shedding.lag_s, 0.0)

    def test_descriptors(self) -> None:
        """Over 80 % sheds, until fewer than 72 % are in use; it tells of changes only."""
        told = [self.shedding.descriptors(used, 100) for used in (80, 81, 75, 73, 71, 80)]
        self.assertEqual(told, [False, True, False, False, True, False])

    def test_both(self) -> None:
        """Without descriptors connections must be closed, so that word is the stronger one."""
        self.after(*[1.0] * 9)
        self.shedding.descriptors(99, 100)
        self.assertIs(self.shedding.state, Overload.DESCRIPTORS)
        self.assertIs(self.after(*[0.0] * 20), Overload.DESCRIPTORS)
        self.shedding.descriptors(0, 100)
        self.assertIs(self.shedding.state, Overload.NONE)

    def test_off(self) -> None:
        """0 is never."""
        self.shedding = Shedding(max_lag_s=0.0, max_share=0.0)
        self.after(*[9.0] * 9)
        self.shedding.descriptors(100, 100)
        self.shedding.descriptors(1, 0)
        self.assertIs(self.shedding.state, Overload.NONE)
