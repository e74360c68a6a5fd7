"""Endpoint strings: ``pbtls:PORT:certificates=DIR``. This folder has no ``__init__.py``."""

from pbcluster.web.tls.plugin import TLSDirectoryParser

pbtls = TLSDirectoryParser()
