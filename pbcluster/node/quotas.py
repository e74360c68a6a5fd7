"""What one tenant may use of a node: requests a second, requests and event streams at once, waits.

Pure. A tenant's own quotas come with its assignment, and a change of them counts from the next
request on; where they say 0 the node's settings count (:class:`Defaults`). A request is judged
before anything is done for it, so a tenant at its limit costs its neighbours neither a load nor a
place among those that wait. Its excess is refused at once: who waits would hold a connection on
every hop, and the client could not tell a limit from a slow tenant.

A request counts as one until its answer turns out to be an event stream; from then on it counts
among those, which have a bound of their own: subscribers stay for hours, and a hundred of them must
not leave the tenant without a request.

A request that goes back to the gateway untouched ("not processed") gets its token back, since it
comes again: a tenant must not be charged for a node's trouble.
"""

from __future__ import annotations

import math

import attrs

from pbcluster.rates import Refusal, TokenBucket, burst_of, over_rate
from pbcluster.records import TenantQuotas

#: Requests of one tenant that wait for it to load.
MAX_HELD_PER_TENANT = 1_000
#: Tenants remembered before those are forgotten of which there is nothing to remember.
SWEEP_AT = 1_024


@attrs.frozen(kw_only=True)
class Defaults:
    """What counts where a tenant's quotas say 0; 0 here: no limit.

    :ivar burst: of the default rate; 0: two seconds' worth, as for every tenant's own rate.
    :ivar requests: at once, event streams not included.
    """

    requests_per_second: float = 0.0
    burst: int = 0
    requests: int = 0
    event_streams: int = 0


class _Limits:
    def __init__(self, rate: float, burst: float, requests: float, event_streams: float) -> None:
        self.rate = rate
        self.burst = burst
        self.requests = requests
        self.event_streams = event_streams


class _Tenant:
    __slots__ = ("bucket", "held", "limits", "quotas", "requests", "streams")

    def __init__(self, quotas: TenantQuotas, limits: _Limits, now: float) -> None:
        self.quotas = quotas
        self.limits = limits
        self.bucket = TokenBucket(limits.burst, now)
        self.requests = 0
        self.streams = 0
        self.held = 0

    def says_nothing(self, now: float) -> bool:
        """Whether it is as good as one never seen."""
        limits = self.limits
        used = self.requests or self.streams or self.held
        return not used and self.bucket.fill(now, limits.rate, limits.burst) >= limits.burst


class Use:
    """One request of a tenant, from its arrival to its end; every change is told once."""

    __slots__ = ("_charged", "_ended", "_held", "_of", "_quotas", "_stream")

    def __init__(self, quotas: Quotas, of: _Tenant, charged: bool) -> None:
        self._quotas = quotas
        self._of = of
        self._charged = charged
        self._ended = False
        self._held = False
        self._stream = False
        of.requests += 1

    def begin_waiting(self) -> Refusal | None:
        """It waits for its tenant; or why it may not. ``end_waiting`` or ``end`` follows."""
        most = self._quotas.max_held
        if self._of.held >= most:
            # 503: it is nobody's quota, and passes when the tenant is there.
            return Refusal("held", f"{most} requests wait for this tenant already", status=503)
        self._held = True
        self._of.held += 1
        return None

    def end_waiting(self) -> None:
        """It waits no longer."""
        if self._held:
            self._held = False
            self._of.held -= 1

    def become_stream(self) -> Refusal | None:
        """Its answer is an event stream; or why there may be no more of them."""
        of = self._of
        if of.streams >= of.limits.event_streams:
            most = int(of.limits.event_streams)
            told = f"too many event streams of this tenant are open: {most} are allowed"
            return Refusal("event_streams", told, limit=most)
        self._stream = True
        of.requests -= 1
        of.streams += 1
        return None

    def untouched(self) -> None:
        """It goes back as it came, and will come again."""
        if self._charged:
            self._charged = False
            self._of.bucket.give_back(self._of.limits.burst)

    def end(self) -> None:
        """It is over; may be told again."""
        if self._ended:
            return
        self._ended = True
        self.end_waiting()
        if self._stream:
            self._of.streams -= 1
        else:
            self._of.requests -= 1


class Quotas:
    """See the module.

    :ivar max_held: requests of one tenant that may wait.
    """

    def __init__(self, defaults: Defaults, *, max_held: int = MAX_HELD_PER_TENANT) -> None:
        self.max_held = max_held
        self._defaults = defaults
        self._tenants: dict[str, _Tenant] = {}

    def __len__(self) -> int:
        return len(self._tenants)

    def enter(self, tenant_id: str, quotas: TenantQuotas | None, now: float) -> Use | Refusal:
        """A request comes.

        :param quotas: the tenant's; None: it is not assigned to this node, so that its request goes
            back and is counted only. :param now: seconds of any one clock.
        :returns: what must be ended by ``Use.end``; or why it is refused.
        """
        tenant: _Tenant | None = self._tenants.get(tenant_id)
        if tenant is None:
            tenant = self._add(tenant_id, quotas or TenantQuotas(), now)
        if quotas is None:
            return Use(self, tenant, False)
        if quotas is not tenant.quotas:
            self._change(tenant, quotas)
        limits: _Limits = tenant.limits
        if tenant.requests >= limits.requests:
            most = int(limits.requests)
            told = f"too many requests at once for this tenant: {most} are allowed"
            return Refusal("concurrency", told, limit=most)
        if not tenant.bucket.take(now, limits.rate, limits.burst):
            whose = "for this tenant"
            return over_rate(tenant.bucket, limits.rate, limits.burst, whose, "rate")
        return Use(self, tenant, True)

    def _add(self, tenant_id: str, quotas: TenantQuotas, now: float) -> _Tenant:
        if len(self._tenants) >= SWEEP_AT:
            self._tenants = {
                key: each for key, each in self._tenants.items() if not each.says_nothing(now)
            }
        tenant = self._tenants[tenant_id] = _Tenant(quotas, self._limits(quotas), now)
        return tenant

    def _change(self, tenant: _Tenant, quotas: TenantQuotas) -> None:
        """New quotas: a bucket that was full stays full, another keeps what is in it."""
        before, limits = tenant.limits, self._limits(quotas)
        bucket = tenant.bucket
        full = bucket.tokens >= before.burst
        bucket.tokens = limits.burst if full else min(bucket.tokens, limits.burst)
        tenant.quotas, tenant.limits = quotas, limits

    def _limits(self, quotas: TenantQuotas) -> _Limits:
        defaults = self._defaults
        # A rate of its own comes with a burst of its own.
        if quotas.requests_per_second:
            rate, burst = quotas.requests_per_second, quotas.burst
        else:
            rate, burst = defaults.requests_per_second, quotas.burst or defaults.burst
        return _Limits(
            rate=rate,
            burst=burst_of(rate, burst) if rate else math.inf,
            requests=quotas.concurrent_requests or defaults.requests or math.inf,
            event_streams=quotas.event_streams or defaults.event_streams or math.inf,
        )
