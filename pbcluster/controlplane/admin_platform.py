"""Members and nodes in the admin API: look, let in, take out, hand over, save."""

from __future__ import annotations

from typing import Any

from twisted.web.server import Request

from pbcluster import saved_state
from pbcluster.controlplane import admin_bodies as bodies
from pbcluster.controlplane import admin_json
from pbcluster.controlplane import admin_query as q
from pbcluster.controlplane.admin_guard import AdminRoutes, endpoint
from pbcluster.controlplane.admin_members import member_record, members_json
from pbcluster.controlplane.admin_table import Query
from pbcluster.controlplane.admin_views import (
    Asked,
    MemberJoins,
    MemberLeft,
    MemberView,
    NodeView,
)
from pbcluster.records import Role
from pbcluster.saved_state import SavedState

MEMBER_FIELDS = q.of_dicts(MemberView)
NODE_FIELDS = q.of_dicts(NodeView)


class PlatformRoutes(AdminRoutes):
    """The routes below ``members`` and ``nodes``."""

    # -- members ----------------------------------------------------------------------------------

    @endpoint(
        "GET",
        "/api/cp/members",
        role=Role.VIEWER,
        query=MEMBER_FIELDS.params(),
        answers={200: list[MemberView]},
    )
    async def list_members(self, request: Request, query: Query) -> tuple[int, Any]:
        """A page of all control-plane members.

        ``index`` is the end of a member's log, ``behind`` the entries that it lacks, ``state``
        probe, replicate or snapshot.
        """
        await self._consensus.read_barrier()
        shown = members_json(self._group.status(), self._group.records())
        return 200, q.listed(shown, query, MEMBER_FIELDS)

    @endpoint(
        "POST",
        "/api/cp/members",
        role=Role.ADMIN,
        body=bodies.NewMember,
        answers={202: MemberJoins},
    )
    async def add_member(self, request: Request, body: bodies.NewMember) -> tuple[int, Any]:
        """Let a new member join; it votes once it has caught up.

        The same again changes nothing. 409: the id was used, an address or key is another's, or
        another change is under way.
        """
        record = member_record(body)
        await self.noted(request, "member.add", record.id)
        await self._group.add_member(record)
        return 202, {"id": record.id, "voter": False}

    @endpoint(
        "GET",
        "/api/cp/members/snapshot",
        role=Role.ADMIN,
        answers={200: bytes},
        here=True,
    )
    async def snapshot(self, request: Request) -> tuple[int, Any]:
        """The whole registry but for keys, for ``pbcluster members recover``."""
        if self._consensus.is_leader:
            # Any member answers this by itself, even without a leader: others only log it.
            await self.noted(request, "member.snapshot")
        await self._consensus.read_barrier()
        registry = self._consensus.registry
        index, encode = registry.applied_index, registry.image(for_operators=True).to_bytes
        image = await self._in_thread(encode)
        at = self._wall_clock().isoformat()
        return 200, saved_state.pack(SavedState(self._cluster_id, index, at, image))

    @endpoint(
        "POST",
        "/api/cp/members/transfer",
        role=Role.ADMIN,
        body=bodies.Transfer,
        answers={202: Asked},
    )
    async def transfer_leadership(self, request: Request, body: bodies.Transfer) -> tuple[int, Any]:
        """Hand leadership over to the member that the body names."""
        await self.noted(request, "member.transfer", body.to)
        self._group.transfer_leadership(body.to)
        return 202, {"to": body.to}

    @endpoint(
        "DELETE",
        "/api/cp/members/<string:key>",
        role=Role.ADMIN,
        answers={200: MemberLeft},
    )
    async def remove_member(self, request: Request, key: str) -> tuple[int, Any]:
        """Take a member out of the group for good.

        404: it is none. 409: it is the last voter, the rest would be no majority, or another change
        is under way.
        """
        await self.noted(request, "member.remove", key)
        await self._group.remove_member(key)
        return 200, {"id": key, "removed": True}

    # -- nodes ------------------------------------------------------------------------------------

    @endpoint(
        "GET",
        "/api/cp/nodes",
        role=Role.VIEWER,
        query=NODE_FIELDS.params(),
        answers={200: list[NodeView]},  # type: ignore[valid-type]
    )
    async def list_nodes(self, request: Request, query: Query) -> tuple[int, Any]:
        """A page of all nodes."""
        await self._consensus.read_barrier()
        nodes = [self._node_shown(node.id) for node in self._consensus.registry.nodes()]
        return 200, q.listed(nodes, query, NODE_FIELDS)

    @endpoint(
        "GET",
        "/api/cp/nodes/<string:key>",
        role=Role.VIEWER,
        answers={200: NodeView},
    )
    async def show_node(self, request: Request, key: str) -> tuple[int, Any]:
        """One node with its tenants."""
        await self._consensus.read_barrier()
        shown = self._node_shown(key)
        shown["tenants"] = sorted(self._consensus.registry.tenants_of(key))
        return 200, shown

    def _node_shown(self, node_id: str) -> dict[str, Any]:
        registry = self._consensus.registry
        node = registry.node(node_id)
        return admin_json.node_json(
            registry, self._liveness, node, self._clock.seconds(), self._wall_clock()
        )
