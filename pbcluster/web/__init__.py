"""The HTTP/1.1 proxy core that the gateway and the node's front door share.

``interfaces`` says what the two may ask of it. Rules (what a request may look like, RFC 9110 and
9112) stand apart from transports, so that tests feed bytes. What must hold: a request that is not
beyond doubt is answered 400 and never forwarded; nothing is buffered whole, a slow reader slows its
writer; a response is never ended cleanly if its source broke off.
"""
