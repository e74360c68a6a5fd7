"""The files of a cluster directory, and the plan (``cluster.toml``) from which the rest is made.

    DIR/cluster.toml          the plan: id, base domain, every process with its ports
    DIR/config/<id>.toml      settings of one process      DIR/config/peers.toml   all public keys
    DIR/secrets/<id>.toml     its secrets, mode 0600       DIR/admin.token         mode 0600
    DIR/secrets/<id>.tls/     its certificate and key      DIR/secrets/ca/         the authority's
    DIR/secrets/<id>.admin/   those of a member's admin API, on several machines
    DIR/data/<id>/            what it stores               DIR/log/<id>.log        what it prints
    DIR/run/                  supervisor.json, state.json, supervisor.lock, supervisor.log

This module names and reads them; ``initialise`` writes them. Every file is written whole or not at
all: beside, then renamed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import attrs

from pbcluster import config
from pbcluster.config import checks
from pbcluster.errors import ConfigError, InvalidInput, PBClusterError

KINDS = ("s3", "member", "node", "gateway")
LOOPBACK = "127.0.0.1"
MAX_NODES = 32
#: Where a cluster lives unless --dir says otherwise.
DEFAULT_DIR = "cluster"
BUCKET = "pbcluster"


@attrs.frozen
class Process:
    """One process of the plan.

    :ivar kind: one of :data:`KINDS`.
    :ivar ports: what each of its ports is for → its number.
    """

    kind: str
    id: str
    ports: dict[str, int]


@attrs.frozen(kw_only=True)
class Plan:
    """What a cluster consists of. ``cluster.toml`` is its written form.

    :ivar node_tls: gateways and nodes speak TLS, each with a certificate of the cluster's own.
    :ivar binaries: other builds to use, ``NAME=PATH``.
    :ivar settings: kind → further settings of every process of that kind, as in its own file.
    :ivar address: an IP address of this machine at which other machines reach its processes; empty:
        they stay on loopback.
    :ivar joined: of a directory that ``pbcluster join`` made: admin APIs of the cluster's members.
        Its one process has its settings in its file, this plan does not make them.
    :ivar root: the directory it was read from.
    """

    cluster_id: str
    base_domain: str
    insecure_plain_sockets: bool
    processes: tuple[Process, ...]
    node_tls: bool = False
    binaries: tuple[str, ...] = ()
    settings: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    address: str = ""
    joined: tuple[str, ...] = ()
    root: Path | None = attrs.field(default=None, eq=False)

    @property
    def host(self) -> str:
        """The address at which its processes listen."""
        return self.address or LOOPBACK

    def of(self, kind: str) -> tuple[Process, ...]:
        """All processes of a kind, in the plan's order."""
        return tuple(process for process in self.processes if process.kind == kind)

    def process(self, name: str) -> Process:
        """The process with this id.

        :raises InvalidInput: there is none; names those that are.
        """
        for process in self.processes:
            if process.id == name:
                return process
        known = ", ".join(process.id for process in self.processes)
        raise InvalidInput(f"no process {name!r}; there are: {known}", field="id", allowed=known)

    @property
    def gateway_port(self) -> int:
        """Port of the (first) gateway's public listener."""
        return self.of("gateway")[0].ports["http"]

    @property
    def admin_port(self) -> int:
        """Port of the (first) member's admin API."""
        return self.of("member")[0].ports["admin"]

    @property
    def admin_urls(self) -> tuple[str, ...]:
        """URLs of all members' admin APIs: any of them takes any request."""
        return self.joined or tuple(
            f"{self.admin_scheme}://{self.host}:{p.ports['admin']}" for p in self.of("member")
        )

    @property
    def admin_scheme(self) -> str:
        """``https`` on several machines, or if the members' settings say so; else ``http``."""
        own = self.settings.get("member", {}).get("admin_tls")
        return "https" if own or self.address else "http"

    @property
    def admin_ca(self) -> str:
        """File with the authorities of the admin APIs' certificates; empty: the system's."""
        own = self.settings.get("member", {})
        if self.address and self.root is not None and "admin_tls" not in own:
            return str(ClusterDir(self.root).authority / "ca.pem")
        return str(own.get("admin_ca", ""))

    @property
    def gateway_url(self) -> str:
        """URL of the gateway; tenants answer there under their own host names."""
        return f"http://{self.host}:{self.gateway_port}"

    @property
    def admin_url(self) -> str:
        """URL of the admin API."""
        return self.admin_urls[0]

    def tenant_url(self, name: str) -> str:
        """URL of a tenant for browsers."""
        return f"http://{name}.{self.base_domain}:{self.gateway_port}"


