"""How many descriptors this process may have, has, and what fits into them.

A busy gateway or node has one for each connection on either side. Systems allow 1024 by default and
far more on request, so each service asks at its start (:func:`raise_limit`).
"""

from __future__ import annotations

import os
import resource

from twisted.logger import Logger

#: More is of no use, and some systems call a billion "no limit".
MOST = 2**20
#: Kept for everything but proxied connections: sockets of the control plane, child processes'
#: pipes, files, and the accept that must still work to turn somebody away.
RESERVED = 128
#: A proxied request has a connection on either side.
PER_CONNECTION = 2
_OWN = "/proc/self/fd"

log = Logger()


def raise_limit() -> int:
    """Raise the soft limit to the hard one.

    :returns: the limit now; processes started later inherit it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return limit()


def limit() -> int:
    """The soft limit, at most :data:`MOST`."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST if soft == resource.RLIM_INFINITY else min(soft, MOST)


def in_use() -> int:
    """Descriptors that this process has open."""
    # Since Linux 6.2 the size of this directory is the number: 2 µs whatever there is. Before,
    # it is 0, and to count 20,000 entries takes some 10 ms.
    counted = os.stat(_OWN).st_size
    return counted if counted else len(os.listdir(_OWN)) - 1


def fit_connections(wanted: int, descriptors: int | None = None) -> int:
    """How many client connections of a proxy fit; the log says so if those are fewer than wanted.

    :param descriptors: that it may have; None: the limit of this process.
    """
    allowed = limit() if descriptors is None else descriptors
    fit = max(1, min(wanted, (allowed - RESERVED) // PER_CONNECTION))
    if fit < wanted:
        log.warn(
            "{fit} connections at once, not {wanted}: this process may have {allowed} descriptors "
            "(its hard limit, RLIMIT_NOFILE, can be raised where it is started)",
            fit=fit,
            wanted=wanted,
            allowed=allowed,
        )
    return fit
