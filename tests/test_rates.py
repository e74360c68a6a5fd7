"""Token buckets and refusals."""

import math

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.rates import MAX_RETRY_S, Refusal, TokenBucket, burst_of, over_rate

#: Seconds since the epoch, as the reactor's clock has them: the doubles are coarse there.
NOW = 1_764_000_000.0


class BucketTests(SynchronousTestCase):
    def test_table(self) -> None:
        """Clock by clock: what passes at a rate of 2 with a burst of 3."""
        bucket = TokenBucket(3, NOW)
        for at, passes, why in (
            (0.0, True, "full at the start"),
            (0.0, True, "two of three"),
            (0.0, True, "three of three"),
            (0.0, False, "empty"),
            (0.25, False, "half a token"),
            (0.5, True, "a whole one: what was refused took nothing"),
            (0.5, False, "empty again"),
            (-1000.0, False, "a clock that goes back fills nothing"),
            (-1000.0, False, "and never empties"),
            (-999.5, True, "it counts on from where it is"),
            (1e9, True, "a huge gap fills it"),
            (1e9, True, "to its brim"),
            (1e9, True, "three of three"),
            (1e9, False, "and not beyond"),
        ):
            self.assertIs(bucket.take(NOW + at, 2.0, 3.0), passes, why)

    def test_no_rate(self) -> None:
        """An endless bucket never refuses; one that nothing fills does when it is empty."""
        endless, dry = TokenBucket(math.inf, NOW), TokenBucket(1, NOW)
        for second in range(1000):
            self.assertTrue(endless.take(NOW + second, 0.0, math.inf))
        self.assertTrue(dry.take(NOW, 0.0, 1.0))
        self.assertFalse(dry.take(NOW + 1e9, 0.0, 1.0))
        self.assertEqual(dry.wait_s(0.0), math.inf)

    def test_wait(self) -> None:
        """It knows when the next token is there, and then it is."""
        bucket = TokenBucket(1, NOW)
        self.assertEqual(bucket.wait_s(0.1), 0.0)
        bucket.take(NOW, 0.1, 1.0)
        self.assertAlmostEqual(bucket.wait_s(0.1), 10.0)
        self.assertFalse(bucket.take(NOW + 9.9, 0.1, 1.0))
        self.assertTrue(bucket.take(NOW + 10.01, 0.1, 1.0))

    def test_smaller_burst(self) -> None:
        """A bucket whose burst shrinks holds no more than it."""
        bucket = TokenBucket(100, NOW)
        self.assertEqual(bucket.fill(NOW, 1.0, 5.0), 5.0)

    def test_give_back(self) -> None:
        """A token that comes back never overfills it."""
        bucket = TokenBucket(2, NOW)
        bucket.give_back(2.0)
        self.assertEqual(bucket.tokens, 2.0)

    @given(
        st.floats(0.01, 100_000),
        st.integers(1, 1000),
        st.lists(st.floats(0, 10), min_size=1, max_size=60),
        st.integers(1, 50),
    )
    def test_never_more_than_rate_and_burst(
        self, rate: float, burst: int, gaps: list[float], each: int
    ) -> None:
        """Over any window it admits at most rate × t + burst, however requests come."""
        bucket = TokenBucket(burst, NOW)
        at, admitted = NOW, []
        for gap in gaps:
            at += gap
            admitted += [at for _ in range(each) if bucket.take(at, rate, float(burst))]
        for first in range(len(admitted)):
            for last in range(first, len(admitted)):
                window = admitted[last] - admitted[first]
                self.assertLessEqual(last - first + 1, rate * window + burst + 1e-6)

    @given(
        st.floats(0.01, 1000),
        st.integers(1, 100),
        st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200),
    )
    def test_any_clock(self, rate: float, burst: int, jumps: list[float]) -> None:
        """Whatever the clock does, the tokens stay from 0 to the burst, and never more pass than
        the burst and what the clock's way forward earns."""
        bucket, at, forward, passed = TokenBucket(burst, NOW), NOW, 0.0, 0
        for jump in jumps:
            forward += max(0.0, jump)
            at += jump
            passed += bucket.take(at, rate, float(burst))
            self.assertTrue(0 <= bucket.tokens <= burst)
        self.assertLessEqual(passed, burst + forward * rate + 1e-3)


class RefusalTests(SynchronousTestCase):
    def test_headers(self) -> None:
        """What a client reads: when to come back in whole seconds, and the limit."""
        bucket = TokenBucket(0, NOW)
        refusal = over_rate(bucket, 0.4, 5.0, "for this tenant", "rate")
        headers = dict(refusal.headers())
        self.assertEqual(refusal.status, 429)
        self.assertEqual(headers[b"Retry-After"], b"3")
        self.assertEqual(headers[b"RateLimit-Limit"], b"5")
        self.assertEqual(headers[b"RateLimit-Remaining"], b"0")
        self.assertEqual(headers[b"RateLimit-Reset"], b"3")
        self.assertIn(b"RateLimit-Reset", headers[b"Access-Control-Expose-Headers"])
        self.assertIn("0.4 a second are allowed, 5 at once", refusal.message)

    def test_bounds(self) -> None:
        """Nobody is sent away for less than a second or more than an hour."""
        self.assertEqual(Refusal("x", "x", retry_after_s=0.0).retry_after, 1)
        self.assertEqual(Refusal("x", "x", retry_after_s=math.inf).retry_after, MAX_RETRY_S)

    def test_burst(self) -> None:
        """A rate without a burst has two seconds' worth, at least one."""
        cases = (((10.0, 0), 20), ((0.001, 0), 1), ((10.0, 3), 3), ((0.4, 0), 1))
        for (rate, burst), expected in cases:
            self.assertEqual(burst_of(rate, burst), expected)
