"""What came without TLS is sent to https, if the settings say so. Pure.

Status 308: method and body stay. Health questions and ACME's challenges are let through, since who
asks them may not follow, or not speak TLS at all.
"""

from __future__ import annotations

from collections.abc import Callable

from pbcluster.web.interfaces import RequestHead

OFF, KNOWN, ALL = "off", "known", "all"
HTTPS_PORT = 443
_HEALTH = b"/api/health"
_ACME = b"/.well-known/acme-challenge/"


class Redirects:
    """Decides for each request that came without TLS.

    :ivar made: redirects answered.
    """

    def __init__(self, which: str, covers: Callable[[str], bool], port: Callable[[], int]) -> None:
        """
        :param which: ``off``, ``known`` (hosts that a certificate covers) or ``all``.
        :param covers: whether a certificate covers a host.
        :param port: where clients reach the gateway by TLS.
        """
        self.made = 0
        self._which = which
        self._covers = covers
        self._port = port

    def location(self, head: RequestHead) -> bytes | None:
        """Where a request is to be made instead; None: it is served as it is."""
        if head.secure or self._which == OFF or _is_exempt(head):
            return None
        if self._which == KNOWN and not self._covers(head.host.decode("latin-1")):
            return None
        self.made += 1
        port = self._port()
        authority = head.host if port == HTTPS_PORT else b"%s:%d" % (head.host, port)
        return b"https://" + authority + (b"/" if head.target == b"*" else head.target)


def _is_exempt(head: RequestHead) -> bool:
    path = head.target.partition(b"?")[0]
    return path.startswith(_ACME) or (path == _HEALTH and head.method in (b"GET", b"HEAD"))
