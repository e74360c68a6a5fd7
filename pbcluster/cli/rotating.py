"""``keys rotate``: new keys in the place of those in use, and no request fails.

Always in three steps. First whoever checks a key learns the new one and accepts both. Then whoever
shows it gets the new one. When nobody can show the former any more, it is forgotten. Each step is
in the files before a process is told, so that what starts in between starts right; and what was
interrupted is done again from the beginning: what is accepted only grows until the last step.

Secrets are exchanged between files of one directory. Processes of other hosts have files of their
own, which nothing here reaches: with such processes nothing is changed (:meth:`Rotation.check`).
"""

from __future__ import annotations

import hashlib
import signal
import time
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from pbcluster import config
from pbcluster.cli import initialise, procfs, secret_files, state
from pbcluster.cli.admin import AdminClient
from pbcluster.cli.layout import BUCKET, ClusterDir, Plan, write_file
from pbcluster.cli.rereads import reread
from pbcluster.cli.restarting import Restarter
from pbcluster.cli.s3 import s3_serves
from pbcluster.cli.spec import specs
from pbcluster.errors import ConfigError, Conflict, DeadlineExceeded

#: A key is looked at when a request arrives, which takes milliseconds from when it was put in.
OVERLAP_S = 5.0
_S3_WITHIN_S = 20.0
_POLL_S = 0.1
#: So many voters stay a group that can decide while one of them is restarted.
MIN_VOTERS = 3


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


