"""The reactor of the three services: Twisted's asyncio reactor on a uvloop event loop.

``twistd --reactor pbuvloop`` installs it (see ``twisted/plugins/pbcluster_plugins.py``). Without
uvloop the standard asyncio loop is used: slower, otherwise the same.

uvloop takes over the process's signal wake-up descriptor, so Twisted's own SIGCHLD waker stays
silent and a child that died while somebody held its pipes open was noticed only when they were
closed (measured: 2.1 s instead of 0.6 s). uvloop refuses a SIGCHLD handler of its own, but calls
Python's, so that one hands the reaping to the loop.
"""

from __future__ import annotations

import asyncio
import signal

from twisted.internet import asyncioreactor
from twisted.internet.process import reapAllProcesses


def install() -> None:
    """Install the reactor.

    :raises ReactorAlreadyInstalledError: another one is installed.
    """
    loop = new_event_loop()
    asyncio.set_event_loop(loop)
    asyncioreactor.install(loop)
    from twisted.internet import reactor

    # First of all callbacks at start: services that spawn processes come later.
    reactor.callWhenRunning(_reap_on_sigchld, loop)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A uvloop event loop, or asyncio's own where uvloop is not installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def _reap_on_sigchld(loop: asyncio.AbstractEventLoop) -> None:
    def reap(_number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(reapAllProcesses)

    signal.signal(signal.SIGCHLD, reap)
