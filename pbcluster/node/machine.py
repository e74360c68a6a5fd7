"""The clocks and the randomness of this machine, as the node's parts are given them."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import UTC, datetime
from time import CLOCK_BOOTTIME, clock_gettime


def boottime() -> float:
    """Seconds since the machine's start, the time it slept included."""
    return clock_gettime(CLOCK_BOOTTIME)


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


def encryption_key(tenant_key: str, tenant_id: str) -> str:
    """The key of a tenant's PocketBase settings: 32 hex characters of HMAC-SHA256."""
    return hmac.new(tenant_key.encode(), tenant_id.encode(), hashlib.sha256).hexdigest()[:32]


def random_word() -> str:
    """A word that nobody else has."""
    return secrets.token_hex(16)
