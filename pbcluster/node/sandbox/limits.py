"""How much a tenant's process may use, and as which resource limits (setrlimit(2)).

Pure. A tenant's quota wins over the node's setting. Where a control group bounds the memory it is
the bound; elsewhere the size of private memory (RLIMIT_DATA) is, which counts what is reserved
rather than what is used, so it is set higher.
"""

from __future__ import annotations

import attrs

from pbcluster.records import TenantQuotas

#: Descriptors of one PocketBase: connections, databases, pipes.
OPEN_FILES = 4096
#: Threads; Go uses some ten.
THREADS = 256
#: Go maps some hundred MiB that it never touches.
RESERVED_BYTES = 256 * 2**20
#: With less address space Go does not start.
MIN_ADDRESS_SPACE = 2 * 2**30
#: With less, PocketBase does not start well.
MIN_MEMORY_BYTES = 64 * 2**20

# Numbers of the kernel's asm-generic/resource.h, which x86-64 and aarch64 share.
RLIMIT_FSIZE, RLIMIT_DATA, RLIMIT_CORE = 1, 2, 4
RLIMIT_NPROC, RLIMIT_NOFILE, RLIMIT_AS = 6, 7, 9


@attrs.frozen(kw_only=True)
class Limits:
    """Bounds of one tenant's process.

    :ivar memory_bytes: of its memory. :ivar cpu_share: cores that it may fill at most.
    :ivar file_bytes: of one file.
    """

    memory_bytes: int
    cpu_share: float
    file_bytes: int

    def of(self, quotas: TenantQuotas) -> Limits:
        """These, with what the tenant's quotas say instead."""
        memory = quotas.memory_bytes or self.memory_bytes
        return Limits(
            memory_bytes=max(memory, MIN_MEMORY_BYTES),
            cpu_share=quotas.cpu_share or self.cpu_share,
            file_bytes=self.file_bytes,
        )


def resource_limits(
    limits: Limits, *, memory_group: bool, own_user: bool
) -> tuple[tuple[int, int], ...]:
    """Resource → bound.

    :param memory_group: a control group bounds the memory.
    :param own_user: its user is its own, so that the user's processes can be counted.
    """
    bounds = [
        (RLIMIT_CORE, 0),
        (RLIMIT_NOFILE, OPEN_FILES),
        (RLIMIT_FSIZE, limits.file_bytes),
    ]
    if own_user:
        bounds.append((RLIMIT_NPROC, THREADS))
    if not memory_group:
        bounds.append((RLIMIT_DATA, limits.memory_bytes + RESERVED_BYTES))
        bounds.append((RLIMIT_AS, limits.memory_bytes + MIN_ADDRESS_SPACE))
    return tuple(bounds)
