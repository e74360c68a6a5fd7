"""The node's front door: requests that a gateway signed, handed to the tenant's PocketBase.

A request goes through these gates, in this order; each refusal before the hand-over carries the
mark "not processed", so that the gateway may send it elsewhere whatever its method:

1. the gateway's signature, else 401;
2. it is for the tenant, not for the platform's own routes in PocketBase, else 404; the tenant is
   within its quotas (``quotas``, ``gates``), else 429 or 507: these go to the client, unmarked;
3. the tenant is assigned here, under the request's epoch or a newer one, and the Host is one of its
   names, else 421;
4. it is loaded: the request waits, its body unread, else 503;
5. a proof of ownership is held at the very moment of the hand-over, else 503.

From the hand-over on a request is ``tenant_request``'s (a restore of a backup
``restore_request``'s); what is read from heads stands in ``heads``, what a refusal says in
``refusals``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime

from pbcluster.errors import Busy, OwnershipLost, PBClusterError, Unauthorized
from pbcluster.node.arrivals import Loading
from pbcluster.node.gates import Gates
from pbcluster.node.heads import SeenRequest, backup_to_restore, see_request
from pbcluster.node.parts import spawn
from pbcluster.node.quotas import Defaults, Quotas, Use
from pbcluster.node.refusals import Refusals, mark_of
from pbcluster.node.restore_request import RestoreRequest
from pbcluster.node.restoring import Restorer
from pbcluster.node.streams import Streams
from pbcluster.node.tenant import Tenant
from pbcluster.node.tenant_request import Door, TenantRequest
from pbcluster.node.tenants import Tenants
from pbcluster.rates import Refusal
from pbcluster.signing import NONE_ELSE, Signed, verify
from pbcluster.web.interfaces import Exchange, RequestHead

#: A request waits so long for its tenant to load.
HOLD_S = 30.0
#: Requests that wait on this node in all; of one tenant: ``quotas.MAX_HELD_PER_TENANT``.
MAX_HELD = 10_000
#: A tenant that comes and goes between two gates: more rounds would mean that it flaps.
MAX_ROUNDS = 5
SAFE_METHODS = frozenset((b"GET", b"HEAD", b"OPTIONS"))


class Front:
    """See the module; :meth:`handle` is the ``RequestHandler``.

    :ivar starting: the node does not know yet what it owns: nothing is taken.
    :ivar draining: the node ends: nothing new is taken.
    """

    def __init__(
        self,
        *,
        tenants: Tenants,
        streams: Streams,
        gateway_keys: Mapping[str, bytes],
        clock: IReactorTime,
        unix_ms: Callable[[], int],
        answered: Callable[[int], None],
        hold_s: float = HOLD_S,
        quotas: Quotas | None = None,
        limited: Callable[[str], None] = lambda reason: None,
        gates: Gates | None = None,
        also: Mapping[str, Sequence[bytes]] = NONE_ELSE,
    ) -> None:
        """
        :param gateway_keys: gateway id → signing key. :param unix_ms: wall clock.
        :param also: further keys, while they are exchanged.
        :param answered: counts the statuses that this node itself answered.
        :param quotas: what tenants may use; None: as much as they like.
        :param limited: counts requests refused because of a tenant's limit, by reason.
        :param gates: what else a request must pass.
        """
        self.starting = True
        self.draining = False
        self._tenants = tenants
        self._refusals = Refusals(
            answered=answered, limited=limited, draining=lambda: self.draining
        )
        self._door = Door(tenants, streams, Restorer(tenants.parts, tenants), self._refusals)
        self._keys = gateway_keys
        self._also = also
        self._clock = clock
        self._seconds: Callable[[], float] = clock.seconds
        self._unix_ms = unix_ms
        self._hold_s = hold_s
        self._quotas: Quotas = quotas if quotas is not None else Quotas(Defaults())
        self._gates: Gates = gates if gates is not None else Gates()
        self._held = 0

    def handle(self, exchange: Exchange) -> None:
        """Take a request."""
        head = exchange.head
        try:
            seen: SeenRequest = see_request(head)
            value = head.first or seen.signed
            if head.first and seen.signed:
                raise Unauthorized("a gateway's signature stands twice")
            if not value and head.target == b"/healthz":
                exchange.respond(200, b'{"status":"ok"}')
                return
            signed: Signed = verify(
                self._keys, head.method, head.target, value, self._unix_ms(), self._also
            )
        except Unauthorized as error:
            self._refusals.refuse(exchange, error)
            return
        write = head.method not in SAFE_METHODS
        known: Tenant | None = self._tenants.find(signed.tenant_id)
        closed = self._gates.refusal(known, head, write)
        if closed is not None:
            self._refusals.refuse(exchange, closed)
            return
        quotas = known.assignment.quotas if known is not None else None
        use = self._quotas.enter(signed.tenant_id, quotas, self._seconds())
        if isinstance(use, Refusal):
            self._refusals.turn_away(exchange, use)
        elif known is not None and self._open(known, head, signed, write):
            self._tenants.cache.asked(signed.tenant_id)
            self._hand_over(exchange, known, signed, use, write)
        else:
            serving = self._serve(exchange, signed, use, write=write)
            spawn(serving, f"a request for {signed.tenant_id}")

    def _open(self, tenant: Tenant, head: RequestHead, signed: Signed, write: bool) -> bool:
        """Whether all further gates are open at this moment: nothing has to be waited for."""
        return (
            not (self.draining or self.starting)
            and tenant.epoch >= signed.epoch
            and tenant.upstream(write) is not None
            and tenant.proven()
            and head.host.decode("latin-1") in tenant.assignment.hosts
        )

    def _hand_over(
        self, exchange: Exchange, tenant: Tenant, signed: Signed, use: Use, write: bool
    ) -> None:
        door, request_id = self._door, signed.request_id
        request: TenantRequest
        if write and backup_to_restore(exchange.head) is not None:
            request = RestoreRequest(door, exchange, tenant, use, request_id, write)
        else:
            request = TenantRequest(door, exchange, tenant, use, request_id, write)
        request.forward()

    async def _serve(self, exchange: Exchange, signed: Signed, use: Use, *, write: bool) -> None:
        handed_over = False
        try:
            admitted = Deferred.fromCoroutine(self._admit(exchange.head, signed, write=write))
            tenant = await (admitted if admitted.called else self._wait(exchange, admitted, use))
            # Nothing may wait between the last gate and the hand-over.
            if tenant is not None and not exchange.client_gone:
                self._hand_over(exchange, tenant, signed, use, write)
                handed_over = True
        except CancelledError:
            return
        except PBClusterError as error:
            if mark_of(error):
                use.untouched()
            self._refusals.refuse(exchange, error)
        finally:
            if not handed_over:
                use.end()

    async def _wait(
        self, exchange: Exchange, admitted: Deferred[Tenant], use: Use
    ) -> Tenant | None:
        """Wait for all gates; None: too many wait, and the request was answered."""
        crowded = use.begin_waiting()
        if crowded is not None or self._held >= MAX_HELD:
            # Only its waiting ends: the load goes on, for whoever comes next.
            admitted.addErrback(lambda failure: failure.trap(CancelledError, PBClusterError))
            admitted.cancel()
            if crowded is None:
                raise Busy(f"{MAX_HELD} requests wait on this node")
            self._refusals.turn_away(exchange, crowded)
            return None
        self._held += 1
        try:
            # Who is gone takes no other's place; only its waiting ends, never a load.
            exchange.when_gone(admitted.cancel)
            return await admitted
        finally:
            self._held -= 1
            use.end_waiting()

    async def _admit(self, head: RequestHead, signed: Signed, *, write: bool) -> Tenant:
        """All gates; when it returns, each is open at this moment."""
        if self.draining:
            raise Loading("this node is being stopped")
        if self.starting:
            raise Loading("this node is starting")
        deadline = self._clock.seconds() + self._hold_s
        self._tenants.cache.asked(signed.tenant_id)
        for _ in range(MAX_ROUNDS):
            tenant = await self._tenants.arrivals.assigned(signed.tenant_id, signed.epoch)
            if head.host.decode("latin-1") not in tenant.assignment.hosts:
                raise OwnershipLost("this host name is not the tenant's", epoch=tenant.epoch)
            tenant = await self._tenants.ready(signed.tenant_id, write=write, deadline=deadline)
            if tenant.proven():
                return tenant
            await tenant.prove()
            if tenant.upstream(write=write) is not None and tenant.proven():
                return tenant
        raise Loading("the tenant comes and goes")
