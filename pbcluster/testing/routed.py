"""Puts a proxy into every way between two processes of a cluster, before they are started.

The settings that ``pbcluster init`` wrote are rewritten: who opens a connection finds the port of a
door (:mod:`pbcluster.testing.proxies`) where the other one's port stood, and each member advertises
its doors. What each process listens on stays as it is, and so do the keys. Clients of the gateway
and the harness itself go directly.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pbcluster import config
from pbcluster.cli import procfs
from pbcluster.cli.layout import LOOPBACK, ClusterDir, Plan, Process, to_toml, write_file
from pbcluster.testing.proxies import ProxyNet

#: Settings that name other processes' addresses: one, or a list of them.
_SETTINGS = (
    "raft_peers",
    "request_peers",
    "broadcast_peers",
    "admin_peers",
    "members",
    "broadcasts",
    "s3_endpoint",
)
#: What a member says of itself is where its own door is: the same for all.
_ADVERTISED = ("raft", "requests", "broadcasts", "admin")
#: Holders of connections that are remembered.
RECENT = 8
#: /proc/net/tcp (proc(5)): the loopback address there, and the state of an open connection.
_LOOPBACK_HEX, _ESTABLISHED = "0100007F", "01"
#: sock_diag(7): netlink's family, the kind of question, and where the inode stands in the answer
#: (``nlmsghdr``, then ``inet_diag_msg``).
_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _INODE_AT = 4, 20, 16 + 4 + 48 + 16


def route_through(proxies: ProxyNet, where: ClusterDir, plan: Plan) -> None:
    """Rewrite ``config/*.toml`` so that the plan's processes meet through ``proxies``."""
    owners = {port: p.id for p in plan.processes for port in p.ports.values()}
    for process in plan.processes:
        file = where.config(process.id)
        if not file.exists():
            continue
        content = config.read_toml(file)
        for name in _SETTINGS:
            if name in content:
                content[name] = _routed(proxies, process.id, owners, content[name])
        if process.kind == "node":
            content["advertise"] = _advertised(proxies, plan, process)
        if process.kind == "member":
            content["advertise"] = [
                f"{use}={_url(use)}{proxies.link('', process.id, process.ports[use])}"
                for use in _ADVERTISED
            ]
        write_file(file, to_toml(content))


def _routed(proxies: ProxyNet, own: str, owners: dict[int, str], value: Any) -> Any:
    if isinstance(value, list):
        return [_routed(proxies, own, owners, each) for each in value]
    port = urlsplit(value).port
    if port is None or port not in owners:
        return value
    return value.replace(f":{port}", f":{proxies.link(own, owners[port], port)}", 1)


def _advertised(proxies: ProxyNet, plan: Plan, node: Process) -> str:
    """The address that the node tells: there is one gateway, and nobody else goes there."""
    port = proxies.link(plan.of("gateway")[0].id, node.id, node.ports["http"])
    return f"{'https' if plan.node_tls else 'http'}://{LOOPBACK}:{port}"


def _url(use: str) -> str:
    return f"{'http' if use == 'admin' else 'tcp'}://{LOOPBACK}:"


class Owners:
    """Tells whose a connection is, from the kernel's tables.

    It is asked for each connection that a proxy accepts, and a restore of a database alone makes a
    hundred: who held one just now, or is known by itself, is looked at first, and only then all
    that is below the processes.
    """

    def __init__(self) -> None:
        #: Who held a connection last, the newest at the end → the process it counts as.
        self._recent: dict[procfs.Identity, str] = {}

    def of(self, port: int, to: int, processes: Mapping[str, int]) -> str:
        """The process that holds a connection between two loopback ports; empty: none of these.

        :param port: the connecting side's. Alone it says nothing: several processes may connect
            from the same port to different ones at once.
        :param to: the accepting side's.
        :param processes: id → process id. What is below a process counts as the process.
        """
        inode = _inode_of(port, to)
        if not inode:
            return ""
        for who, name in reversed(list(self._recent.items())):
            if name in processes and _holds(who.pid, inode) and procfs.alive(who):
                return self._found(who, name)
        for name, pid in processes.items():
            if _holds(pid, inode):
                return self._found(procfs.identify(pid), name)
        below = procfs.below(processes.values())
        for name, pid in processes.items():
            for who in below[pid]:
                if _holds(who.pid, inode):
                    return self._found(who, name)
        return ""

    def _found(self, who: procfs.Identity | None, name: str) -> str:
        if who is not None:
            self._recent.pop(who, None)
            self._recent[who] = name
            while len(self._recent) > RECENT:
                del self._recent[next(iter(self._recent))]
        return name


def _inode_of(port: int, to: int) -> str:
    """The connecting socket's inode, asked of the kernel, or looked for in its table; empty: none.

    The table has a row for each connection of the machine, the closed ones too: reading it takes
    milliseconds on a busy one.
    """
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as asked,
    ):
        asked.settimeout(1.0)
        asked.send(_diag_request(port, to))
        answer = asked.recv(8192)
        if answer[4:6] == _SOCK_DIAG_BY_FAMILY.to_bytes(2, sys.byteorder):
            return str(int.from_bytes(answer[_INODE_AT : _INODE_AT + 4], sys.byteorder))
    ends = [f"{_LOOPBACK_HEX}:{each:04X}" for each in (port, to)]
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if fields[1:3] == ends and fields[3] == _ESTABLISHED:
            return fields[9]
    return ""


def _diag_request(port: int, to: int) -> bytes:
    """A question of sock_diag(7) for one TCP connection: ``nlmsghdr``, ``inet_diag_req_v2``."""
    here = socket.inet_aton(LOOPBACK) + bytes(12)
    ends = struct.pack("!HH", port, to) + 2 * here
    body = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 1 << 1) + ends
    body += struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)  # any interface, no cookie
    return struct.pack("=IHHII", 16 + len(body), _SOCK_DIAG_BY_FAMILY, 1, 1, 0) + body


def _holds(pid: int, inode: str) -> bool:
    wanted = f"socket:[{inode}]"
    with contextlib.suppress(OSError):  # it ended
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # it was closed meanwhile
                if os.readlink(descriptor) == wanted:
                    return True
    return False
