"""Twisted's own TCP transports, with less work for each read and each write.

Where the event loop is not uvloop's, connections are Twisted's, of any reactor that watches
descriptors. Through these as they are a request takes the gateway twice what all else takes it: for
each readiness the reactor sets up a logging context, and each write waits for a turn of the loop in
which the descriptor is watched for writing, told ready, and watched no more. So:

* ``waiting`` watches all connections with an epoll of its own, and the reactor watches only that:
  one call of the reactor serves all that are ready.
* ``shortcut`` receives for a connection's protocol, and sends what the kernel takes: at once, or
  when all that are ready were served. Only what it does not take goes Twisted's way.
* ``transports`` are Twisted's classes, with the two.

What must hold: protocols cannot tell these transports from Twisted's, but for speed; bytes are sent
in the order in which they were written, whichever way they go; what one connection's protocol does,
raises or ends harms no other; and ``connectionLost`` comes exactly once, inside a call of the
protocol's own only where Twisted's does (``loseConnection`` after the sending side was closed).

What comes goes to the ``dataReceived`` that the protocol had when the connection was made: only
``startTLS`` puts another in its place.

Not here: UNIX sockets; TLS on the way (Twisted's, on top).
"""
