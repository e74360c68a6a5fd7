"""The systems under measurement behind one shape: three members, a leader, clients."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Protocol

import zmq

from benchmarks.raft.processes import Client, wait_until
from pbcluster.cli.layout import to_toml
from pbcluster.config import read_toml
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.free_ports import free_ports

MEMBERS = ("member_1", "member_2", "member_3")
#: The node that writes and reads in loads, and the one whose starts a witness counts.
LOADER, WITNESS = "node_1", "node_2"


class Group(Protocol):
    """Three members of one system."""

    name: str

    def start(self) -> None: ...
    def close(self) -> None: ...
    def pids(self) -> dict[str, int]: ...
    def leader(self) -> str: ...
    def settle(self) -> None: ...
    def kill9(self, member: str) -> None: ...
    def start_member(self, member: str) -> None: ...
    def client(self, kind: str, **job: Any) -> Client: ...
    def transfer(self) -> float: ...
    def data(self, member: str) -> Path: ...


class Ours:
    """``pbcp``, as ``RealCluster`` starts it."""

    name = "pbcluster"

    def __init__(self, *, nodes: int = 0) -> None:
        """:param nodes: further nodes that may connect; their keys go into ``nodes.json``."""
        self.cluster = RealCluster(nodes=2, members=3)
        where = self.cluster.where
        keys = {f"sim_{n}": zmq.curve_keypair() for n in range(nodes)}
        rows = {k: {"role": "node", "curve_public": p.decode()} for k, (p, _) in keys.items()}
        if rows:
            peers = read_toml(where.peers_file)["peers"]
            where.peers_file.write_text(to_toml({"peers": peers | rows}))
        secrets = {name: secret.decode() for name, (_, secret) in keys.items()}
        (where.root / "nodes.json").write_text(json.dumps(secrets))

    def start(self) -> None:
        self.cluster.start(*MEMBERS)
        self.settle()
        self.cluster.admin.request("POST", "/tenants?wait=0", {"name": "bench"})
        self.client("place").result()

    def close(self) -> None:
        self.cluster.close()

    def pids(self) -> dict[str, int]:
        return {name: pid for name in MEMBERS if (pid := self.cluster.pid(name))}

    def leader(self) -> str:
        rows = self.members()
        return next((row["id"] for row in rows if row["role"] == "leader"), "")

    def members(self) -> list[dict[str, Any]]:
        found = self.cluster.admin.request("GET", "/members")
        return list(found["items"] if isinstance(found, dict) else found)

    def settle(self) -> None:
        self.client("settle").result()

    def kill9(self, member: str) -> None:
        self.cluster.kill9(member)

    def start_member(self, member: str) -> None:
        self.cluster.start(member)

    def client(self, kind: str, **job: Any) -> Client:
        node = WITNESS if kind == "witness" else LOADER
        root = str(self.cluster.where.root)
        return Client("our_client", {"root": root, "node": node, "kind": kind} | job)

    def transfer(self) -> float:
        others = [name for name in MEMBERS if name != self.leader()]
        at = time.monotonic()
        self.cluster.admin.request("POST", "/members/transfer", {"to": others[0]})
        return at

    def data(self, member: str) -> Path:
        return self.cluster.where.data(member)


class Etcd:
    """``etcd`` with its default durability, heartbeat 50 ms, election 500 ms."""

    name = "etcd"

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="bench-etcd-")
        self._root = Path(self._temporary.name)
        ports = free_ports(6)
        self.endpoints = {m: f"127.0.0.1:{p}" for m, p in zip(MEMBERS, ports[:3], strict=True)}
        self._peers = {m: f"http://127.0.0.1:{p}" for m, p in zip(MEMBERS, ports[3:], strict=True)}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        for member in MEMBERS:
            self.start_member(member, wait=False)
        wait_until(lambda: bool(self.leader()), "a leader of etcd")

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()
        self._temporary.cleanup()

    def pids(self) -> dict[str, int]:
        return {name: p.pid for name, p in self._processes.items() if p.poll() is None}

    def _status(self, member: str) -> dict[str, Any]:
        """Empty while it does not answer."""
        job = {"kind": "status", "endpoints": [self.endpoints[member]]}
        return Client("etcd_client", job).result()

    def leader(self) -> str:
        for member in self.pids():
            status = self._status(member)
            if status.get("leader") and status["leader"] == status["id"]:
                return member
        return ""

    def settle(self) -> None:
        wait_until(lambda: bool(self.leader()), "a leader of etcd")

    def kill9(self, member: str) -> None:
        process = self._processes.pop(member)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    def start_member(self, member: str, *, wait: bool = True) -> None:
        url, peer = f"http://{self.endpoints[member]}", self._peers[member]
        command = ["etcd", "--name", member, "--data-dir", str(self.data(member))]
        command += ["--listen-client-urls", url, "--advertise-client-urls", url]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        command += ["--initial-cluster", ",".join(f"{m}={p}" for m, p in self._peers.items())]
        command += ["--heartbeat-interval", "50", "--election-timeout", "500"]
        command += ["--logger", "zap", "--log-level", "error"]
        self._processes[member] = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if wait:
            wait_until(lambda: bool(self._status(member).get("leader")), f"etcd's {member}")

    def client(self, kind: str, **job: Any) -> Client:
        own = list(self.endpoints.values())
        if kind not in ("witness", "versions"):
            own = [self.endpoints[self.leader()]]
        return Client("etcd_client", {"endpoints": own, "kind": kind} | job)

    def transfer(self) -> float:
        leader = self.leader()
        other = next(member for member in MEMBERS if member != leader)
        return float(self.client("move", to=self._status(other)["id"]).result()["at"])

    def data(self, member: str) -> Path:
        return self._root / member


class SyncObj:
    """PySyncObj with a journal file; its loops run within the leader's process."""

    name = "pysyncobj"

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="bench-syncobj-")
        self._addresses = [f"127.0.0.1:{port}" for port in free_ports(3)]
        self._processes: dict[str, subprocess.Popen[str]] = {}

    def start(self) -> None:
        for member in MEMBERS:
            self.start_member(member)
        self.settle()

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()
        self._temporary.cleanup()

    def pids(self) -> dict[str, int]:
        return {name: p.pid for name, p in self._processes.items() if p.poll() is None}

    def _ask(self, member: str, job: dict[str, Any]) -> Any:
        process = self._processes[member]
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    def leader(self) -> str:
        for member in self.pids():
            if self._ask(member, {"kind": "leads"}):
                return member
        return ""

    def settle(self) -> None:
        wait_until(lambda: bool(self.leader()), "a leader of pysyncobj")

    def start_member(self, member: str) -> None:
        at = MEMBERS.index(member)
        own, others = self._addresses[at], [a for a in self._addresses if a != self._addresses[at]]
        command = [sys.executable, "-m", "benchmarks.raft.syncobj_member"]
        command += [own, ",".join(others), str(Path(self._temporary.name) / member)]
        self._processes[member] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def load(self, kind: str, **job: Any) -> dict[str, Any]:
        # After it stood still its first leader may be none a moment later.
        leader = self.leader()
        while not leader:
            self.settle()
            leader = self.leader()
        return dict(self._ask(leader, {"kind": kind} | job))
