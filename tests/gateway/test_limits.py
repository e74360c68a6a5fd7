"""Limits of client addresses: who counts as one, what passes, what a flood can do."""

import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.gateway.limits import MAX_ADDRESSES, MAX_SHOWN, AddressLimits, AddressQuota

NOW = 1_764_000_000.0
A, B = "192.0.2.1", "192.0.2.2"


def limits(max_addresses: int = MAX_ADDRESSES, **quota: float) -> AddressLimits:
    return AddressLimits(
        AddressQuota(**quota),  # type: ignore[arg-type]
        exempt=("127.0.0.0/8", "::1/128", "10.0.0.0/8"),
        max_addresses=max_addresses,
    )


def nth(number: int) -> str:
    return f"172.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


class AddressTests(SynchronousTestCase):
    def passed(self, found: AddressLimits, host: str, tries: int, now: float = NOW) -> int:
        """How many of so many requests pass; each is over at once."""
        count = 0
        for _ in range(tries):
            if found.admit(host, now) is None:
                count += 1
                found.done(host)
        return count

    def test_rate(self) -> None:
        """A burst passes, then the rate; the refusal says when to come back; others are served."""
        found = limits(requests_per_second=2, burst=5)
        self.assertEqual(self.passed(found, A, 10), 5)
        refusal = found.admit(A, NOW)
        assert refusal is not None
        self.assertEqual((refusal.reason, refusal.status), ("address_rate", 429))
        self.assertEqual((refusal.limit, refusal.retry_after), (5, 1))
        self.assertEqual(self.passed(found, B, 10), 5)
        self.assertEqual(self.passed(found, A, 10, NOW + 1.0), 2)

    def test_clock(self) -> None:
        """A clock that goes back locks nobody out and lets nobody in; a gap fills the bucket."""
        found = limits(requests_per_second=2, burst=5)
        self.passed(found, A, 5)
        self.assertEqual(self.passed(found, A, 9, NOW - 86_400), 0)
        self.assertEqual(self.passed(found, A, 9, NOW - 86_400 + 1.0), 2)
        self.assertEqual(self.passed(found, A, 9, NOW + 1e9), 5)

    def test_requests_at_once(self) -> None:
        """So many requests are under way at once; one that ends makes room, and what was refused
        took no token."""
        found = limits(requests_per_second=1, burst=3, requests=2)
        self.assertIsNone(found.admit(A, NOW))
        self.assertIsNone(found.admit(A, NOW))
        for _ in range(5):
            refusal = found.admit(A, NOW)
            assert refusal is not None
            self.assertEqual((refusal.reason, refusal.limit), ("address_requests", 2))
        found.done(A)
        self.assertIsNone(found.admit(A, NOW))

    def test_connections(self) -> None:
        """So many connections at once, each address its own."""
        found = limits(connections=2)
        self.assertEqual([found.connected(A, NOW) for _ in range(3)], [True, True, False])
        self.assertTrue(found.connected(B, NOW))
        found.disconnected(A)
        self.assertTrue(found.connected(A, NOW))

    def test_off(self) -> None:
        """0 is no limit."""
        found = limits()
        self.assertEqual([found.admit(A, NOW) for _ in range(1000)], [None] * 1000)
        self.assertTrue(all(found.connected(A, NOW) for _ in range(1000)))

    def test_who_counts_as_one(self) -> None:
        """IPv4 by the address, IPv6 by its /64, an IPv4 address in IPv6 as what it is."""
        for one, other, same in (
            ("192.0.2.1", "192.0.2.2", False),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", True),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
            ("2001:db8:0:1::1", "2001:DB8:0:1:0::9", True),
            ("fe80::1%eth0", "fe80::2%eth1", True),
            ("::ffff:192.0.2.1", "192.0.2.1", True),
        ):
            found = limits(requests_per_second=1, burst=1)
            self.assertIsNone(found.admit(one, NOW))
            self.assertEqual(found.admit(other, NOW) is not None, same, (one, other))

    def test_exempt(self) -> None:
        """Exempt networks, and peers without an address, are not limited and take no place."""
        found = limits(requests_per_second=1, burst=1, requests=1, connections=1)
        for host in ("127.0.0.1", "::1", "10.1.2.3", "::ffff:10.1.2.3", ""):
            for _ in range(10):
                self.assertTrue(found.connected(host, NOW))
                self.assertIsNone(found.admit(host, NOW))
            found.done(host)
            found.disconnected(host)
        self.assertEqual(len(found), 0)
        self.assertIsNone(found.admit("::2", NOW))
        self.assertIsNotNone(found.admit("::3", NOW))  # same /64 as the exempt ::1

    def test_what_is_no_address(self) -> None:
        """A text that is no address is limited by itself: it is no way around the limits."""
        found = limits(requests_per_second=1, burst=1)
        self.assertIsNone(found.admit("010.0.0.1", NOW))
        self.assertIsNotNone(found.admit("010.0.0.1", NOW))

    def test_ends_are_never_counted_twice(self) -> None:
        """An end too many of somebody unknown changes nothing."""
        found = limits(requests=1, connections=1)
        found.done(A)
        found.disconnected(A)
        self.assertIsNone(found.admit(A, NOW))
        found.done(A)
        found.done(A)
        self.assertIsNone(found.admit(A, NOW))
        self.assertIsNotNone(found.admit(A, NOW))

    @settings(max_examples=50)
    @given(
        st.integers(1, 50),
        st.integers(1, 20),
        st.lists(st.tuples(st.floats(0, 1), st.sampled_from([A, B])), max_size=200),
    )
    def test_never_more_than_rate_and_burst(
        self, rate: int, burst: int, steps: list[tuple[float, str]]
    ) -> None:
        """Over any window an address gets at most rate × t + burst, whatever others do."""
        found = limits(requests_per_second=rate, burst=burst)
        now, admitted = NOW, {A: [], B: []}  # type: ignore[var-annotated]
        for gap, host in steps:
            now += gap
            if found.admit(host, now) is None:
                admitted[host].append(now)
                found.done(host)
        for times in admitted.values():
            for first in range(len(times)):
                for last in range(first, len(times)):
                    window = times[last] - times[first]
                    self.assertLessEqual(last - first + 1, rate * window + burst + 1e-6)


