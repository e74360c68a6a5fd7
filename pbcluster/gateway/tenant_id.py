"""Whose request is it: from a request's head to the key under which its tenant is looked up.

Pure. Rules are asked in order, the first that knows decides; none knows: 404. Today there is one,
:class:`HostRule`: ``NAME.BASE_DOMAIN`` names a tenant, any other host name is looked up among the
custom domains. Address literals, the base domains themselves and anything deeper below them are
never a tenant: a label of an address or of a customer's domain is no name. ``X-Tenant-ID`` (trusted
networks) and platform tokens are further rules behind it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from pbcluster.errors import InvalidInput
from pbcluster.records import check_domain, check_name
from pbcluster.web.interfaces import RequestHead
from pbcluster.wire import LookupRoute

#: Hosts whose key is remembered; a request for another one costs a few microseconds more.
MAX_HOSTS_REMEMBERED = 8192


class TenantKey(NamedTuple):
    """How a tenant is named. ``kind`` is the field of ``wire.LookupRoute`` that takes ``value``."""

    kind: Literal["name", "domain", "tenant_id"]
    value: str

    def question(self, *, place: bool = False, min_epoch: int = 0) -> LookupRoute:
        """What the control plane is asked."""
        return LookupRoute(**{self.kind: self.value}, place=place, min_epoch=min_epoch)


#: Gives the key, or None when it does not know.
Rule = Callable[[RequestHead], TenantKey | None]


class TenantFinder:
    """Asks its rules in order."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)

    def find(self, head: RequestHead) -> TenantKey | None:
        """The tenant's key, or None: no tenant answers there."""
        for rule in self._rules:
            key = rule(head)
            if key is not None:
                return key
        return None


class HostRule:
    """By the Host field: names under the base domains, then custom domains."""

    def __init__(self, base_domains: Sequence[str]) -> None:
        """
        :param base_domains: lower case, without a trailing dot; the longest that fits decides.
        """
        self._base_domains = sorted(set(base_domains), key=len, reverse=True)
        self._remembered = functools.lru_cache(MAX_HOSTS_REMEMBERED)(self.key_of)

    def __call__(self, head: RequestHead) -> TenantKey | None:
        """As :data:`Rule`."""
        return self._remembered(head.host)

    def key_of(self, host: bytes) -> TenantKey | None:
        """The key of a host name: lower case, no port, no trailing dot."""
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
