"""What twistd finds: three services and a reactor. This folder has no ``__init__.py``, on purpose.

Nothing else is imported here: twistd reads every plugin file at each start.
"""

from twisted.application.reactors import Reactor
from twisted.application.service import ServiceMaker

pbcp = ServiceMaker(
    "pbcluster control plane",
    "pbcluster.controlplane.tap",
    "A member of pbcluster's control plane: tenants, nodes, routes, placement, admin API.",
    "pbcp",
)
pbnode = ServiceMaker(
    "pbcluster node",
    "pbcluster.node.tap",
    "A pbcluster node: runs PocketBase processes and replicates them to S3.",
    "pbnode",
)
pbgateway = ServiceMaker(
    "pbcluster gateway",
    "pbcluster.gateway.tap",
    "A pbcluster gateway: brings each request to the node that owns its tenant.",
    "pbgateway",
)
pbuvloop = Reactor(
    "pbuvloop",
    "pbcluster.reactor",
    "asyncio reactor on a uvloop event loop (pbcluster)",
)
