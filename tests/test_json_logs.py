"""Logs for programs."""

import io
import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.json_logs import MAX_MESSAGE, JsonLogObserver, line_of


class Lines(SynchronousTestCase):
    def logged(self, **event: object) -> dict[str, object]:
        stream = io.StringIO()
        Logger("a.b", observer=LogPublisher(JsonLogObserver(stream, "node_a"))).emit(
            LogLevel.warn,
            **event,  # type: ignore[arg-type]
        )
        (line,) = stream.getvalue().splitlines()
        return dict(json.loads(line))

    def test_a_line_has_what_its_message_names(self) -> None:
        """And nothing else: no value that the text does not show, no object; its own words stay."""
        line = self.logged(
            format="{tenant} is {size} and {service}: {thing}",
            tenant="t",
            size=3,
            service="mine",
            thing=object,
            secret="hidden",
        )
        self.assertEqual((line["tenant"], line["size"], line["level"]), ("t", 3, "warn"))
        self.assertEqual((line["logger"], line["service"]), ("a.b", "node_a"))
        self.assertNotIn("thing", line)
        self.assertNotIn("hidden", json.dumps(line))

    def test_one_event_is_one_line(self) -> None:
        """Whatever is in it; a long one is cut."""
        line = self.logged(format="{x}", x="a\nb" + "c" * 2 * MAX_MESSAGE)
        self.assertEqual(len(str(line["message"])), MAX_MESSAGE)
        self.assertEqual(len(str(line["x"])), MAX_MESSAGE)

    def test_a_failure_has_its_traceback(self) -> None:
        """In a field of its own."""
        stream = io.StringIO()
        log = Logger("a", observer=LogPublisher(JsonLogObserver(stream, "node_a")))
        try:
            raise ValueError("why")
        except ValueError:
            log.failure("it failed")
        line = json.loads(stream.getvalue())
        self.assertIn("ValueError: why", line["traceback"])
        self.assertEqual(line["level"], "critical")

    @given(st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.none(), st.binary())))
    def test_any_event_gives_a_line(self, event: dict[str, object]) -> None:
        """Also one that is none."""
        self.assertNotIn("\n", line_of(event, "x"))
