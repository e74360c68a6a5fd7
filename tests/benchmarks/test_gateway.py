"""``benchmarks.gateway``: what tools print becomes the right numbers, verdicts and report."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from benchmarks import report
from benchmarks.figures import (
    Spread,
    Target,
    number,
    parse_stat_ticks,
    parse_status_kb,
    parse_wrk,
    percentile,
    ratios,
    values_for,
)
from benchmarks.gateway import __main__ as command
from benchmarks.gateway import front_hop, peers, processes, shares
from benchmarks.gateway.options import Options
from benchmarks.gateway.ours import HERE, checkouts, own
from benchmarks.gateway.ours_host import on_reactor
from benchmarks.gateway.paced import slices
from benchmarks.measured import UNITS, Measured

WRK = """Running 3s test @ http://127.0.0.1:8080/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.77ms    2.03ms  24.44ms   92.52%
    Req/Sec    29.55k     3.17k   34.41k    63.33%
  Latency Distribution
     50%    1.28ms
     75%  940.00us
     90%    3.36ms
     99%    1.02s
  88032 requests in 3.01m, 27.71MB read
{more}Requests/sec:  29329.31
Transfer/sec:      9.23MB
"""


class SharesTests(SynchronousTestCase):
    def test_on_this_machine(self) -> None:
        """A process is in a group of its own with a bound, and the group goes with the end; where
        no group may be made, one sentence says so."""
        try:
            given = shares.Shares(0.35)
        except shares.NoShares as error:
            self.assertIn("control groups", str(error))
            return
        self.addCleanup(given.stop)
        with subprocess.Popen(["sleep", "30"]) as child:
            try:
                given.give([child.pid])
                (group,) = given._made
                self.assertIn(group.name, Path(f"/proc/{child.pid}/cgroup").read_text())
                name = "cpu.max" if given._version == 2 else "cpu.cfs_quota_us"
                self.assertEqual((group / name).read_text().split()[0], "3500")
            finally:
                child.kill()
        given.stop()
        self.assertFalse(group.exists())

    def test_version_2(self) -> None:
        """One file has bound and period there."""
        self.patch(shares, "_parent", lambda: (Path(self.mktemp()), 2))
        given = shares.Shares(0.35)
        self.assertEqual(given._files(), [("cpu.max", "3500 10000")])

    def test_a_group_that_cannot_be_made(self) -> None:
        """It is told, and nothing stays."""
        self.patch(shares, "_parent", lambda: (Path(self.mktemp()) / "missing", 1))
        given = shares.Shares(0.35)
        error = self.assertRaises(shares.NoShares, given.give, [os.getpid()])
        self.assertIn("no control group", str(error))
        self.assertEqual(given._made, [])


class WrkTests(SynchronousTestCase):
    def test_all_well(self) -> None:
        """Requests, seconds and latencies are read in whatever unit wrk chose."""
        load = parse_wrk(WRK.format(more=""))
        self.assertEqual((load.requests, load.failed), (88032, 0))
        self.assertAlmostEqual(load.seconds, 180.6)
        self.assertAlmostEqual(load.p50_s, 0.00128)
        self.assertAlmostEqual(load.p99_s, 1.02)

    def test_failures_are_counted_and_are_no_requests(self) -> None:
        """Answers with an error's status leave the requests; broken sockets count as failed."""
        more = (
            "  Socket errors: connect 1, read 2, write 3, timeout 4\n"
            "  Non-2xx or 3xx responses: 32\n"
        )
        load = parse_wrk(WRK.format(more=more))
        self.assertEqual((load.requests, load.failed), (88000, 42))

    def test_something_else(self) -> None:
        """What is no output of wrk --latency is refused, and shown."""
        with self.assertRaisesRegex(ValueError, "unable to connect"):
            parse_wrk("unable to connect to 127.0.0.1:1")
        with self.assertRaises(ValueError):
            parse_wrk(WRK.format(more="").replace("99%", "98%"))


