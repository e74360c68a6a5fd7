"""Requests and responses that servers read differently, as raw bytes with the right answer.

The groups 01 to 40 are the list of bad inputs; those after it came from published research
on request smuggling and from reading the RFCs. Not here, being no question of HTTP's form: 26
and 27 (SNI and ``X-Tenant-ID`` that differ from the Host), 32 (time), 37 (tokens).

    for case in REQUESTS: ...      # RequestCase: bytes, statuses, what went upstream, how it ends
    for case in RESPONSES: ...     # ResponseCase

``python -m pbcluster.testing.http_corpus`` prints the table of ``docs/refused-requests.rst``.
"""

from pbcluster.testing.http_corpus.cases import (
    RequestCase,
    ResponseCase,
    chunked,
    down,
    get,
    line,
    post,
    up,
)
from pbcluster.testing.http_corpus.corpus import GROUPS, REQUESTS, table
from pbcluster.testing.http_corpus.responses import RESPONSES

__all__ = [
    "GROUPS",
    "REQUESTS",
    "RESPONSES",
    "RequestCase",
    "ResponseCase",
    "chunked",
    "down",
    "get",
    "line",
    "post",
    "table",
    "up",
]
