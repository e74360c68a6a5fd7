"""Every part of ``make bench`` as a table of commands.

A row makes one or several measures and writes them with ``--json FILE``; ``quick`` is the same in a
form that only shows that it works. Adding a benchmark is adding a row.
"""

from __future__ import annotations

import attrs

_REAL = ("PocketBase", "Litestream", "SeaweedFS")
_PROXIES = ("nginx", "haproxy", "caddy", "wrk")


@attrs.frozen(kw_only=True)
class Row:
    """One command.

    :ivar module: as ``python -m`` takes it. :ivar words: its arguments.
    :ivar measures: names of what it measures. :ivar quick: arguments of the short form.
    :ivar rounds: the option that says how often; empty: it has none.
    :ivar versions: programs whose versions are noted. :ivar needs: programs that must be there.
    :ivar json_option: what comes before the file for its figures.
    :ivar named_only: whether it is run only if it is named: it takes long.
    """

    module: str
    measures: tuple[str, ...]
    words: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()
    rounds: str = "--rounds"
    versions: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    json_option: tuple[str, ...] = ("--json",)
    named_only: bool = False

    def command(self, *, quick: bool = False, rounds: int | None = None) -> tuple[str, ...]:
        """Module and arguments, without Python and without the file for the figures."""
        words = self.quick if quick else self.words
        if rounds is not None and self.rounds:
            words = (*words, self.rounds, str(rounds))
        return (self.module, *words)


def _raft(part: str, measures: tuple[str, ...], *quick: str, rounds: str = "") -> Row:
    chosen = ("--part", part)
    return Row(
        module="benchmarks.raft",
        measures=measures,
        words=chosen,
        quick=(*chosen, "--without-pysyncobj", *quick),
        rounds=rounds,
        versions=("etcd",),
        needs=() if part == "nodes" else ("etcd",),
    )


def _gateway(name: str, *versions: str, seconds: str = "4", reactor: str = "") -> Row:
    chosen = ("--only", name, *(("--reactor", reactor) if reactor else ()))
    return Row(
        module="benchmarks.gateway",
        measures=(name,),
        words=(*chosen, "--seconds", seconds),
        quick=(*chosen, "--seconds", "1", "--rounds", "1"),
        versions=(*(versions or _PROXIES),),
        needs=("nginx", "wrk"),
    )


def _gateways(reactor: str = "") -> tuple[Row, ...]:
    """
    :param reactor: of our processes; empty: the services' own, with what has no transport in it.
    """
    return (
        _gateway("proxied", reactor=reactor),
        _gateway("node", "nginx", "wrk", reactor=reactor),
        _gateway("record", *_REAL, "nginx", "wrk", reactor=reactor),
        _gateway("list", *_REAL, "nginx", "wrk", reactor=reactor),
        _gateway("idle", reactor=reactor),
        _gateway("streams", reactor=reactor),
        _gateway("up", reactor=reactor),
        _gateway("down", reactor=reactor),
        *(() if reactor else (_gateway("lookups"),)),
        _gateway("workers", "nginx", "wrk", reactor=reactor),
        _gateway("tls", reactor=reactor),
        _gateway("handshakes", reactor=reactor),
    )


def _node(name: str, *quick: str, words: tuple[str, ...] = (), rounds: str = "") -> Row:
    chosen = ("--only", name)
    return Row(
        module="benchmarks.node",
        measures=(name,),
        words=(*chosen, *words),
        quick=(*chosen, *quick),
        rounds=rounds,
        versions=_REAL,
    )


def _chaos(measure: str, *words: str, story: str = "") -> Row:
    chosen = (story or measure,)
    return Row(
        module="benchmarks.chaos",
        measures=(measure,),
        words=(*chosen, *words),
        quick=chosen,
        versions=_REAL,
        named_only=True,
    )