class ProcTests(SynchronousTestCase):
    def test_stat_of_a_command_with_brackets_and_spaces(self) -> None:
        """User and system time are the 14th and 15th field, whatever the command is called."""
        after = ["S", *map(str, range(4, 14)), "1200", "34", *map(str, range(16, 53))]
        self.assertEqual(parse_stat_ticks(f"77 (a ) 9 (b) {' '.join(after)}\n"), 1234)

    def test_own_process(self) -> None:
        """The kernel's files of this very process can be read."""
        self.assertGreater(processes.cpu_s(os.getpid()), 0)
        self.assertGreater(processes.memory_kb(os.getpid()), 1000)
        self.assertGreaterEqual(
            processes.memory_kb(os.getpid(), name="VmHWM"), processes.memory_kb(os.getpid())
        )
        self.assertEqual(processes.family(os.getpid())[0], os.getpid())

    def test_a_process_that_is_gone_counts_nothing(self) -> None:
        """A worker that ended between two looks is no error."""
        self.assertEqual(processes.cpu_s(2**22 + 1), 0)
        self.assertEqual(processes.memory_kb(2**22 + 1), 0)

    def test_status(self) -> None:
        """Sizes are found by their whole name, in kB."""
        text = "Name:\tx\nVmHWM:\t    2000 kB\nVmRSS:\t    1500 kB\nRssAnon:\t 7 kB\n"
        self.assertEqual(parse_status_kb(text, "VmRSS"), 1500)
        with self.assertRaises(ValueError):
            parse_status_kb(text, "Rss")


class FiguresTests(SynchronousTestCase):
    def test_percentile(self) -> None:
        """It is one of the values, and at least that share of them is not above it."""
        values = [float(n) for n in range(1, 101)]
        self.assertEqual(percentile(values, 0.5), 50)
        self.assertEqual(percentile(values, 0.99), 99)
        self.assertEqual(percentile([3.0], 0.99), 3.0)
        with self.assertRaises(ValueError):
            percentile([], 0.5)

    def test_spread(self) -> None:
        """The rounds' minimum, median and maximum."""
        self.assertEqual(Spread.of([4, 1, 3, 2]), Spread(1, 2.5, 4))

    def test_ratios_are_made_within_a_round(self) -> None:
        """Round by round, so that a slow round slows both sides; gaps are left out."""
        ours = [{"cpu_us": 30.0}, {"cpu_us": 60.0}, {}, {"cpu_us": 9.0}]
        other = [{"cpu_us": 20.0}, {"cpu_us": 40.0}, {"cpu_us": 1.0}, {"cpu_us": 0.0}]
        self.assertEqual(ratios(ours, other, "cpu_us"), [1.5, 1.5])

    def test_targets(self) -> None:
        """At most and at least, with and without something better."""
        cpu = Target("cpu_us", "nginx", 1.2, stretch=1.0)
        self.assertEqual(
            [cpu.verdict(value) for value in (1.21, 1.2, 1.0)],
            ["MISS", "pass", "pass, the better one too"],
        )
        rate = Target("rate", "nginx", 0.85, at_most=False)
        self.assertEqual([rate.verdict(value) for value in (0.84, 0.85)], ["MISS", "pass"])

    def test_values_of_a_target(self) -> None:
        """Ratios if it names a system, else our own figures; nothing for what was not measured."""
        rounds = {"pbcluster": [{"rate": 9.0, "kb": 3.0}], "nginx": [{"rate": 10.0}]}
        self.assertEqual(values_for(Target("rate", "nginx", 1), rounds, "pbcluster"), [0.9])
        self.assertEqual(values_for(Target("kb", "", 1), rounds, "pbcluster"), [3.0])
        self.assertEqual(values_for(Target("rate", "caddy", 1), rounds, "pbcluster"), [])


MEASURED = Measured(
    "proxied",
    "A request <here>",
    {
        "pbcluster": [{"cpu_us": 30.0, "rate": 1.0}, {"cpu_us": 22.0, "rate": 2.0}],
        "nginx": [{"cpu_us": 20.0, "rate": 4.0}, {"cpu_us": 20.0, "rate": 4.0}],
    },
    targets=(Target("cpu_us", "nginx", 1.2, stretch=1.0),),
    notes=("said with it",),
)


