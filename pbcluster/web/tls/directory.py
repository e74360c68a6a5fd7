"""All certificates of a listener, from a directory of files; read again when the files change.

======================================  ============================================================
``NAME.pem``                            the chain and the private key in one file
``NAME.crt`` and ``NAME.key``           the chain, and its key (``NAME.pem`` beside ``NAME.key``
                                        is the chain alone)
``NAME/fullchain.pem`` and              the same, as certbot keeps them; symbolic links are followed
``NAME/privkey.pem``
======================================  ============================================================

``NAME`` is how a certificate is reported; which hosts it serves, its subjectAltName says. ``NAME``
``default`` serves also who names no host, or one that no certificate covers; without it those
handshakes are refused. Other files, and what begins with a dot, are left alone.

A certificate that cannot be used is a *problem*, reported by its name: the others are served, and
of this one what was served before, if anything. One out of its time is served all the same (its
clients then say why), unless what it replaces is still good. What vanishes from the directory is
served until it was missing twice, since renewing tools replace a link by removing it first.

:func:`gather` does the work and may run in a thread; :class:`CertificateDirectory` belongs to the
reactor's. Open connections keep what they have.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path

import attrs
from OpenSSL import SSL
from twisted.logger import Logger

from pbcluster.errors import ConfigError
from pbcluster.web.tls import certificates, contexts, names
from pbcluster.web.tls.certificates import BadCertificate, Certificate

log = Logger()

DEFAULT = "default"
#: Each costs an OpenSSL context, some 50 KiB, and three stats at each look.
MAX_CERTIFICATES = 10_000
#: The directory itself, as the name of a problem.
ITSELF = "."
#: So long before its expiry a certificate is spoken of in the log, once a load.
WARN_DAYS = 7.0

Stamp = tuple[tuple[int, ...] | None, ...]


@attrs.frozen
class Source:
    """Where one certificate stands, and what changes when its files do."""

    chain_file: Path
    key_file: Path
    stamp: Stamp


@attrs.frozen(kw_only=True)
class Entry:
    """One name in the directory.

    :ivar stamp: of the files that were last read.
    :ivar certificate: what is served; None: nothing. :ivar context: what serves it.
    :ivar problem: a sentence if what stands there now is not what is served, or is out of its time.
    :ivar failed: what stands there could not be used: it is tried again at each look.
    """

    stamp: Stamp
    certificate: Certificate | None = None
    context: SSL.Context | None = attrs.field(default=None, repr=False)
    problem: str = ""
    failed: bool = False
    missing: bool = False


@attrs.frozen
class Loaded:
    """What a look at the directory gave.

    :ivar entries: by name. :ivar by_host: host name or wildcard → what serves it.
    """

    entries: Mapping[str, Entry] = attrs.field(factory=dict)
    by_host: Mapping[str, Entry] = attrs.field(factory=dict, repr=False)
    problem: str = ""

    def find(self, host: str) -> Entry | None:
        """What serves ``host`` (in its normal form): its own name comes before a wildcard."""
        return self.by_host.get(host) or self.by_host.get(names.wildcard_of(host))

    @property
    def default(self) -> Entry | None:
        """What serves who names no host, or an unknown one."""
        entry = self.entries.get(DEFAULT)
        return entry if entry is not None and entry.certificate is not None else None

    @property
    def problems(self) -> dict[str, str]:
        """Name → sentence."""
        found = {name: entry.problem for name, entry in self.entries.items() if entry.problem}
        return found | ({ITSELF: self.problem} if self.problem else {})


# -- looking --------------------------------------------------------------------------------------


def _stamp(file: Path) -> tuple[int, ...] | None:
    try:
        seen = file.stat()
    except OSError:
        return None
    return seen.st_dev, seen.st_ino, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size


def sources(directory: Path) -> dict[str, Source]:
    """Name → its files. :raises OSError: the directory cannot be listed."""
    with os.scandir(directory) as listing:
        present = sorted(each.name for each in listing if not each.name.startswith("."))
    pairs: dict[str, tuple[Path, Path]] = {}
    known = set(present)
    for name in present:
        stem, dot, kind = name.rpartition(".")
        own = directory / name
        if dot and kind == "key":
            pairs.setdefault(stem, (directory / f"{stem}.crt", own))
        elif dot and kind == "crt":
            pairs[stem] = (own, directory / f"{stem}.key")
        elif dot and kind == "pem":
            pairs[stem] = (own, directory / f"{stem}.key" if f"{stem}.key" in known else own)
        elif (own / "fullchain.pem").exists() or (own / "privkey.pem").exists():
            pairs[name] = (own / "fullchain.pem", own / "privkey.pem")
    return {
        name: Source(chain, key, (_stamp(chain), _stamp(key)))
        for name, (chain, key) in pairs.items()
    }


def gather(directory: Path, before: Loaded, now: datetime, *, patient: bool) -> Loaded:
    """Look at the directory and read what changed. Reads files; knows no reactor.

    :param before: what the last look gave.
    :param patient: whether what is missing is kept until it is missing a second time.
    """
    try:
        found = sources(directory)
    except OSError as error:
        return attrs.evolve(before, problem=f"cannot look into {directory}: {error.strerror}")
    problem = ""
    if len(found) > MAX_CERTIFICATES:
        problem = f"{directory} has {len(found)} certificates; used: the first {MAX_CERTIFICATES}"
        found = dict(list(found.items())[:MAX_CERTIFICATES])
    entries = {}
    for name, source in found.items():
        old = before.entries.get(name)
        if old is not None and old.stamp == source.stamp and not old.failed:
            entries[name] = _aged(attrs.evolve(old, missing=False), now)
        else:
            entries[name] = _read(name, source, old, now)
    for name, old in before.entries.items():
        if name not in entries and old.certificate is not None and patient and not old.missing:
            entries[name] = attrs.evolve(old, missing=True)
    return Loaded(entries, _by_host(entries, now), problem)


def _read(name: str, source: Source, old: Entry | None, now: datetime) -> Entry:
    kept = old if old is not None and old.certificate is not None else Entry(stamp=source.stamp)

    def failed(problem: str) -> Entry:
        return attrs.evolve(kept, stamp=source.stamp, problem=problem, failed=True, missing=False)

    try:
        certificate = certificates.read(name, source.chain_file, source.key_file)
        context = contexts.of_certificate(certificate)
    except ConfigError as error:
        return failed(str(error))
    except Exception as error:  # a parser's surprise with one file must not stop the others
        return failed(f"{source.chain_file} cannot be read ({type(error).__name__})")
    wrong = certificate.out_of_time(now)
    if wrong and kept.certificate is not None and not kept.certificate.out_of_time(now):
        return failed(f"{source.chain_file} {wrong}")
    return _aged(Entry(stamp=source.stamp, certificate=certificate, context=context), now)


def _aged(entry: Entry, now: datetime) -> Entry:
    wrong = entry.certificate.out_of_time(now) if entry.certificate is not None else ""
    problem = f"the certificate {wrong}" if wrong else ""
    return entry if entry.problem == problem else attrs.evolve(entry, problem=problem)


def _by_host(entries: Mapping[str, Entry], now: datetime) -> dict[str, Entry]:
    """Of several that cover a host the one that is valid, and that longest."""

    def rank(entry: Entry) -> tuple[bool, float]:
        certificate = entry.certificate
        assert certificate is not None
        return not certificate.out_of_time(now), certificate.not_after.timestamp()

    found: dict[str, Entry] = {}
    for entry in entries.values():
        for host in entry.certificate.names if entry.certificate is not None else ():
            if host not in found or rank(entry) > rank(found[host]):
                found[host] = entry
    return found


# -- the living thing -----------------------------------------------------------------------------

#: Runs a function that reads files, elsewhere than in the reactor's thread.
InThread = Callable[[Callable[[], Loaded]], Awaitable[Loaded]]


class CertificateDirectory:
    """The certificates of a listener, as they are now.

    :ivar path: the directory. :ivar loaded: what the last look gave. :ivar looks: how many.
    """

    def __init__(self, path: Path, utc_now: Callable[[], datetime], in_thread: InThread) -> None:
        self.path = path
        self.loaded = Loaded()
        self.looks = 0
        self._utc_now = utc_now
        self._in_thread = in_thread
        self._looking = False
        self._again = False

    def load(self) -> None:
        """Read all of it, here and now: for the start.

        :raises ConfigError: the directory cannot be listed. Bad certificates are only reported.
        """
        self._became(gather(self.path, Loaded(), self._utc_now(), patient=False))
        if self.loaded.problem and not self.loaded.entries:
            raise ConfigError(self.loaded.problem)
        if not self.loaded.by_host:
            log.error("{path} has no certificate that can be served", path=str(self.path))

    async def reload(self, *, patient: bool = False) -> None:
        """Look again, and read what changed; returns when that is done.

        Calls during a look make one more look after it, in which all of them take part.

        :param patient: see :func:`gather`; a look of the watch is, a wish of the operator is not.
        """
        if self._looking:
            self._again = True
            return
        self._looking = True
        try:
            while True:
                self._again = False
                look = partial(gather, self.path, self.loaded, self._utc_now(), patient=patient)
                self._became(await self._in_thread(look))
                if not self._again:
                    break
                patient = False
        finally:
            self._looking = False

    def covers(self, host: str) -> bool:
        """Whether a certificate is there for ``host``."""
        return self.loaded.find(names.normal(host)) is not None

    def choose(self, server_name: str | None) -> Entry | None:
        """What to serve to a client.

        :param server_name: the host that it named (SNI). :return: None: the handshake is refused.
        """
        found = self.loaded.find(server_name) if server_name else None
        return found or self.loaded.default

    def days_left(self) -> dict[str, float]:
        """Name → days to the expiry of what is served under it."""
        now = self._utc_now()
        return {
            name: entry.certificate.days_left(now)
            for name, entry in self.loaded.entries.items()
            if entry.certificate is not None
        }

    def _became(self, loaded: Loaded) -> None:
        before, self.loaded = self.loaded, loaded
        self.looks += 1
        for name, sentence in loaded.problems.items():
            if before.problems.get(name) != sentence:
                serving = name == ITSELF or loaded.entries[name].certificate is not None
                log.error(
                    "TLS certificate {name}: {sentence}; {what}",
                    name=name,
                    sentence=sentence,
                    what="what could be served still is" if serving else "it is not served",
                )
        for name, entry in loaded.entries.items():
            old = before.entries.get(name)
            if entry.certificate is not None and entry.certificate is not (old and old.certificate):
                self._tell_new(name, entry.certificate)
        for name in before.entries.keys() - loaded.entries.keys():
            log.info("TLS certificate {name} is gone", name=name)

    def _tell_new(self, name: str, certificate: Certificate) -> None:
        days = certificate.days_left(self._utc_now())
        say = log.warn if days < WARN_DAYS else log.info
        say(
            "TLS certificate {name} serves {hosts} and expires in {days:.1f} days",
            name=name,
            hosts=", ".join(sorted(certificate.names)[:5]) + ("…" * (len(certificate.names) > 5)),
            days=days,
        )


__all__ = ["BadCertificate", "CertificateDirectory", "Entry", "Loaded", "gather", "sources"]
