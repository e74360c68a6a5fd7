"""The clients of fault stories, without any platform."""

import threading
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.testing.chaos import clients
from pbcluster.testing.chaos.clients import TenantClients
from pbcluster.testing.chaos.history import History

WITHIN_S = 10.0


class StopTests(SynchronousTestCase):
    def test_who_comes_by_last(self) -> None:
        """A client that comes by in the moment in which all are to end is waited for, too: its
        write would stand behind the reading back, and count as lost."""
        coming, go_on = threading.Event(), threading.Event()
        ended: list[int] = []
        start = clients._thread

        def slowly(target: Any, *arguments: Any) -> threading.Thread:
            if target.__name__ == "_write_once":
                coming.set()
                go_on.wait(WITHIN_S)
            return start(target, *arguments)

        def write_once(self: TenantClients, number: int) -> None:
            threading.Event().wait(0.3)  # the request takes a while
            ended.append(number)

        write_once.__name__ = "_write_once"
        self.patch(clients, "_thread", slowly)
        self.patch(TenantClients, "_write_once", write_once)
        few = TenantClients(
            "http://127.0.0.1:9", "host", "shop", "r001", History(), 0, 0, passing_every_s=0.001
        )
        few.start()
        self.assertTrue(coming.wait(WITHIN_S))
        few.end_soon()
        threading.Timer(0.2, go_on.set).start()
        few.stop()
        self.assertEqual(ended, [1])
