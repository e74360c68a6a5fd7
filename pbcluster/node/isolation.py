"""What a node keeps its tenants in: the sandbox of their processes, and their way out.

Made from the settings; says in the log, at the status page and in the metrics what is active.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from pbcluster.config import NodeConfig
from pbcluster.config.checks import split_range
from pbcluster.errors import ConfigError
from pbcluster.node.egress.proxy import EgressProxy
from pbcluster.node.sandbox.limits import Limits
from pbcluster.node.sandbox.sandbox import Sandbox, SandboxSettings

log = Logger()


class Isolation:
    """See the module. :ivar sandbox: of the tenants' processes. :ivar egress: None: it is off."""

    def __init__(
        self,
        reactor: Any,
        config: NodeConfig,
        binary: Path,
        known: Callable[[], Iterable[str]],
    ) -> None:
        """
        :param binary: PocketBase. :param known: tenants that have a directory here.
        """
        self.sandbox = Sandbox(
            SandboxSettings(
                mode=config.sandbox,
                insecure=config.insecure_no_sandbox,
                users=split_range(config.tenant_uids) if config.tenant_uids else None,
                capacity=config.capacity,
                limits=Limits(
                    memory_bytes=config.tenant_memory_bytes,
                    cpu_share=config.tenant_cpu_share,
                    file_bytes=config.tenant_file_bytes,
                ),
            ),
            config.data_dir,
            binary,
            known,
        )
        self.egress: EgressProxy | None = None
        if config.egress:
            self.egress = EgressProxy(
                reactor,
                connections=config.egress_connections,
                refused=map(ipaddress.ip_network, config.egress_refused),
            )

    def begin(self) -> None:
        """After the sandbox was prepared: open the way out, and tell.

        :raises ConfigError: the proxy cannot listen.
        """
        if self.egress is not None:
            try:
                self.egress.listen()
            except CannotListenError as error:
                raise ConfigError(f"the egress proxy cannot listen: {error}") from None
        parts = ", ".join(f"{name}: {state}" for name, state in sorted(self.report().items()))
        tell = log.warn if self.sandbox.mechanism == "none" else log.info
        tell("tenants are confined by {parts}", parts=parts)

    def connect_ports(self, tenant_id: str) -> tuple[int, ...]:
        """Ports that the tenant may connect to on behalf of what is kept here."""
        return (self.egress.port,) if self.egress is not None and self.egress.port else ()

    def environment(self, tenant_id: str) -> dict[str, str]:
        """What the tenant's process is told of it."""
        return self.egress.environment(tenant_id) if self.egress is not None else {}

    def report(self) -> dict[str, str]:
        """Part → "on" or its kind, or why it is off."""
        return {**self.sandbox.report, "egress": "on" if self.egress is not None else "off"}

    def close(self) -> None:
        """After every tenant ended."""
        if self.egress is not None:
            Deferred.fromCoroutine(self.egress.stop())
        self.sandbox.close()
