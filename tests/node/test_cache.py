"""Who may stay loaded."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.node.cache import STREAM_PIN_S, Cache


class CacheTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.cache = Cache(3)
        for at, name in enumerate("abc"):
            self.cache.add(name, float(at))

    def test_least_recently_used_goes(self) -> None:
        """Use, not age, decides."""
        self.cache.opened("a", 3.0)
        self.cache.closed("a", 4.0, stream=False)
        self.assertEqual(self.cache.victim(5.0), "b")

    def test_order_of_use(self) -> None:
        """However tenants come, are used and go, the least recently used is named first."""
        cache, random = Cache(3), Random(7)
        order: list[str] = []
        for step in range(2000):
            name = random.choice("abcde")
            if random.random() < 0.2:
                cache.remove(name)
                order = [each for each in order if each != name]
            elif name not in order:
                cache.add(name, 0.0)
                order.append(name)
            else:
                cache.opened(name, 0.0)
                cache.closed(name, 0.0, stream=False)
                order = [*(each for each in order if each != name), name]
            self.assertEqual(cache.idle(1.0, 1.0), order, step)

    def test_room_needs_no_victim(self) -> None:
        """Below capacity nobody goes."""
        self.cache.remove("b")
        self.assertIsNone(self.cache.victim(5.0))

    def test_open_requests_pin(self) -> None:
        """A tenant with an open request is never stopped for another."""
        for name in "abc":
            self.cache.opened(name, 3.0)
        self.assertIsNone(self.cache.victim(1e9))
        self.assertEqual(self.cache.idle(1e9, 1.0), [])

    def test_streams_pin_for_a_while(self) -> None:
        """Event streams alone keep a tenant up to a limit."""
        for name in "abc":
            self.cache.opened(name, 3.0)
        self.cache.became_stream("a", 4.0)
        self.assertIsNone(self.cache.victim(4.0 + STREAM_PIN_S - 1))
        self.assertEqual(self.cache.victim(4.0 + STREAM_PIN_S), "a")
        self.cache.closed("a", 5.0, stream=True)
        self.assertEqual(self.cache.victim(6.0), "a")

    def test_busy_ones_are_passed_over(self) -> None:
        """Whoever is being loaded or stopped is not chosen."""
        self.assertEqual(self.cache.victim(5.0, {"a", "b"}), "c")

    def test_idle(self) -> None:
        """Idle ones are named, least recently used first."""
        self.assertEqual(self.cache.idle(11.0, 10.0), ["a", "b"])

    def test_counts(self) -> None:
        """Hits and misses are told apart."""
        self.cache.asked("a")
        self.cache.asked("z")
        self.assertEqual((self.cache.hits, self.cache.misses), (1, 1))

    def test_requests_of_an_unloaded_tenant_take_no_place(self) -> None:
        """Only a load takes a place."""
        self.cache.opened("z", 1.0)
        self.cache.closed("z", 2.0, stream=False)
        self.assertEqual(len(self.cache), 3)
