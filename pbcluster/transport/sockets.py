"""All ZeroMQ sockets of one process: one context, one security, one way to open and to close.

Other modules get their connections here and set no option of security themselves: a socket that
was opened by :class:`Sockets` is either encrypted and behind the allow-list, or plain and on the
loopback. Messages come with what was proven about their sender.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping

import attrs
import zmq
from twisted.logger import Logger

from pbcluster.config import Peer
from pbcluster.errors import ConfigError
from pbcluster.transport.addresses import MemberAddress, is_ipv6, is_loopback, to_bind
from pbcluster.transport.connection import Factory, ReactorFDTime, ZmqConnection
from pbcluster.transport.curve import (
    ROLES,
    ZAP_ENDPOINT,
    AllowList,
    Curve,
    PlainSockets,
    Security,
    ZapHandler,
)
from pbcluster.transport.serving import session_name
from pbcluster.wire import MAX_FRAME_BYTES

#: libzmq cuts the connection of a peer that sends more. Twice our own bound, so that a frame which
#: is merely too large is seen, counted and survived.
FRAME_BYTES_CUT_FACTOR = 2
#: Connections that wait to be allowed; beyond, libzmq lets them try again.
ZAP_HIGH_WATER_MARK = 1000
#: 8 random bytes: nobody guesses the identity of another's session.
TOKEN_BYTES = 8


@attrs.frozen
class Proof:
    """What is known of who sent a message.

    :ivar sender: its proven id; empty when its key is not allowed any more; None when nothing can
        be proven (plain sockets).
    :ivar role: its role by the peers file, or empty.
    """

    sender: str | None
    role: str = ""


NOTHING_PROVEN = Proof(None)
REVOKED = Proof("")

#: Takes the parts of a message (of a ROUTER: the routing identity first) and who sent it.
Received = Callable[[list[bytes], Proof], int | None]


class Sockets:
    """Opens connections and closes them all.

    :ivar identity: routing identity of this process, ``ID.TOKEN``, new for each object.
    """

    def __init__(
        self, reactor: ReactorFDTime, cluster_id: str, own_id: str, security: Security
    ) -> None:
        """
        :param security: ``PlainSockets()`` or ``Curve(…)``; with the latter ``own_id`` must stand
            among the peers with our own key.
        :raises ConfigError: it does not, or a key is none.
        """
        self.reactor = reactor
        self.cluster_id = cluster_id
        self.own_id = own_id
        self.identity = session_name(own_id, secrets.token_hex(TOKEN_BYTES))
        self._security = security
        self._log = Logger()
        self._allowed = AllowList(security.peers if isinstance(security, Curve) else {})
        if isinstance(security, Curve) and not self._is_ours(security.public):
            raise ConfigError(
                f"the key of {own_id} in the peers file does not belong to this process's "
                "curve_secret"
            )
        self._factory = Factory(reactor)
        self._zap = ZapHandler(self._allowed)
        self._zap_socket: ZmqConnection | None = None
        if isinstance(security, Curve):
            self._zap_socket = ZmqConnection(self._factory, zmq.ROUTER, self._zap_request)
            self._zap_socket.socket.set(zmq.RCVHWM, ZAP_HIGH_WATER_MARK)
            self._zap_socket.bind(ZAP_ENDPOINT)

    def counts(self) -> dict[str, int]:
        """Connections accepted and refused by the allow-list."""
        return dict(self._zap.counts)

    def set_peers(self, peers: Mapping[str, Peer]) -> None:
        """Replace the allow-list (CURVE only). Who is no longer in it is not heard any more.

        :raises ConfigError: a key is none or used twice; the former list stays.
        """
        self._allowed.replace(peers)

    def _is_ours(self, key: str) -> bool:
        self._allowed.key_of(self.own_id)
        return self._allowed.is_key_of(self.own_id, key)

    @property
    def own_key(self) -> str:
        """Our own public key; empty with plain sockets."""
        return self._security.public if isinstance(self._security, Curve) else ""

    def peers(self) -> Mapping[str, Peer]:
        """Rows of the peers file as it was at the start; none with plain sockets."""
        return self._security.peers if isinstance(self._security, Curve) else {}

    def public_key(self, process_id: str) -> str:
        """The public key of a process; empty if it is unknown, or with plain sockets."""
        return self._allowed.known_key(process_id)

    def allow(self, peer: Peer) -> None:
        """Allow a further process, or one that is known with a new key. Open sessions stay as they
        are. With plain sockets nothing happens.

        :raises ConfigError: as :meth:`AllowList.allow`, or it is another key for ourselves.
        """
        if isinstance(self._security, PlainSockets):
            return
        if peer.id == self.own_id and peer.curve_public != self._security.public:
            raise ConfigError(f"{peer.id} is this process; it has another key")
        self._allowed.allow(peer)

    def revoke(self, process_id: str) -> None:
        """Allow a process no more, even if it stands in the peers file; :meth:`allow` undoes it."""
        self._allowed.revoke(process_id)

    def change(self, allowed: Collection[Peer], revoked: Collection[str]) -> None:
        """As many calls of :meth:`allow` and :meth:`revoke`, none of them about ourselves.

        :raises ConfigError: as :meth:`allow`; then nothing is changed.
        """
        if isinstance(self._security, Curve):
            self._allowed.change(allowed, revoked)

    def key_of(self, address: MemberAddress) -> str:
        """The key that the process at ``address`` must have now; empty with plain sockets.

        :raises ConfigError: plain sockets off the loopback; id or key of the other side unknown.
        """
        self._check(address.endpoint)
        if isinstance(self._security, PlainSockets):
            return ""
        return self._allowed.key_of(address.member_id)

    def bind(
        self,
        kind: int,
        endpoint: str,
        received: Received,
        *,
        roles: Collection[str] = ROLES,
        options: Mapping[int, int | bytes] | None = None,
        max_frame_bytes: int = MAX_FRAME_BYTES,
    ) -> tuple[ZmqConnection, str]:
        """Listen at ``endpoint`` (port 0: any free one).

        :param roles: with CURVE, who may connect.
        :returns: the connection, and the endpoint with its real port.
        :raises ConfigError: plain sockets off the loopback; address in use or not ours.
        """
        self._check(endpoint)
        chosen: dict[int, int | bytes] = self._common(endpoint, max_frame_bytes)
        if isinstance(self._security, Curve):
            chosen |= {
                zmq.CURVE_SERVER: 1,
                zmq.CURVE_SECRETKEY: self._security.secret.encode(),
                zmq.ZAP_DOMAIN: ",".join(sorted(roles)).encode(),
            }
        curve = isinstance(self._security, Curve)
        connection = ZmqConnection(
            self._factory,
            kind,
            lambda parts, user_id: received(parts, self._proof(user_id)),
            options=chosen | dict(options or {}),
            with_user_id=curve,
        )
        try:
            return connection, connection.bind(to_bind(endpoint))
        except zmq.ZMQError as error:
            connection.shutdown()
            raise ConfigError(f"cannot listen at {endpoint}: {error.strerror}") from None

    def connect(
        self,
        kind: int,
        address: MemberAddress,
        received: Received,
        *,
        options: Mapping[int, int | bytes] | None = None,
        writable: Callable[[bool], None] | None = None,
        max_frame_bytes: int = MAX_FRAME_BYTES,
    ) -> ZmqConnection:
        """Connect to the process at ``address``; with CURVE it must have the key of its id.

        :param writable: as in :class:`ZmqConnection`; meaningful for a DEALER with IMMEDIATE.
        :raises ConfigError: plain sockets off the loopback; id or key of the other side unknown.
        """
        key = self.key_of(address)
        chosen = self._common(address.endpoint, max_frame_bytes)
        proof = NOTHING_PROVEN
        if isinstance(self._security, Curve):
            chosen |= {
                zmq.CURVE_SERVERKEY: key.encode(),
                zmq.CURVE_PUBLICKEY: self._security.public.encode(),
                zmq.CURVE_SECRETKEY: self._security.secret.encode(),
            }
            proof = Proof(address.member_id, "member")
        connection = ZmqConnection(
            self._factory,
            kind,
            lambda parts, _: received(parts, proof),
            identity=self.identity if kind == zmq.DEALER else None,
            options=chosen | dict(options or {}),
            writable=writable,
        )
        try:
            connection.connect(address.endpoint)
        except zmq.ZMQError as error:
            connection.shutdown()
            raise ConfigError(f"cannot connect to {address.endpoint}: {error.strerror}") from None
        return connection

    def close(self) -> None:
        """Close everything at once; unsent messages are lost. May be called twice."""
        self._factory.shutdown()

    def _check(self, endpoint: str) -> None:
        if isinstance(self._security, PlainSockets) and not is_loopback(endpoint):
            raise ConfigError(
                f"{endpoint} is not a loopback address: plain sockets are allowed there only; "
                "use the keys that init wrote, without insecure_plain_sockets"
            )

    def _common(self, endpoint: str, max_frame_bytes: int) -> dict[int, int | bytes]:
        return {
            zmq.MAXMSGSIZE: FRAME_BYTES_CUT_FACTOR * max_frame_bytes,
            zmq.IPV6: int(is_ipv6(endpoint)),
        }

    def _proof(self, user_id: str) -> Proof:
        if isinstance(self._security, PlainSockets):
            return NOTHING_PROVEN
        peer = self._allowed.by_key(user_id)
        return REVOKED if peer is None else Proof(peer.id, peer.role)

    def _zap_request(self, parts: list[bytes], _: str) -> None:
        reply = self._zap.reply(parts)
        if reply is not None and self._zap_socket is not None:
            self._zap_socket.send(reply)
