"""The keys that a member holds and knows, at its start and when they are read again.

Who bears the admin token, what members mark requests with that they pass on, which CURVE keys are
let in, and what the leader tells the registry of the members, nodes and gateways that its files
name. What the files say wins over the registry, keys as well as addresses: that is how an exchanged
key becomes known to everybody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pbcluster.config import MemberConfig, Peer, Secrets
from pbcluster.controlplane.admin_auth import AdminAuth
from pbcluster.controlplane.admin_caller import ClientMark
from pbcluster.controlplane.api_tokens import ApiTokens
from pbcluster.controlplane.executor import utc_now
from pbcluster.controlplane.group import processes_of, told_of
from pbcluster.controlplane.membership import Membership
from pbcluster.errors import ConfigError
from pbcluster.options import Parsed
from pbcluster.raft import MemberId
from pbcluster.records import MemberRecord
from pbcluster.transport.sockets import Sockets


class MemberKeys:
    """See the module.

    :ivar mark: for requests that are passed on.
    """

    def __init__(self, config: MemberConfig, secrets: Secrets, sockets: Sockets) -> None:
        self._config = config
        self._secrets = secrets
        self._sockets = sockets
        self._peers: Mapping[str, Peer] = sockets.peers()
        self._auth: AdminAuth | None = None
        self._membership: Membership | None = None
        self._own: MemberRecord | None = None
        self.mark = ClientMark("")
        self._use_token()

    def auth(self, tokens: Callable[[], ApiTokens]) -> AdminAuth:
        """Who may use the admin API.

        :param tokens: gives the API tokens as they are now.
        """
        self._auth = AdminAuth("", tokens, utc_now)
        self._use_token()
        return self._auth

    def start(self, membership: Membership, own: MemberRecord) -> None:
        """Begin to tell the registry.

        :param own: this member's own record.
        """
        self._membership, self._own = membership, own
        membership.start(self._told(own), processes_of(self._peers.values()))

    def use(self, new: Parsed[MemberConfig]) -> None:
        """Secrets and peers were read again.

        :raises ConfigError: they cannot be used, and nothing was changed.
        """
        sockets = self._sockets
        if sockets.own_key:
            own = new.peers.get(self._config.id)
            if own is None or sockets.own_key not in (own.curve_public, *own.curve_also):
                raise ConfigError(f"the peers file lacks the key that {self._config.id} runs with")
            sockets.set_peers(new.peers)
            self._peers = new.peers
        self._secrets = new.secrets
        self._use_token()
        if self._membership is not None and self._own is not None:
            self._membership.use(self._told(self._own), processes_of(self._peers.values()))

    def _use_token(self) -> None:
        now = self._secrets
        self.mark.use(now.admin_token_hash, now.admin_token_hashes_also)
        if self._auth is not None:
            self._auth.use(now.admin_token_hash, now.admin_token_hashes_also)

    def _told(self, own: MemberRecord) -> dict[MemberId, MemberRecord]:
        return told_of(self._config, own, self._key_of)

    def _key_of(self, member: MemberId) -> str:
        row = self._peers.get(member)
        return row.curve_public if row is not None else self._sockets.public_key(member)