@attrs.frozen
class ClusterDir:
    """The paths of one cluster directory (absolute)."""

    root: Path

    @classmethod
    def at(cls, path: Path | str) -> ClusterDir:
        """The directory as an absolute path; it need not exist."""
        return cls(Path(path).expanduser().absolute())

    @property
    def plan_file(self) -> Path:
        """cluster.toml"""
        return self.root / "cluster.toml"

    @property
    def peers_file(self) -> Path:
        """Public keys of all processes."""
        return self.root / "config" / "peers.toml"

    @property
    def token_file(self) -> Path:
        """The admin token, mode 0600."""
        return self.root / "admin.token"

    @property
    def demo_file(self) -> Path:
        """The login of the demo tenant, mode 0600."""
        return self.root / "demo.login"

    @property
    def run(self) -> Path:
        """Where the supervisor notes what runs."""
        return self.root / "run"

    @property
    def state_file(self) -> Path:
        """What runs now, written by the supervisor."""
        return self.run / "state.json"

    @property
    def supervisor_file(self) -> Path:
        """Identity of the supervisor that runs now."""
        return self.run / "supervisor.json"

    @property
    def lock_file(self) -> Path:
        """Locked (flock) by the supervisor as long as it lives."""
        return self.run / "supervisor.lock"

    @property
    def supervisor_log(self) -> Path:
        """Output of a detached supervisor."""
        return self.run / "supervisor.log"

    def replace_file(self, name: str) -> Path:
        """The note that a process is to be replaced."""
        return self.run / f"replace-{name}"

    def config(self, name: str) -> Path:
        """Settings of a process."""
        return self.root / "config" / f"{name}.toml"

    def secrets(self, name: str) -> Path:
        """Secrets of a process, mode 0600."""
        return self.root / "secrets" / f"{name}.toml"

    def tls(self, name: str) -> Path:
        """Certificate, key and authority of a gateway or node, for the TLS between them."""
        return self.root / "secrets" / f"{name}.tls"

    @property
    def authority(self) -> Path:
        """Certificate and key of the cluster's own authority."""
        return self.root / "secrets" / "ca"

    def admin_tls(self, name: str) -> Path:
        """Certificate and key of a member's admin API, on several machines."""
        return self.root / "secrets" / f"{name}.admin"

    def data(self, name: str) -> Path:
        """Data directory of a process."""
        return self.root / "data" / name

    def log(self, name: str) -> Path:
        """Output of a process."""
        return self.root / "log" / f"{name}.log"

    @property
    def joining_file(self) -> Path:
        """What `join` wrote before it asked; gone when it is done. Mode 0600."""
        return self.root / "secrets" / "joining.json"

    @property
    def removed_file(self) -> Path:
        """Ids of processes that were removed from the cluster, one a line."""
        return self.root / "removed.ids"

    def removed(self) -> tuple[str, ...]:
        """Ids that are not to be used again here."""
        try:
            return tuple(self.removed_file.read_text(encoding="utf-8").split())
        except OSError:
            return ()

    def exists(self) -> bool:
        """Whether ``init`` was here."""
        return self.plan_file.exists()

    def load_plan(self) -> Plan:
        """Read ``cluster.toml``.

        :raises ConfigError: there is none, or it is not what ``init`` wrote.
        """
        if not self.exists():
            raise ConfigError(
                f"there is no cluster in {self.root}: make one with `pbcluster init --dir "
                f"{self.root}` or `pbcluster up --dir {self.root}`"
            )
        plan = parse_plan(config.read_toml(self.plan_file), str(self.plan_file))
        return attrs.evolve(plan, root=self.root)

    def token(self) -> str:
        """The admin token.

        :raises ConfigError: it cannot be read.
        """
        return self._read(self.token_file).strip()

    def _read(self, file: Path) -> str:
        try:
            return file.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot read {file}: {error.strerror}") from None


