"""Members and nodes in the admin API: look, let in, take out, hand over, save."""

from __future__ import annotations

from typing import Any

from twisted.web.server import Request

from pbcluster import saved_state
from pbcluster.controlplane import admin_json
from pbcluster.controlplane.admin_guard import AdminRoutes, app, body_of, guarded
from pbcluster.controlplane.admin_members import members_json, new_member, wanted_member
from pbcluster.saved_state import SavedState


class PlatformRoutes(AdminRoutes):
    """The routes below ``members`` and ``nodes``."""

    # -- members ----------------------------------------------------------------------------------

    @app.route("/api/cp/members", methods=["GET"])
    @guarded
    async def list_members(self, request: Request) -> tuple[int, Any]:
        """All control-plane members."""
        page, per_page = admin_json.page_of(request.args)
        await self._consensus.read_barrier()
        shown = members_json(self._group.status(), self._group.records())
        return 200, admin_json.listing(shown, page, per_page)

    @app.route("/api/cp/members", methods=["POST"])
    @guarded
    async def add_member(self, request: Request) -> tuple[int, Any]:
        """Let a new member join; it votes once it has caught up."""
        record = new_member(body_of(request))
        await self._group.add_member(record)
        return 202, {"id": record.id, "voter": False}

    @app.route("/api/cp/members/snapshot", methods=["GET"])
    @guarded
    async def snapshot(self, request: Request) -> tuple[int, Any]:
        """The whole registry but for keys, for ``pbcluster members recover``."""
        await self._consensus.read_barrier()
        registry = self._consensus.registry
        index, encode = registry.applied_index, registry.image(for_operators=True).to_bytes
        image = await self._in_thread(encode)
        at = self._wall_clock().isoformat()
        return 200, saved_state.pack(SavedState(self._cluster_id, index, at, image))

    @app.route("/api/cp/members/transfer", methods=["POST"])
    @guarded
    async def transfer_leadership(self, request: Request) -> tuple[int, Any]:
        """Hand leadership over to the member that the body names."""
        target = wanted_member(body_of(request))
        self._group.transfer_leadership(target)
        return 202, {"to": target}

    @app.route("/api/cp/members/<string:key>", methods=["DELETE"])
    @guarded
    async def remove_member(self, request: Request, key: str) -> tuple[int, Any]:
        """Take a member out of the group."""
        await self._group.remove_member(key)
        return 200, {"id": key, "removed": True}

    # -- nodes ------------------------------------------------------------------------------------

    @app.route("/api/cp/nodes", methods=["GET"])
    @guarded
    async def list_nodes(self, request: Request) -> tuple[int, Any]:
        """A page of all nodes."""
        page, per_page = admin_json.page_of(request.args)
        await self._consensus.read_barrier()
        nodes = [self._node_shown(node.id) for node in self._consensus.registry.nodes()]
        return 200, admin_json.listing(nodes, page, per_page)

    @app.route("/api/cp/nodes/<string:key>", methods=["GET"])
    @guarded
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
