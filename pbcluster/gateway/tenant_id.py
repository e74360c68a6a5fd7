"""Whose request is it: from a request's head to the key under which its tenant is looked up.

Pure. What a request may say of its tenant, in this order; the first that is there decides, and what
else is there must name the same tenant, or the request is refused with 400 (:func:`objection`):

1. its Host: ``NAME.BASE_DOMAIN`` is tenant NAME, any other host name is looked up among the custom
   domains. Address literals, the base domains themselves and anything deeper below them are never a
   tenant: a label of an address or of a customer's domain is no name. A name below a base domain
   decides even if no tenant has it; a host name that is no tenant's custom domain says nothing;
2. ``X-Tenant-ID``, a tenant's id or name, from trusted networks only: from all others it is as if
   it were not there;
3. a platform token in ``Authorization: Bearer``. PocketBase sends its own tokens in the same field,
   so where 1 or 2 decide, only what bears the beginning of ours is looked at, and nothing else
   delays or refuses the request. One of ours never reaches a tenant, whatever the Host says.

Most requests say it by their Host alone: that is one remembered look-up, and one look at what was
remembered of their fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from pbcluster.errors import CallerError, InvalidInput, NotFound, PBClusterError, Unauthorized
from pbcluster.gateway.forwarding import seen_in
from pbcluster.gateway.rewriting import AUTHORIZATION, check_tenants_own
from pbcluster.gateway.trusted import TrustedNetworks
from pbcluster.platform_tokens import MAX_TOKEN_BYTES, TokenTooLong, is_ours
from pbcluster.records import NAME_RULE, check_domain, check_name, is_tenant_id
from pbcluster.web.interfaces import Headers, RequestHead
from pbcluster.wire import LookupRoute, Route

#: Hosts whose key is remembered; a request for another one costs a few microseconds more.
MAX_HOSTS_REMEMBERED = 8192
UNKNOWN_HOST = "no tenant answers at this host name"
_TENANT_ID = b"x-tenant-id"


class TenantKey:
    """How a tenant is named. ``kind`` is the field of ``wire.LookupRoute`` that takes ``value``.
    Not to be changed. Each request is looked up by one, so it knows its own hash."""

    __slots__ = ("_hash", "kind", "value")

    def __init__(self, kind: Literal["name", "domain", "tenant_id"], value: str) -> None:
        self.kind = kind
        self.value = value
        self._hash = hash((kind, value))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TenantKey):
            return NotImplemented
        return self._is(other)

    def _is(self, other: TenantKey) -> bool:
        return self.value == other.value and self.kind == other.kind

    def __repr__(self) -> str:
        return f"TenantKey({self.kind!r}, {self.value!r})"

    def question(self, *, place: bool = False, min_epoch: int = 0) -> LookupRoute:
        """What the control plane is asked."""
        return LookupRoute(**{self.kind: self.value}, place=place, min_epoch=min_epoch)

    def names(self, route: Route) -> bool:
        """Whether it names the tenant of ``route``."""
        if self.kind == "domain":
            return self.value in route.hosts
        return self.value == (route.name if self.kind == "name" else route.tenant_id)


class Found:
    """What a request says of its tenant. Not to be changed.

    ``key`` decides; ``others`` must name the same tenant. ``by_host``: the Host said it. ``token``:
    it bears a platform token, which must not reach the tenant.
    """

    def __init__(
        self,
        key: TenantKey,
        by_host: bool = True,
        others: tuple[TenantKey, ...] = (),
        token: bool = False,
    ) -> None:
        self.key = key
        self.by_host = by_host
        self.others = others
        self.token = token

    def otherwise(self) -> Found | None:
        """What is left if no tenant has ``key``; None: then no tenant is named."""
        if self.key.kind != "domain" or not self.others:
            return None
        return Found(self.others[0], False, self.others[1:], self.token)

    @property
    def unknown(self) -> str:
        """The sentence if no tenant has ``key``."""
        return UNKNOWN_HOST if self.by_host else "the request names a tenant that does not exist"


class TokenReader(Protocol):
    """Verifies platform tokens (``tokens.Tokens``)."""

    def tenant_of(self, token: bytes) -> str:
        """The tenant's id. :raises Unauthorized: the token is not valid."""


class ContradictingTenants(CallerError):
    """A request names two tenants."""

    code = "contradicting_tenants"

    def __init__(self) -> None:
        super().__init__(
            "the request names two different tenants: its Host, X-Tenant-ID and platform token "
            "must agree"
        )


def objection(found: Found, route: Route) -> PBClusterError | None:
    """Why a request may not go where its key leads, None: it may.

    :param route: what the look-up of ``found.key`` gave.
    """
    if not all(other.names(route) for other in found.others):
        return ContradictingTenants()
    if found.by_host and route.hosts and not found.key.names(route):
        return NotFound(UNKNOWN_HOST)
    return None