class FloodTests(SynchronousTestCase):
    def test_bounded_memory(self) -> None:
        """120,000 addresses cost a table of 100,000 and less than 64 MiB."""
        found = limits(requests_per_second=100, burst=200)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for number in range(120_000):
            host = nth(number)
            self.assertIsNone(found.admit(host, NOW + number / 1e5))
            found.done(host)
        self.assertEqual(len(found), MAX_ADDRESSES)
        self.assertLess(tracemalloc.get_traced_memory()[0], 64 * 2**20)

    def test_no_fresh_bucket(self) -> None:
        """An address at its limit keeps its empty bucket through a flood of others."""
        found = limits(1_000, requests_per_second=0.1, burst=5)
        while found.admit(A, NOW) is None:
            found.done(A)
        for number in range(20_000):
            # Two requests each, or none: neither says as much as an empty bucket.
            for _ in range(number % 3):
                found.admit(nth(number), NOW)
                found.done(nth(number))
        self.assertIsNotNone(found.admit(A, NOW))
        self.assertLessEqual(len(found), 1_000)

    def test_flood_at_its_limit(self) -> None:
        """Addresses that all are in debt are bounded too, and the fullest goes first."""
        found = limits(100, requests_per_second=0.001, burst=3)
        for number in range(1_000):
            for _ in range(3):
                found.admit(nth(number), NOW)
                found.done(nth(number))
        self.assertEqual(len(found), 100)

    def test_who_is_in_use_stays(self) -> None:
        """Open requests and connections are counted through any flood."""
        found = limits(100, requests=1, connections=1)
        self.assertIsNone(found.admit(A, NOW))
        self.assertTrue(found.connected(B, NOW))
        for number in range(5_000):
            found.admit(nth(number), NOW)
            found.done(nth(number))
        self.assertIsNotNone(found.admit(A, NOW))
        self.assertFalse(found.connected(B, NOW))
        self.assertLessEqual(len(found), 102)

    def test_all_in_use(self) -> None:
        """A table full of open connections grows by those alone, and shrinks behind them."""
        found = limits(100, connections=5)
        for number in range(300):
            self.assertTrue(found.connected(nth(number), NOW))
        self.assertEqual(len(found), 300)
        for number in range(300):
            found.disconnected(nth(number))
        for number in range(1_000, 1_200):
            found.admit(nth(number), NOW)
            found.done(nth(number))
        self.assertLessEqual(len(found), 100)

    def test_shown(self) -> None:
        """Those with most refusals are shown, and not more than a bounded number is kept."""
        found = limits(requests_per_second=0.001, burst=1)
        for number in range(2 * MAX_SHOWN):
            for _ in range(2):
                found.admit(nth(number), NOW)
        for _ in range(9):
            found.admit(A, NOW)
        rows = found.show(3, NOW)
        self.assertEqual((rows[0].address, rows[0].refused, len(rows)), (A, 8, 3))
        self.assertEqual(len(found.show(10_000, NOW)), MAX_SHOWN)
