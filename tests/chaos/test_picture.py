"""A round as a picture: whole XML, everything in it, small whatever the round was."""

from __future__ import annotations

from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.testing.chaos.history import ADMIN, History
from pbcluster.testing.chaos.picture import MAX_DOTS, draw
from tests.chaos.planted import Planted

SVG = "{http://www.w3.org/2000/svg}"


class PictureTests(SynchronousTestCase):
    def drawn(self, history: History) -> ElementTree.Element:
        return ElementTree.fromstring(draw(history, "a <title> & more", ["a line"]))

    def texts(self, drawn: ElementTree.Element) -> list[str]:
        return [each.text or "" for each in drawn.iter(f"{SVG}text")]

    def test_everything_is_there(self) -> None:
        """Events with their moments, counts, failures in red, the control plane, and which node
        answered."""
        planted = Planted()
        planted.event("all is well")
        planted.create("k")
        planted.look("k", 503)
        planted.add(ADMIN, "member_1")
        planted.event("node_1 <killed>", fault=True)
        planted.probe("node_1")
        planted.probe("node_2", status=421)
        drawn = self.drawn(planted.history)
        texts = self.texts(drawn)
        for wanted in (
            *("a <title> & more", "a line", "writes", "reads", "control plane"),
            *("3.00 node_1 <killed>", "1 failed", "node_1", "node_2", "4 s"),
        ):
            self.assertIn(wanted, texts)
        lines = [each.get("class") for each in drawn.iter(f"{SVG}line")]
        self.assertEqual((lines.count("f"), lines.count("h")), (1, 1))
        red = [each for each in drawn.iter(f"{SVG}circle") if each.get("class") == "b"]
        self.assertEqual(len(red), 1)
        answers = [r for r in drawn.iter(f"{SVG}rect") if r.get("class") == "ok"]
        self.assertEqual(len(answers), 1)

    def test_all_is_inside(self) -> None:
        """Nothing is drawn beside the picture, not even texts of events at its end."""
        planted = Planted()
        for number in range(30):
            planted.create(f"k{number}")
            planted.event(f"event {number} with a rather long text", fault=True)
        drawn = self.drawn(planted.history)
        width, height = float(drawn.get("width", "")), float(drawn.get("height", ""))
        for each in drawn.iter():
            for name, most in (("x", width), ("cx", width), ("y", height), ("cy", height)):
                self.assertTrue(0 <= float(each.get(name, "0")) <= most, each.attrib)

    def test_a_long_round(self) -> None:
        """So many dots at most; failures are all drawn."""
        planted = Planted()
        for number in range(3 * MAX_DOTS):
            planted.create(f"k{number}", 502 if number % 1000 == 1 else 200)
        circles = list(self.drawn(planted.history).iter(f"{SVG}circle"))
        self.assertLess(len(circles), 1.5 * MAX_DOTS)
        self.assertEqual(sum(each.get("class") == "b" for each in circles), 12)

    def test_nothing(self) -> None:
        """A round without any request is drawn, too."""
        self.assertIn("a line", self.texts(self.drawn(History())))