class TenantFinder:
    """See the module."""

    def __init__(
        self,
        base_domains: Sequence[str],
        tokens: TokenReader,
        trusted: TrustedNetworks | None = None,
    ) -> None:
        """
        :param base_domains: lower case, without a trailing dot; the longest that fits decides.
        :param trusted: who may send X-Tenant-ID; None: nobody.
        """
        self._rule = HostRule(base_domains)
        self._by_host: dict[bytes, Found | None] = {}
        self._tokens = tokens
        self._trusted = trusted if trusted else None

    def find(self, head: RequestHead) -> Found | None:
        """What the request says of its tenant, or None: nothing.

        :raises InvalidInput: X-Tenant-ID or Authorization cannot be read.
        :raises Unauthorized: the platform token is not valid (``tokens.UnknownKey``: perhaps).
        :raises TokenTooLong: it is.
        """
        host = head.host
        by_host: Found | None = self._by_host.get(host)
        if by_host is None:
            by_host = self._learn(host)
        named = None
        if self._trusted is not None and self._trusted.includes(head.peer_host):
            named = _named(head.headers)
        if (by_host is not None or named is not None) and not seen_in(head).token:
            if named is None:
                return by_host
            if by_host is None:
                return Found(named, False)
            return Found(by_host.key, True, (named,))
        return self._with_token(head.headers, by_host, named)

    def _learn(self, host: bytes) -> Found | None:
        hosts = self._by_host
        if host not in hosts:
            if len(hosts) >= MAX_HOSTS_REMEMBERED:
                hosts.clear()
            hosts[host] = self._rule.found(host)
        return hosts[host]

    def _with_token(
        self, headers: Headers, by_host: Found | None, named: TenantKey | None
    ) -> Found | None:
        token = _bearer(headers)
        if token is None:
            return None
        check_tenants_own(headers)
        keys = [TenantKey("tenant_id", self._tokens.tenant_of(token))]
        if named is not None:
            keys.insert(0, named)
        if by_host is not None:
            keys.insert(0, by_host.key)
        return Found(keys[0], by_host is not None, tuple(keys[1:]), True)


def _values(headers: Headers, name: bytes) -> list[bytes]:
    return [value for key, value in headers if key.lower() == name]


def _named(headers: Headers) -> TenantKey | None:
    """What X-Tenant-ID says; None: it is not there.

    ``Connection`` may name it: it was meant for us all the same, and goes no further.
    """
    values = _values(headers, _TENANT_ID)
    if not values:
        return None
    text = values[0].decode("latin-1")
    try:
        if len(values) > 1:
            raise InvalidInput("it stands twice")
        return TenantKey("tenant_id" if is_tenant_id(text) else "name", _id_or_name(text))
    except InvalidInput:
        rule = f"once, with a tenant's id or name; a name has {NAME_RULE}"
        raise InvalidInput(f"X-Tenant-ID: {rule}", field="X-Tenant-ID", allowed=rule) from None


def _id_or_name(text: str) -> str:
    return text if is_tenant_id(text) else check_name(text)


def _bearer(headers: Headers) -> bytes | None:
    """The bearer token; None: there is none.

    :raises InvalidInput: more than one Authorization field.
    :raises Unauthorized: a token of ours under another scheme.
    """
    values = _values(headers, AUTHORIZATION)
    if not values:
        return None
    if len(values) > 1:
        raise InvalidInput(
            "Authorization stands twice: one field is allowed",
            field="Authorization",
            allowed="one field",
        )
    scheme, _, token = values[0].partition(b" ")
    if scheme.lower() == b"bearer":
        token = token.strip(b" ")
        if len(token) > MAX_TOKEN_BYTES:
            raise TokenTooLong
        return token
    if is_ours(values[0]):
        raise Unauthorized("a platform token is sent as: Authorization: Bearer TOKEN")
    return None


class HostRule:
    """By the Host field: names under the base domains, then custom domains."""

    def __init__(self, base_domains: Sequence[str]) -> None:
        """
        :param base_domains: as :class:`TenantFinder` takes them.
        """
        self._base_domains = sorted(set(base_domains), key=len, reverse=True)

    def found(self, host: bytes) -> Found | None:
        """As :meth:`key_of`."""
        key = self.key_of(host)
        return None if key is None else Found(key)

    def key_of(self, host: bytes) -> TenantKey | None:
        """The key of a host name: lower case, no port, no trailing dot. None: it names none."""
        name = host.decode("latin-1")
        try:
            for base in self._base_domains:
                if name == base:
                    return None
                if name.endswith("." + base):
                    return TenantKey("name", check_name(name[: -len(base) - 1]))
            # An IPv4 literal ends in digits, an IPv6 one has brackets: neither is a domain.
            return TenantKey("domain", check_domain(name))
        except InvalidInput:
            return None
