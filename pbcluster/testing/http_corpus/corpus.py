"""All cases together, what their groups are about, and the table that the documentation shows."""

from __future__ import annotations

from pbcluster.testing.http_corpus import (
    accepted,
    refused_bodies,
    refused_heads,
    refused_lines,
    sequences,
)
from pbcluster.testing.http_corpus.cases import RequestCase
from pbcluster.testing.http_corpus.refused_heads import Refused

#: Number of a group → what it is about, and why that is not taken on trust.
GROUPS = {
    "01": ("Content-Length, then Transfer-Encoding", "the classic of request smuggling (CL.TE)"),
    "02": ("Transfer-Encoding, then Content-Length", "the same the other way round (TE.CL)"),
    "03": ("Transfer-Encoding other than chunked", "where the body ends is not known"),
    "04": ("Transfer-Encoding in disguise", "what one server ignores the next one obeys (TE.TE)"),
    "05": ("Transfer-Encoding twice", "the first or the last may count"),
    "06": ("Transfer-Encoding in HTTP/1.0", "old servers do not know it"),
    "07": ("two Content-Lengths, or a list", "the first or the last may count, even if equal"),
    "08": ("Content-Length that is no decimal number", "read as another number, or as none"),
    "09": ("chunk size that is no hexadecimal number", "read as another number, or cut to 64 bits"),
    "10": ("stray line ends in a chunk's size line", "the extension may hide the chunk's end"),
    "11": ("chunk that does not end where its size says", "the rest could be a request"),
    "12": ("bare LF", "a line end for some only"),
    "13": ("bare CR", "a line end for some only"),
    "14": ("folded lines", "one field or two"),
    "15": ("NUL and control characters", "may end a string, or a line of a log"),
    "16": ("field names that are no tokens", "may be trimmed into another name"),
    "17": ("no Host", "whose request it is would be a guess"),
    "18": ("two Hosts", "the first or the last may count"),
    "19": ("Host that is no host name", "parts of it may be taken for path, user or port"),
    "20": ("target that is no path", "must agree with the Host, and goes on as a path"),
    "21": ("port in the Host", "a number from 1 to 65535, of no account for the tenant"),
    "22": ("trailing dot of the Host", "one is taken off"),
    "23": ("upper case in the Host", "made lower"),
    "24": ("international names", "as A-labels only: folding them is not ours to do"),
    "25": ("addresses as Host", "never a tenant"),
    "28": ("fields named by Connection", "go before ours are added, so that none of ours can go"),
    "29": ("underscores in field names", "CGI reads X_A as X-A: left out"),
    "30": ("sizes of line and fields", "bounded"),
    "31": ("number of fields", "bounded"),
    "33": ("upgrades and other protocols", "HTTP/1.1 is spoken here; an upgrade is left out"),
    "34": ("methods", "no tunnel, no echo, none that is not known"),
    "35": ("versions and the first line's form", "single spaces, HTTP/1.1 or HTTP/1.0"),
    "36": ("characters of the target", "goes on byte for byte, or not at all"),
    "38": ("expectations", "100-continue only; 100 comes from upstream only"),
    "39": ("trailers and contents", "trailers are checked and left out, contents untouched"),
    "40": ("several requests on a connection", "one after the other; a bad one ends it"),
    "41": ("what stands before a request", "one empty line is forgiven"),
    "42": ("Connection: close", "ends the connection after the answer"),
    "43": ("HTTP/1.0", "answered, without chunks and 100"),
    "44": ("bodies where few expect them", "framed like all others"),
    "45": ("names that only look like others", "ordinary fields"),
}


def _refused(cases: Refused, in_body: bool = False) -> list[RequestCase]:
    return [
        RequestCase(name, raw, (status,), in_body=in_body) for name, (raw, status) in cases.items()
    ]


def _accepted(cases: accepted.Accepted, closed: bool = False) -> list[RequestCase]:
    return [
        RequestCase(name, raw, (200,), (sent,), closed=closed)
        for name, (raw, sent) in cases.items()
    ]


REQUESTS = (
    *_refused(refused_heads.FRAMING),
    *_refused(refused_heads.LINES),
    *_refused(refused_heads.HOSTS),
    *_refused(refused_lines.TARGETS),
    *_refused(refused_lines.METHODS_AND_VERSIONS),
    *_refused(refused_lines.SIZES),
    *_refused(refused_lines.EXPECTATIONS),
    *_refused(refused_bodies.BODIES, in_body=True),
    *_accepted(accepted.BODIES),
    *_accepted(accepted.HOSTS_AND_TARGETS),
    *_accepted(accepted.FIELDS_ODD),
    *_accepted(accepted.ENDING, closed=True),
    *_accepted(accepted.STAYING),
    *sequences.SEQUENCES,
)


def table() -> str:
    """A reStructuredText table: a row for each group, with its answers and numbers of cases."""
    rows = []
    for group, (what, why) in GROUPS.items():
        cases = [case for case in REQUESTS if case.group == group]
        statuses = sorted({s for case in cases for s in case.statuses if s != 200})
        answers = ", ".join(str(status) for status in statuses) or "passes"
        taken = sum(not case.refused for case in cases)
        rows.append((group, what, answers, str(len(cases) - taken), str(taken), why))
    header = ("no.", "what", "answer", "refused", "passed", "why")
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (header, *rows):
        lines.append(f"   * - {row[0]}")
        lines.extend(f"     - {cell}" for cell in row[1:])
    return "\n".join(lines) + "\n"
