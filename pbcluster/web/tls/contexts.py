"""OpenSSL contexts, and what they allow: TLS 1.2 and 1.3, forward secrecy, authenticated ciphers.

No compression, no renegotiation. Sessions are resumed by tickets whose keys live in the listener's
first context only, in memory; a new one each day ends the old keys. Between gateway and node
nothing is resumed: a resumed session would not verify the other side's certificate again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from OpenSSL import SSL, crypto

from pbcluster.errors import ConfigError
from pbcluster.web.tls.certificates import Certificate

#: For TLS 1.2; those of 1.3 are all good. Elliptic ones only: no Diffie-Hellman group to choose.
CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!SHA1"
HTTP_11 = b"http/1.1"
#: Sessions of a listener are never taken for another's.
_SESSION_ID = b"pbcluster"

VerifyCallback = Callable[[SSL.Connection, crypto.X509, int, int, int], bool]


def bare(method: int) -> SSL.Context:
    """A context without a certificate.

    :param method: ``SSL.TLS_SERVER_METHOD`` or ``SSL.TLS_CLIENT_METHOD``.
    """
    context = SSL.Context(method)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(CIPHERS)
    context.set_options(
        SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE
    )
    # Buffers of idle connections are given back.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    return context


def serve(context: SSL.Context, certificate: Certificate) -> None:
    """Let a context present a certificate.

    :raises ConfigError: OpenSSL does not take it.
    """
    own, *others = certificate.chain
    try:
        context.use_certificate(own)
        for other in others:
            context.add_extra_chain_cert(other)
        context.use_privatekey(certificate.key)
        context.check_privatekey()
    except SSL.Error as error:
        raise ConfigError(f"OpenSSL does not take {certificate.file}: {reason(error)}") from None


def of_certificate(certificate: Certificate) -> SSL.Context:
    """What a connection of the listener changes to once its certificate is chosen.

    :raises ConfigError: OpenSSL does not take it.
    """
    context = bare(SSL.TLS_SERVER_METHOD)
    serve(context, certificate)
    context.set_session_id(_SESSION_ID)
    # OpenSSL asks the context that a connection changed to, not its first one.
    context.set_alpn_select_callback(_choose_protocol)
    return context


def listener(choose: Callable[[SSL.Connection], None]) -> SSL.Context:
    """The first context of every connection of a listener; it holds the ticket keys.

    It has no certificate: where ``choose`` sets no other context, the handshake is refused with the
    alert handshake_failure.

    :param choose: called with each connection once its client hello came, whether that has a server
        name or not. It must not raise.
    """
    context = bare(SSL.TLS_SERVER_METHOD)
    context.set_session_id(_SESSION_ID)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # tickets only: no memory for each client
    context.set_tlsext_servername_callback(choose)
    return context


def mutual(
    method: int,
    certificate: Certificate,
    authorities: Sequence[crypto.X509],
    verify: VerifyCallback,
) -> SSL.Context:
    """A context of gateway or node that shows its certificate and demands the other's.

    :param authorities: the only ones that are trusted.
    :param verify: called for each certificate of the other's chain, its own last.
    :raises ConfigError: OpenSSL does not take the certificate.
    """
    context = bare(method)
    serve(context, certificate)
    store = context.get_cert_store()
    assert store is not None
    for authority in authorities:
        store.add_cert(authority)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, verify)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET)
    return context


def _choose_protocol(connection: SSL.Connection, offered: list[bytes]) -> bytes:
    if HTTP_11 in offered:
        return HTTP_11
    # RFC 7301, section 3.2: the alert no_application_protocol. What is raised here becomes it.
    raise SSL.Error([("", "", "no application protocol in common")])


def reason(error: SSL.Error) -> str:
    """OpenSSL's words for what went wrong, the last first."""
    try:
        return str(error.args[0][-1][2])
    except (IndexError, TypeError):
        return str(error) or type(error).__name__
