"""Streams of libuv behind Twisted's transport interfaces.

Twisted's own TCP transports are written in Python: reading and writing a request through them costs
three times as much as all else. uvloop's streams are libuv's, and a protocol that is ours costs one
call for each read. This package is the thin coat between the two: ``transport`` (what
``Protocol.transport`` is asked for), ``listening`` and ``connecting`` as Twisted's endpoints do it.

What must hold: protocols cannot tell these transports from Twisted's, but for speed. In particular
``connectionLost`` comes exactly once, never inside a call of the protocol's own, with
``ConnectionDone`` for an orderly end and ``ConnectionLost`` for any other; a producer is paused
when more than ``limits.HIGH_WATER_BYTES`` wait to be sent and resumed when few do;
``loseConnection`` sends what was written first; ``abortConnection`` does not, and its peer sees a
reset, never an end that looks orderly.

Not here: UNIX sockets, TLS (Twisted's, on top), half-closed connections beyond
``loseWriteConnection`` (a peer that closes its sending side is gone, as with Twisted's default).
"""
