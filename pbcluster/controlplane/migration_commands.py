"""Commands of migrations, part of :data:`commands.AnyCommand`: ``migration`` says what they do to
the record of one, ``migration_changes`` applies them."""

from __future__ import annotations

from datetime import datetime

from pbcluster.controlplane.command_base import Command


class StartMigration(Command, frozen=True):
    """Begin to move a tenant. Fails unless its epoch still is ``expected_epoch``, if it moves
    already, and if the target may not have it."""

    at: datetime
    migration_id: str
    tenant_id: str
    target_node: str
    expected_epoch: int


class MigrationWarmed(Command, frozen=True):
    """The target has a copy of ``size_bytes`` at transaction ``txid``."""

    at: datetime
    migration_id: str
    tenant_id: str
    size_bytes: int
    txid: int


class DrainTenant(Command, frozen=True):
    """So many gateways hold its requests: the source shall hand the tenant over."""

    at: datetime
    migration_id: str
    tenant_id: str
    gateways: int


class MigrationDrained(Command, frozen=True):
    """The source gave it up, all of it is in S3 up to ``txid``: the target gets a new epoch."""

    at: datetime
    migration_id: str
    tenant_id: str
    epoch: int
    txid: int
    settled: bool


class MigrationReady(Command, frozen=True):
    """The target serves under ``epoch``: done."""

    at: datetime
    migration_id: str
    tenant_id: str
    epoch: int


class AbortMigration(Command, frozen=True):
    """End it without a move; after the switch only the waiting for its end is given up."""

    at: datetime
    migration_id: str
    tenant_id: str
    reason: str


class RetireRoute(Command, frozen=True):
    """The old route of a migration that is done has had no traffic for long enough."""

    at: datetime
    migration_id: str
    tenant_id: str