class ReportTests(SynchronousTestCase):
    def test_text(self) -> None:
        """Medians with minimum and maximum, ratios, and the target's verdict by the median."""
        told = report.text(MEASURED)
        self.assertIn("26 (22, 30)", told)
        self.assertIn("1.3 (1.1, 1.5)", told)
        self.assertIn("MISS", told)
        self.assertIn("≤ 1.2 (better: ≤ 1)", told)
        self.assertIn("said with it", told)

    def test_skipped(self) -> None:
        """What was not measured says why, and has no table."""
        told = report.text(Measured("tls", "TLS", {}, skipped="there is none"))
        self.assertEqual(told, "== tls: TLS\n\nskipped: there is none")

    def test_ratios_only_where_they_are_wanted(self) -> None:
        """Without comparison only targets' ratios are told."""
        alone = Measured("x", "x", MEASURED.rounds, targets=MEASURED.targets, compared=False)
        self.assertEqual([rows[0][0] for rows in report.tables(alone)], ["figure", "target"])

    def test_every_target_of_a_measure_has_a_name(self) -> None:
        """Each measure's targets are about figures that the report can name."""
        for module in (command.proxied, command.front_hop, command.whole, command.many):
            for target in module.TARGETS:
                self.assertIn(target.figure, UNITS)
        for target in (*command.large.TARGETS, *command.lookups.TARGETS):
            self.assertIn(target.figure, UNITS)

    def test_numbers(self) -> None:
        """Three or four digits that mean something."""
        told = [number(value) for value in (0.012345, 3.14159, 271.8, 31415.9, -4.25)]
        self.assertEqual(told, ["0.0123", "3.14", "272", "31,416", "-4.25"])


class CommandTests(SynchronousTestCase):
    def test_help_names_every_measure(self) -> None:
        """--help says of each measure what it is."""
        told = CliRunner().invoke(command.main, ["--help"]).output
        for name in command.MEASURES:
            self.assertIn(name, told)

    def test_what_is_missing_is_named_by_its_package(self) -> None:
        """All missing programs are told at once, as packages to install."""

        def find(name: str) -> None:
            if name in ("nginx", "taskset"):
                raise SystemExit(f"no {name}")

        needs = ("wrk", "nginx", "taskset")
        self.assertEqual(processes.missing(needs, find), ["nginx-light", "util-linux"])

    def test_every_need_has_a_package(self) -> None:
        """No measure needs a program whose package is not known."""
        for needs, _ in command.MEASURES.values():
            self.assertLessEqual(set(needs), set(processes.PACKAGES))

    def test_a_directory_without_a_checkout(self) -> None:
        """--checkout of something else is refused by its name."""
        with (
            tempfile.TemporaryDirectory() as directory,
            self.assertRaisesRegex(SystemExit, directory),
        ):
            checkouts([Path(directory)])

    def test_labels_of_checkouts(self) -> None:
        """One checkout is pbcluster; several are told apart by their directories."""
        self.assertEqual([each.label for each in checkouts([HERE])], ["pbcluster"])
        both = [each.label for each in checkouts([HERE, HERE])]
        self.assertEqual(both, [f"pbcluster {HERE.name}"] * 2)

    def test_compiled(self) -> None:
        """What was compiled is judged, and the checkout itself told beside it; alone where nothing
        was compiled. What was compiled of other sources is refused, with what to do."""
        with tempfile.TemporaryDirectory() as directory:
            checkout, compiled = Path(directory) / "checkout", Path(directory) / "compiled"
            (checkout / "pbcluster").mkdir(parents=True)
            (checkout / "pbcluster" / "one.py").write_text("a = 1\n")
            self.assertEqual([each.label for each in own(checkout, compiled)], ["pbcluster"])
            shutil.copytree(checkout, compiled)
            with self.assertRaisesRegex(SystemExit, "not compiled for this Python"):
                own(checkout, compiled)
            (compiled / "pbcluster" / f"rates{EXTENSION_SUFFIXES[0]}").touch()
            found = own(checkout, compiled)
            self.assertEqual([each.root for each in found], [compiled, checkout])
            self.assertEqual(Options(found, 1, 1.0, 0, 1).labels, ("pbcluster",))
            self.assertEqual(
                [each.label for each in command.judged(Options(found, 1, 1.0, 0, 1)).checkouts],
                ["pbcluster"],
            )
            (checkout / "pbcluster" / "one.py").write_text("a = 2\n")
            with self.assertRaisesRegex(SystemExit, "one.py.*make compiled"):
                own(checkout, compiled)

    def test_another_checkout_sees_only_these_benchmarks(self) -> None:
        """Its path begins with a directory that holds a link to these benchmarks and no more."""
        (checkout,) = checkouts([HERE])
        with tempfile.TemporaryDirectory() as directory:
            overlay = Path(directory)
            first, second = checkout.environment(overlay)["PYTHONPATH"].split(os.pathsep)
            self.assertEqual((Path(first), Path(second)), (overlay, HERE))
            self.assertEqual(os.listdir(overlay), ["benchmarks"])
            self.assertEqual((overlay / "benchmarks").resolve(), HERE / "benchmarks")

    def test_another_reactor(self) -> None:
        """It takes the place of the one that a service would use; without one nothing would be
        told apart."""
        argv = ("twistd", "--nodaemon", "--reactor=pbuvloop", "pbgateway")
        self.assertEqual(on_reactor("epoll", argv)[2], "--reactor=epoll")
        self.assertEqual(len(on_reactor("epoll", argv)), 4)
        self.assertRaises(ValueError, on_reactor, "epoll", argv[:2])

    def test_wanted_systems(self) -> None:
        """--system picks by any part of a name; nothing given picks all."""
        picked = Options([], 1, 1.0, 0, 1, "pbc,nginx")
        names = ("pbcluster", "nginx", "haproxy")
        self.assertEqual([picked.wants(name) for name in names], [True, True, False])
        self.assertTrue(Options([], 1, 1.0, 0, 1).wants("caddy"))


