"""Who may talk to us: CURVE keys, the allow-list, and the handler that enforces it (ZAP).

``Security`` is a value: :class:`PlainSockets` (loopback only) or :class:`Curve`. With CURVE, libzmq
asks a handler at ``inproc://zeromq.zap.01`` about every connection to a listening socket (ZeroMQ
RFC 27): here a key is allowed when it stands in the peers file and its role may use that socket.
The key then comes with every message as ``User-Id``, so that it can be compared with the sender
that the message claims, even after the allow-list has changed.

Secret keys never appear in a ``repr``, a log or an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import attrs
import zmq
import zmq.utils.z85

from pbcluster.config import Peer, Secrets
from pbcluster.errors import ConfigError

#: All roles of the peers file.
ROLES = ("member", "node", "gateway")
#: A member that left: it is let in where it can be told so, and nowhere else.
FORMER = "former"
#: A node or gateway that was removed: it may ask the members, and is refused with the reason.
REMOVED = "removed"
ZAP_ENDPOINT = "inproc://zeromq.zap.01"
_ZAP_VERSION = b"1.0"
_Z85_LENGTH = 40


@attrs.frozen(repr=False)
class KeyPair:
    """A CURVE key pair in Z85 (ZeroMQ RFC 32), 40 characters each. Its ``repr`` shows none."""

    public: str
    secret: str

    def __repr__(self) -> str:
        return f"<KeyPair {self.public[:6]}…>"


def generate_keys() -> KeyPair:
    """A new random key pair."""
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode(), secret.decode())


def public_of(secret: str) -> str:
    """The public key of a secret one.

    :raises ConfigError: not 40 characters of Z85; the text is not shown.
    """
    try:
        return zmq.curve_public(_checked(secret, "curve_secret").encode()).decode()
    except zmq.ZMQError:
        raise ConfigError("curve_secret is no key: 40 characters of Z85 are allowed") from None


@attrs.frozen
class PlainSockets:
    """No encryption and no proof of who it is; endpoints must be loopback addresses."""


@attrs.frozen(repr=False)
class Curve:
    """Encrypted and proven.

    :ivar secret: this process's secret key, Z85.
    :ivar public: its public key.
    :ivar peers: all processes of the cluster by id, this one included.
    """

    secret: str
    public: str
    peers: Mapping[str, Peer]

    def __repr__(self) -> str:
        return f"<Curve {self.public[:6]}… and {len(self.peers)} peers>"

    @classmethod
    def of(cls, secrets: Secrets, peers: Mapping[str, Peer]) -> Curve:
        """From the secrets file and the peers file.

        :raises ConfigError: ``curve_secret`` is missing or no key.
        """
        return cls(secrets.curve_secret, public_of(secrets.curve_secret), peers)


Security = PlainSockets | Curve


class AllowList:
    """Which key belongs to which process; may be changed while connections are open.

    The peers file is the ground; single processes are allowed or revoked on top of it, and stay so
    when the file's rows are replaced. The file alone names further keys of a process
    (``curve_also``), by which it is let in as well, whoever changed the one by which it is reached.
    """

    def __init__(self, peers: Mapping[str, Peer]) -> None:
        """
        :raises ConfigError: two processes with one key, or a key that is none.
        """
        self._file: dict[str, Peer] = {}
        #: On top of the file; None: revoked though it stands there.
        self._changes: dict[str, Peer | None] = {}
        self._by_id: dict[str, Peer] = {}
        self._by_key: dict[str, Peer] = {}
        self.replace(peers)

    def replace(self, peers: Mapping[str, Peer]) -> None:
        """Let ``peers`` be the rows of the file. On an error the former list stays."""
        self._set(dict(peers), self._changes)

    def allow(self, peer: Peer) -> None:
        """Allow a further process, or one that is known with another key.

        :raises ConfigError: its key is none, missing or another's, or the peers file gives it
            another role. The former list stays.
        """
        self.change((peer,), ())

    def change(self, allowed: Iterable[Peer], revoked: Iterable[str]) -> None:
        """As many calls of :meth:`allow` and :meth:`revoke`, in one step.

        :raises ConfigError: as :meth:`allow`; then nothing is changed.
        """
        changes: dict[str, Peer | None] = dict(self._changes)
        for peer in allowed:
            row = self._file.get(peer.id)
            if row is not None and peer.role not in (row.role, FORMER, REMOVED):
                raise ConfigError(f"{peer.id} is a {row.role} by the peers file, not a {peer.role}")
            _checked(peer.curve_public, f"curve_public of {peer.id}")
            changes[peer.id] = peer
        self._set(self._file, changes | dict.fromkeys(revoked))

    def revoke(self, process_id: str) -> None:
        """Allow a process no more, even if it stands in the peers file."""
        self._set(self._file, {**self._changes, process_id: None})

    def _set(self, file: dict[str, Peer], changes: dict[str, Peer | None]) -> None:
        by_id = {name: peer for name, peer in {**file, **changes}.items() if peer is not None}
        by_key: dict[str, Peer] = {}
        for peer in by_id.values():
            if not peer.curve_public:
                continue
            _checked(peer.curve_public, f"curve_public of {peer.id}")
            if peer.curve_public in by_key:
                other = by_key[peer.curve_public].id
                raise ConfigError(f"{peer.id} and {other} have the same key; each needs its own")
            by_key[peer.curve_public] = peer
        for name, row in file.items():
            found = by_id.get(name)
            for key in row.curve_also if found is not None and found.role == row.role else ():
                _checked(key, f"curve_also of {name}")
                if found is not None and by_key.setdefault(key, found).id != name:
                    raise ConfigError(f"{name} and {by_key[key].id} have the same key")
        self._file, self._by_id, self._by_key = file, by_id, by_key
        # Who is in neither is forgotten: ids never come back, and this must not grow with them.
        self._changes = {
            name: peer for name, peer in changes.items() if peer is not None or name in file
        }

    def by_key(self, key: str) -> Peer | None:
        """The process with this public key."""
        return self._by_key.get(key)

    def is_key_of(self, process_id: str, key: str) -> bool:
        """Whether a process is let in by this key."""
        found = self._by_key.get(key)
        return found is not None and found.id == process_id

    def known_key(self, process_id: str) -> str:
        """The public key of a process, empty if there is none."""
        peer = self._by_id.get(process_id)
        return "" if peer is None else peer.curve_public

    def key_of(self, process_id: str) -> str:
        """The public key of a process.

        :raises ConfigError: it is unknown or has none.
        """
        peer = self._by_id.get(process_id)
        if peer is None or not peer.curve_public:
            raise ConfigError(
                f"no curve_public key is known for {process_id!r}; addresses of members "
                "must name them: tcp://HOST:PORT#MEMBER_ID"
            )
        return peer.curve_public


class ZapHandler:
    """Decides about connections. Takes and gives the parts of messages; opens no socket.

    An unknown key may be allowed later (a member that joins), so it is refused for now only: after
    "400" libzmq's connecting side would never try again, after "300" it does so when its time for
    the handshake is over.

    :ivar counts: ``accepted`` and ``refused`` connections.
    """

    def __init__(self, allowed: AllowList) -> None:
        self.counts: Counter[str] = Counter()
        self._allowed = allowed

    def reply(self, parts: Sequence[bytes]) -> list[bytes] | None:
        """The reply to a ZAP request; None for what is no request.

        :param parts: routing identity, empty, version, request id, domain, address, identity,
            mechanism, 32-byte key. The domain lists the roles that may use the socket.
        """
        if len(parts) < 8 or parts[2] != _ZAP_VERSION:
            return None
        way_back, empty, version, request_id, domain, _, _, mechanism = parts[:8]
        key = ""
        if mechanism == b"CURVE" and len(parts) == 9 and len(parts[8]) == 32:
            key = zmq.utils.z85.encode(parts[8]).decode()
        peer = self._allowed.by_key(key)
        fine = peer is not None and peer.role in domain.decode("latin-1").split(",")
        self.counts["accepted" if fine else "refused"] += 1
        code, text, user_id = (b"200", b"OK", key) if fine else (b"400", b"not allowed", "")
        if key and peer is None:
            code, text = b"300", b"not known"
        return [way_back, empty, version, request_id, code, text, user_id.encode(), b""]


def is_key(text: str) -> bool:
    """Whether it has the form of a key."""
    try:
        return bool(_checked(text, "it"))
    except ConfigError:
        return False


def _checked(key: str, what: str) -> str:
    try:
        if len(key) == _Z85_LENGTH and len(zmq.utils.z85.decode(key)) == 32:
            return key
    except (KeyError, ValueError, OverflowError, UnicodeError):
        pass
    except Exception as error:  # struct.error and whatever the decoder meets in odd text
        raise ConfigError(f"{what} is no key ({type(error).__name__})") from None
    raise ConfigError(f"{what} is no key: 40 characters of Z85 are allowed")