def parse_plan(content: dict[str, Any], where: str) -> Plan:
    """A plan from its TOML form.

    :param where: named in errors.
    :raises ConfigError: something is missing or wrong; names it.
    """
    rows = content.get("processes")
    if not isinstance(rows, list) or not rows:
        raise ConfigError(f"{where} lists no [[processes]]; `pbcluster init` writes a whole one")
    try:
        plan = Plan(
            cluster_id=checks.text(content["cluster_id"]),
            base_domain=checks.domain(content["base_domain"]),
            insecure_plain_sockets=checks.boolean(content["insecure_plain_sockets"]),
            processes=tuple(_parse_process(row, where) for row in rows),
            node_tls=checks.boolean(content.get("node_tls", False)),
            binaries=tuple(map(checks.text, content.get("binaries", ()))),
            settings=content.get("settings", {}),
            address=checks.optional_text(content.get("address", "")),
            joined=checks.several(checks.http_url)(content.get("joined", [])),
        )
    except KeyError as error:
        raise ConfigError(f"{where} lacks {error.args[0]!r}") from None
    except (ValueError, TypeError, PBClusterError) as error:
        raise ConfigError(f"{where}: {error or 'a value is not allowed'}") from None
    for kind in KINDS:
        if not plan.of(kind) and not plan.joined:
            raise ConfigError(f"{where} has no process of kind {kind!r}")
    for kind, rows in plan.settings.items():
        if kind not in KINDS[1:] or not isinstance(rows, dict):
            raise ConfigError(f"{where}: [settings.{kind}]; allowed: {', '.join(KINDS[1:])}")
    return plan


def _parse_process(row: dict[str, Any], where: str) -> Process:
    kind, name, ports = row["kind"], checks.process_id(row["id"]), row["ports"]
    if kind not in KINDS:
        raise ConfigError(f"{where}: kind {kind!r} of {name}; allowed: {', '.join(KINDS)}")
    for use, port in ports.items():
        if not isinstance(port, int) or not 1 <= port <= 65535:
            raise ConfigError(f"{where}: port {use} of {name} is {port!r}; allowed: 1 to 65535")
    return Process(kind, name, dict(ports))


def plan_content(plan: Plan) -> dict[str, Any]:
    """The TOML form of a plan."""
    content: dict[str, Any] = {
        "cluster_id": plan.cluster_id,
        "base_domain": plan.base_domain,
        "insecure_plain_sockets": plan.insecure_plain_sockets,
        "node_tls": plan.node_tls,
        "binaries": list(plan.binaries),
        "processes": [attrs.asdict(process) for process in plan.processes],
    }
    if plan.address:
        content["address"] = plan.address
    if plan.joined:
        content["joined"] = list(plan.joined)
    return content | ({"settings": plan.settings} if plan.settings else {})


def to_toml(content: dict[str, Any]) -> str:
    """TOML of strings, numbers, booleans, lists of them, tables and lists of tables.

    The standard library reads TOML but does not write it; JSON's spelling of strings, numbers,
    booleans and lists of them is TOML's too.
    """
    plain, tables = [], []
    for key, value in content.items():
        if isinstance(value, dict):
            tables.append(_table(f"[{key}]", value))
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            tables.extend(_table(f"[[{key}]]", row, key) for row in value)
        else:
            plain.append(f"{key} = {_toml_value(value)}")
    return "\n".join([*plain, *tables]) + "\n"


def _toml_value(value: Any) -> str:
    # TOML forbids a raw DEL in strings, JSON allows it; nothing else differs for our values.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _table(head: str, rows: dict[str, Any], inside: str = "") -> str:
    name = inside or head.strip("[]")
    lines = [f"\n{head}"]
    lines += [f"{k} = {_toml_value(v)}" for k, v in rows.items() if not isinstance(v, dict)]
    for key, value in rows.items():
        if isinstance(value, dict):
            lines.append(_table(f"[{name}.{key}]", value))
    return "\n".join(lines)


def write_file(file: Path, text: str, mode: int = 0o644) -> None:
    """Write a file whole: beside, synced, renamed. Its mode holds from the first byte."""
    write_bytes(file, text.encode(), mode)


def write_bytes(file: Path, data: bytes, mode: int = 0o600) -> None:
    """As :func:`write_file`, of bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as stream:
        os.fchmod(descriptor, mode)
        stream.write(data)
        stream.flush()
        os.fsync(descriptor)
    os.replace(beside, file)
    # The name is on the disk only with its directory.
    directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
