"""pbcluster: many PocketBase backends on many machines, as one platform.

Three services, each a twistd plugin: the control plane (``twistd pbcp``), which knows every tenant,
node and route; the node (``twistd pbnode``), which runs one PocketBase process a tenant and
replicates it to S3; and the gateway (``twistd pbgateway``), which brings each request to the node
that owns its tenant. ``docs/architecture.rst`` says what must hold between them.
"""

__version__ = "0.1.0"
