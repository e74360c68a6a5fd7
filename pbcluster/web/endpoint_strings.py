"""Listening where one of Twisted's endpoint strings says.

``tcp:8080:interface=…``, ``unix:…``, ``systemd:…`` (sockets handed over by systemd), ``pbtls:…``
(:mod:`pbcluster.web.tls.endpoint`) and whatever other plugins know. Only endpoints that listen at
once are of use, as all of these do.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.python.failure import Failure

from pbcluster.errors import ConfigError, PBClusterError
from pbcluster.web.streams import listen_alone, streams_of

#: ``(IP address, port)``, or an endpoint string.
Where = tuple[str, int] | str


def listen(reactor: Any, where: Where, factory: Any, option: str) -> IListeningPort:
    """Listen, at an address that nobody else has.

    :param reactor: provides what the endpoint asks for.
    :param option: names the setting in errors.
    :raises ConfigError: it is not possible here; says why.
    """
    if isinstance(where, str):
        return _at_endpoint(endpoint_of(reactor, where, option), where, factory, option)
    host, port = where
    try:
        return listen_alone(streams_of(reactor), host, port, factory)
    except CannotListenError as error:
        raise ConfigError(
            f"cannot listen at {host}:{port} (--{option}): {error.socketError.strerror}"
        ) from None


def endpoint_of(reactor: Any, description: str, option: str) -> IStreamServerEndpoint:
    """The endpoint of a string.

    :raises ConfigError: there is no such kind, or it does not take these words.
    """
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    except PBClusterError:
        raise
    except Exception as error:
        # Whatever a plugin raises for words that it does not know.
        raise ConfigError(f"--{option} {description!r} is no endpoint: {error}") from None
    return endpoint


def _at_endpoint(
    endpoint: IStreamServerEndpoint, description: str, factory: Any, option: str
) -> IListeningPort:
    found: list[Any] = []
    listening: Deferred[IListeningPort] = endpoint.listen(factory)
    listening.addBoth(found.append)
    if not found:
        listening.cancel()
        raise ConfigError(f"--{option} {description!r} does not listen at once; use tcp or unix")
    result = found[0]
    if not isinstance(result, Failure):
        return result  # type: ignore[no-any-return]
    error: BaseException | None = result.value
    if isinstance(error, CannotListenError):
        error = error.socketError
    reason = getattr(error, "strerror", None) or str(error)
    raise ConfigError(f"cannot listen at {description} (--{option}): {reason}")


def url_of(port: IListeningPort, scheme: str) -> str:
    """The URL of what listens; ``unix:`` and a path for what has none."""
    where = port.getHost()
    if isinstance(where, IPv4Address | IPv6Address):
        host = f"[{where.host}]" if ":" in where.host else where.host
        return f"{scheme}://{host}:{where.port}"
    name = getattr(where, "name", b"")
    return f"unix:{name.decode() if isinstance(name, bytes) else name}"