class LoadTests(SynchronousTestCase):
    def test_systems_take_turns_in_slices(self) -> None:
        """Of two seconds each system has four slices, and none always follows the same one."""
        turns = slices(("a", "b"), 2.0)
        self.assertEqual("".join(turns), "abbaabba")
        self.assertEqual("".join(slices(("a", "b", "c"), 0.1)), "abc")

    def test_workers_for_all_connections(self) -> None:
        """Many descriptors let one process hold all connections, fewer take more processes."""
        found = [command.many.workers_for(limit) for limit in (1 << 20, 100_000, 20_000, 10_000)]
        self.assertEqual(found, [1, 1, 2, 4])

    def test_too_few_descriptors_for_all_connections(self) -> None:
        """Where it took too many processes the report says what to do, and nothing is measured."""
        self.patch(command.many, "raise_limit", lambda: 1024)
        told = command.many.measure_idle(Options([], 1, 1.0, 0, 1))
        self.assertEqual(told.rounds, {})
        self.assertIn("1,024 descriptors here: raise its hard limit", told.skipped)

    def test_replayed_request(self) -> None:
        """What wrk replays is, byte for byte, what was captured."""
        with tempfile.TemporaryDirectory() as directory:
            script = front_hop.lua(Path(directory), b"GET / HTTP/1.1\r\n\r\n\0\"'")
            self.assertIn(f'io.open("{directory}/request", "rb")', script.read_text())
            raw = (Path(directory) / "request").read_bytes()
        self.assertEqual(raw, b"GET / HTTP/1.1\r\n\r\n\0\"'")

    def test_settings_of_the_others(self) -> None:
        """Every placeholder needs a value, and what only looks like one stays."""
        values = {"PORT": 1, "UPSTREAM": 2, "LOG": "/log", "NAMES": "http://a"}
        text = peers.settings("Caddyfile", **values)
        self.assertIn("reverse_proxy 127.0.0.1:2 {", text)
        self.assertIn("request_header @untraced traceparent", text)
        with self.assertRaises(KeyError):
            peers.settings("Caddyfile", PORT=1)

    def test_answer_of_the_stand_in(self) -> None:
        """The upstream's answer has the size that the report tells."""
        self.assertEqual(len(peers.ANSWER), peers.ANSWER_BYTES)
        self.assertNotIn("'", peers.ANSWER)
