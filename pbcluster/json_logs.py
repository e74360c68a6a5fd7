"""Logs for programs: one JSON object a line, on standard output, if ``log_format`` says so.

A line has ``time`` (UTC, RFC 3339), ``level``, ``logger``, ``service``, ``message``, and each plain
value that the message names under its own name (``request_id``, ``tenant``, ``status``). Nothing of
an event is written that its message does not show: what was kept out of the texts stays out of
these lines. A failure adds ``traceback``.

``twistd`` makes the observer when it starts to log, from what :func:`logged` left in the
application; its own ``--logger`` goes before.
"""

from __future__ import annotations

import json
import string
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from twisted.application.service import IService, MultiService
from twisted.logger import ILogObserver, LogEvent, formatEvent
from twisted.python.components import Componentized
from zope.interface import implementer

from pbcluster.config import ServiceConfig

JSON = "json"
#: A longer message is cut: a line is one write.
MAX_MESSAGE = 16 * 1024
#: What the line itself says.
_OWN = frozenset(("time", "level", "logger", "service", "message", "traceback"))
_parse = string.Formatter().parse


@implementer(ILogObserver)
class JsonLogObserver:
    """Writes events to a stream."""

    def __init__(self, stream: TextIO, service: str) -> None:
        """
        :param service: id of this process, in each line.
        """
        self._stream = stream
        self._service = service

    def __call__(self, event: LogEvent) -> None:
        """Write one event."""
        self._stream.write(line_of(event, self._service) + "\n")
        self._stream.flush()


def line_of(event: LogEvent, service: str) -> str:
    """The JSON object of an event, without a line break."""
    at = datetime.fromtimestamp(event.get("log_time", 0.0), UTC)
    level = event.get("log_level")
    line: dict[str, Any] = {
        "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": level.name if level is not None else "info",
        "logger": str(event.get("log_namespace", "")),
        "service": service,
        "message": formatEvent(event)[:MAX_MESSAGE],
    }
    line |= _named(event)
    failure = event.get("log_failure")
    if failure is not None:
        line["traceback"] = failure.getTraceback()[:MAX_MESSAGE]
    return json.dumps(line, default=str)


def _named(event: LogEvent) -> dict[str, Any]:
    """The plain values that the message names."""
    found: dict[str, Any] = {}
    text = event.get("log_format")
    if not isinstance(text, str):
        return found
    try:
        names = [name for _, name, _, _ in _parse(text) if name and name.isidentifier()]
    except ValueError:
        return found
    for name in names:
        value = event.get(name)
        if name not in _OWN and isinstance(value, str | int | float | bool):
            found[name] = value[:MAX_MESSAGE] if isinstance(value, str) else value
    return found


class _Logged(MultiService):
    """Tells the application, once it is known, how to log."""

    def __init__(self, observer: JsonLogObserver) -> None:
        super().__init__()
        self._observer = observer

    def setServiceParent(self, parent: Any) -> None:
        """See ``IService``."""
        if isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)


def logged(service: IService, config: ServiceConfig) -> IService:
    """``service``, logging as its settings say."""
    if config.log_format != JSON:
        return service
    outer = _Logged(JsonLogObserver(sys.stdout, config.id))
    service.setServiceParent(outer)
    return outer
