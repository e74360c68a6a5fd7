"""The HTTP/1.1 proxy core that the gateway and the node's front door share.

``interfaces`` says what the two may ask of it. Rules (what a request may look like, RFC 9110 and
9112) stand apart from transports, so that tests feed bytes. What must hold: a request that is not
beyond doubt is answered 400 and never forwarded; nothing is buffered whole, a slow reader slows its
writer; a response is never ended cleanly if its source broke off.

Pure: ``rules`` (request heads), ``response_head``, ``headers``, ``chunked`` (bodies), ``replay``
(bodies that can be sent again), ``answers`` (bytes of responses), ``limits``.
Shells: ``server`` (``HTTPServerFactory``), ``server_connection`` and ``closing`` (one client's
connection and its end), ``exchange`` and ``attempt`` (one request, one try to forward it;
``upstream_request``: its bytes), ``client`` and ``pool`` (upstream connections), ``deadline``.

    pool = UpstreamPool(reactor, tcp_endpoints(reactor))
    factory = HTTPServerFactory(handler, Limits(), reactor, pool=pool)
    ...                                   # listen with it; at the end stop listening, then:
    await factory.drain(30.0)
    pool.close()

Not here: TLS, access logs, which tenant, who may ask (the handlers), upgrades and WebSockets
(refused or stripped), compression (never touched), trailers (dropped).
"""
