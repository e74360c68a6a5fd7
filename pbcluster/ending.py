"""How a service that cannot go on ends its process: one sentence, orderly, with exit status 1.

Twisted stops a reactor but gives its process no exit status; ``pbcluster.twistd`` reads the one
that is noted here. Before the reactor runs there is nothing to stop: it stops as soon as it does.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

log = Logger()
_ATTRIBUTE = "pbcluster_exit_status"


def end_process(reactor: Any, program: str, reason: str) -> None:
    """Stop the reactor for a reason that a person must read.

    :param program: what ``twistd`` calls the service.
    :param reason: a sentence, free of secrets.
    """
    log.critical("{program} ends: {reason}", program=program, reason=reason)
    # Twisted's log took over sys.stderr; the person sits at the real one.
    print(f"{program}: {reason}", file=sys.__stderr__, flush=True)
    setattr(reactor, _ATTRIBUTE, 1)
    reactor.callWhenRunning(_stop, reactor)


def _stop(reactor: Any) -> None:
    with suppress(ReactorNotRunning):
        reactor.stop()


def exit_status(reactor: Any) -> int:
    """What the process should end with."""
    return int(getattr(reactor, _ATTRIBUTE, 0))
