"""TLS for the HTTP core: Twisted's own (``twisted.protocols.tls``) over any stream transport.

``names`` (pure: which host names a certificate covers), ``certificates`` (one certificate from its
files), ``directory`` (all of them, chosen by name, read again when they change), ``contexts``
(OpenSSL contexts and what they allow), ``server`` (a listener's side of the connection, its bounds
and counts), ``watch`` (looking at files every few seconds), ``endpoint`` (the endpoint string
``pbtls:``).

``mutual`` and ``client`` are for gateway and node: certificates of the cluster's own authority
(``pbcluster.authority``), the node's identity verified by service-identity.

Not here: redirects, HSTS (``pbcluster.gateway``), getting certificates.
"""