PARTS: dict[str, tuple[Row, ...]] = {
    "crossing": (
        Row(
            module="benchmarks.crossing",
            measures=("crossing",),
            words=("--rounds", "3"),
            quick=("--rounds", "1", "--wakes", "2"),
            rounds="",
            versions=_REAL,
        ),
        Row(
            module="benchmarks.soaks",
            measures=("soak",),
            words=("crossing", "--rounds", "100", "--writers", "20"),
            quick=("crossing", "--rounds", "1"),
            versions=_REAL,
            named_only=True,
        ),
    ),
    "raft": (
        _raft(
            "loads",
            ("write-1", "write-64", "read-64", "lookup-64"),
            *("--rounds", "1", "--seconds", "1"),
            rounds="--rounds",
        ),
        _raft("faults", ("kill", "transfer"), "--kills", "2"),
        _raft("growth", ("growth",), "--growth-s", "2"),
        _raft("nodes", ("nodes",), "--nodes-s", "3"),
        _raft("restart", ("restart",), "--tenants", "1000"),
    ),
    "gateway": _gateways(),
    # The same where the services run on Twisted's own reactor.
    "gateway-epoll": _gateways("epoll"),
    "node": (
        _node("capacity", "--tenants", "5", "--watch", "2"),
        _node("waking", "--wakes", "2", words=("--large",)),
        _node("sync", "--rounds", "1", "--seconds", "1", "--requests", "50", rounds="--rounds"),
        _node("async", "--rounds", "1", "--seconds", "1", "--requests", "50", rounds="--rounds"),
        _node("reads", "--rounds", "1", "--requests", "50", rounds="--rounds"),
        _node("neighbour", "--rounds", "1", "--requests", "20", rounds="--rounds"),
        Row(
            module="benchmarks.node.starts",
            measures=("starts",),
            quick=("--starts", "2"),
            rounds="--starts",
            versions=("PocketBase",),
        ),
        Row(
            module="benchmarks.soaks",
            measures=("soak-node",),
            words=("node", "--minutes", "30", "--tenants", "50"),
            quick=("node", "--minutes", "0.2", "--tenants", "3"),
            rounds="",
            versions=_REAL,
            named_only=True,
        ),
        Row(
            module="benchmarks.node.s3_requests",
            measures=("s3-requests",),
            quick=(
                "--tenants",
                "2",
                "--watch",
                "3",
                "--writes",
                "8",
                "--wakes",
                "2",
                "--settle",
                "2",
            ),
            rounds="",
            versions=_REAL,
        ),
    ),
    "controlplane": (
        Row(
            module="benchmarks.controlplane.scale",
            measures=("scale",),
            quick=("--tenants", "1000", "--nodes", "20", "--gateways", "5", "--seconds", "1"),
            rounds="",
        ),
        Row(
            module="benchmarks.controlplane.migration",
            measures=("migration",),
            quick=("--moves", "3", "--rate", "10"),
            rounds="--moves",
            versions=_REAL,
        ),
        Row(
            module="benchmarks.controlplane.migration",
            measures=("migration-kill",),
            words=("--kill",),
            quick=("--kill", "--moves", "4", "--rate", "10"),
            rounds="--moves",
            versions=_REAL,
        ),
    ),
    "chaos": (
        _chaos("first-request", "--rounds", "10"),
        _chaos("cache-hit", "--long"),
        _chaos("node-kill", "--rounds", "100"),
        _chaos("node-frozen", "--rounds", "10"),
        _chaos("cut-plane", "--long", story="cut-plane-*"),
        _chaos("cut-s3", "--long", story="cut-s3-*"),
        _chaos("cut-gateways", "--long", story="cut-gateways-*"),
        _chaos("cut-all", "--long", story="cut-all-*"),
        _chaos("kernel", "--long", story="kernel-*"),
        _chaos("leader-kill", "--rounds", "100"),
        _chaos("leader-cut", "--rounds", "10"),
        _chaos("plane-dead", "--long"),
        _chaos("plane-frozen", "--long"),
        _chaos("s3-away", "--long", "--rounds", "4"),
        _chaos("s3-away-reject", "--long", "--rounds", "4"),
        _chaos("migration", "--rounds", "50"),
        _chaos("drain", "--long"),
        _chaos("rolling-restart", "--rounds", "3"),
        _chaos("kill-everything", "--rounds", "5"),
        Row(
            module="benchmarks.chaos",
            measures=("random",),
            words=("--random", "20", "--seed", "1"),
            quick=("--random", "1"),
            rounds="--random",
            versions=_REAL,
            named_only=True,
        ),
    ),
    "transport": (
        Row(
            module="benchmarks.transport",
            measures=("transport",),
            quick=("--rounds", "1", "--seconds", "1"),
        ),
        Row(
            module="benchmarks.web_proxy",
            measures=("http",),
            words=("5",),
            quick=("1",),
            rounds="",
            versions=("wrk",),
            json_option=(),
        ),
    ),
}


def order(part: str) -> list[str]:
    """Names of a part's measures, as its page has them."""
    return [name for row in PARTS.get(part, ()) for name in row.measures]