@attrs.frozen
class Rotation:
    """Exchanges keys of one directory's cluster, which runs.

    :ivar shown: is told each step. :ivar overlap_s: how long the former key counts after the last
        process has the new one. :ivar pause: waits so many seconds.
    """

    where: ClusterDir
    plan: Plan
    client: AdminClient
    shown: Callable[[str], None]
    overlap_s: float = OVERLAP_S
    pause: Callable[[float], None] = time.sleep

    def check(self) -> None:
        """Whether keys may be exchanged at all.

        :raises ConfigError: the cluster does not run, or something of it does not serve.
        :raises Conflict: there are processes of other hosts.
        """
        found = state.read_state(self.where)
        rows = found.processes if found is not None else ()
        serving = {row.id for row in rows if row.state == state.SERVING}
        missing = [p.id for p in self.plan.processes if p.id not in serving]
        if state.supervisor(self.where) is None or missing:
            raise ConfigError(
                f"{', '.join(missing) or 'the cluster'} does not serve: keys are exchanged while "
                f"everything runs; see `pbcluster status --dir {self.where.root}`"
            )
        ours = {process.id for process in self.plan.processes}
        kinds = ("members", "nodes", "gateways")
        others = sorted(
            {str(row.get("id")) for kind in kinds for row in self.client.all(kind)} - ours
        )
        if others:
            raise Conflict(
                f"{', '.join(others)} have files of their own on other hosts, which would keep the "
                "former keys: remove them first, and let them join again afterwards",
                ids=others,
            )

    # -- gateways ---------------------------------------------------------------------------------

    def gateways(self) -> list[str]:
        """The signing key of every gateway. :returns: their ids."""
        gateways, nodes = self._ids("gateway"), self._ids("node")
        former = {g: str(self._read(g)["gateway_keys"][g]) for g in gateways}
        fresh = {g: secret_files.fresh_key() for g in gateways}
        for node in nodes:
            also = self._read(node).get("gateway_keys_also", {})
            rows = {g: [*also.get(g, ()), former[g], fresh[g]] for g in gateways}
            secret_files.change(self.where, node, {"gateway_keys_also": also | rows})
        self._tell("every node accepts the new keys too", nodes)
        for gateway in gateways:
            secret_files.change(self.where, gateway, {"gateway_keys": {gateway: fresh[gateway]}})
        initialise.write_all(self.where, self.plan)
        self._tell("every gateway signs with its new key", gateways)
        self._overlap()
        self._forget(nodes, "gateway_keys_also")
        self._tell("no node accepts the former keys", nodes)
        return gateways

    # -- the admin token --------------------------------------------------------------------------

    def admin(self) -> list[str]:
        """The cluster's own admin token. :returns: nothing that could be shown."""
        members = self._ids("member")
        former, fresh = self.where.token(), secret_files.fresh_key()
        for member in members:
            also = list(self._read(member).get("admin_token_hashes_also", ()))
            more = [*also, _digest(former), _digest(fresh)]
            secret_files.change(self.where, member, {"admin_token_hashes_also": more})
        self._tell("every member accepts the new token too", members)
        write_file(self.where.token_file, fresh + "\n", 0o600)
        initialise.write_all(self.where, self.plan)
        self._tell(f"the new token is in {self.where.token_file}", members)
        self._overlap()
        self._forget(members, "admin_token_hashes_also")
        self._tell("no member accepts the former token", members)
        return []

    # -- S3 ---------------------------------------------------------------------------------------

    def s3(self, restarter: Restarter) -> list[str]:
        """The keys of the cluster's own S3. Nodes are restarted one by one: they and Litestream
        have the keys from their start on. :returns: the nodes' ids.

        :raises ConfigError: nodes use another S3.
        """
        (s3,) = self._ids("s3")
        nodes = self._ids("node")
        if "s3_endpoint" in self.plan.settings.get("node", {}):
            raise ConfigError(
                "the nodes use an S3 of yours: make other keys there, write them into "
                f"{self.where.secrets(s3)}, restart the nodes one by one with `pbcluster restart`, "
                "and revoke the former ones"
            )
        former = secret_files.s3_keys(self.where, self.plan)
        fresh = secret_files.fresh_s3_keys()
        new = (fresh["s3_access_key"], fresh["s3_secret_key"])
        also = secret_files.accepted_s3_keys(self.where, self.plan)
        secret_files.change(self.where, s3, {"s3_keys_also": also | dict([former, new])})
        self._s3_takes(new)
        self.shown("S3 accepts the new keys too")
        secret_files.change(self.where, s3, fresh)
        initialise.write_all(self.where, self.plan)
        self._wake_supervisor()  # whatever dies from here on starts with the new keys
        for node in nodes:
            restarter.one(self.plan, self.plan.process(node))
        secret_files.change(self.where, s3, {"s3_keys_also": None})
        self._s3_takes(new, refused=former)
        self._wake_supervisor()
        self.shown("S3 refuses the former keys")
        return nodes

    def _s3_takes(self, keys: tuple[str, str], refused: tuple[str, str] | None = None) -> None:
        """Have SeaweedFS read its keys again. :raises DeadlineExceeded: it does not."""
        spec = next(spec for spec in specs(self.where, self.plan) if spec.kind == "s3")
        for file, text in spec.files.items():
            write_file(file, text, 0o600)
        found = state.read_state(self.where)
        for process in found.processes if found is not None else ():
            if process.id == spec.id and process.identity is not None:
                procfs.send(process.identity, signal.SIGHUP)
        until = time.monotonic() + _S3_WITHIN_S
        while not s3_serves(spec.address, BUCKET, *keys) or (
            refused is not None and s3_serves(spec.address, BUCKET, *refused)
        ):
            if time.monotonic() > until:
                raise DeadlineExceeded(f"{spec.id} does not take its new keys: see its log")
            time.sleep(_POLL_S)

    # -- processes --------------------------------------------------------------------------------

    def processes(self, restarter: Restarter) -> list[str]:
        """The CURVE pair of every member, node and gateway, each with a restart of its own.

        :returns: their ids.
        :raises Conflict: fewer than three members vote: while one is exchanged, the rest could
            decide nothing, and nobody would hear of the new key.
        """
        voters = [row for row in self.client.all("members") if row.get("voter")]
        if len(voters) < MIN_VOTERS:
            raise Conflict(
                f"{len(voters)} members vote: the keys of processes are exchanged with "
                f"{MIN_VOTERS} at least; `pbcluster members add` adds one"
            )
        if self.plan.insecure_plain_sockets:
            raise ConfigError("this cluster has plain sockets: its processes have no keys")
        members = self._ids("member")
        also = {
            name: list(peer.curve_also)
            for name, peer in config.load_peers(self.where.peers_file).items()
        }
        done = []
        for process in restarter.in_order(self.plan):
            secret, public = secret_files.curve_pair("")
            former = secret_files.curve_pair(str(self._read(process.id)["curve_secret"]))[1]
            also[process.id] = [*also.get(process.id, ()), former, public]
            # Accepted first: a process that starts now finds its key there.
            secret_files.accept_peer_keys(self.where, also)
            secret_files.change(self.where, process.id, {"curve_secret": secret})
            initialise.write_all(self.where, self.plan)
            self._tell(f"every member lets {process.id} in by its new key too", members)
            restarter.one(self.plan, process)
            done.append(process.id)
        secret_files.accept_peer_keys(self.where, {})
        self._tell("no member lets anybody in by a former key", members)
        return done

    # -- tools ------------------------------------------------------------------------------------

    def _ids(self, kind: str) -> list[str]:
        return [process.id for process in self.plan.of(kind)]

    def _read(self, name: str) -> dict[str, Any]:
        return config.read_toml(self.where.secrets(name))

    def _tell(self, what: str, names: Iterable[str]) -> None:
        reread(self.where, names)
        self.shown(what)

    def _forget(self, names: Iterable[str], what: str) -> None:
        for name in names:
            secret_files.change(self.where, name, {what: None})

    def _overlap(self) -> None:
        if self.overlap_s:
            self.shown(f"the former key counts for another {self.overlap_s:.0f} s")
            self.pause(self.overlap_s)

    def _wake_supervisor(self) -> None:
        who = state.supervisor(self.where)
        if who is not None:
            procfs.send(who, signal.SIGUSR1)
