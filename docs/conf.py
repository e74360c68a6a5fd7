"""Sphinx configuration. Only Sphinx's own extensions and one of ours: the build needs no others."""

import re
import sys
from pathlib import Path

project = "pbcluster"
author = "The pbcluster authors"
_source = Path(__file__).parent.parent / "pbcluster" / "__init__.py"
_found = re.search(r'__version__ = "(.+?)"', _source.read_text(encoding="utf-8"))
release = version = _found.group(1) if _found else ""

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
extensions = ["procedures"]
exclude_patterns = ["_build", "_ext", "decisions/template.rst"]
html_theme = "alabaster"
html_theme_options = {
    "description": "Many PocketBase backends on many machines, as one platform",
    "fixed_sidebar": True,
    "page_width": "1100px",
}
nitpicky = True
