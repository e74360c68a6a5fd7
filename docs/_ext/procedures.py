"""The directive ``run``: a block of commands in a page that a test runs as it stands.

    .. run:: upgrade-all

       pbcluster restart --all

It is shown as a literal block. Its name is unique; ``tests/integration/test_procedures.py`` reads
the pages with :func:`blocks`, runs each block by a shell in a directory that has a cluster, and
fails for a block that no test runs. This module needs Sphinx for the directive only.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

_BLOCK = re.compile(r"^( *)\.\. run:: +([a-z0-9-]+)\n((?:\1 +\S.*\n|[ \t]*\n)+)", re.MULTILINE)


def blocks(page: Path) -> dict[str, str]:
    """Name → commands, in the page's order.

    :raises ValueError: a name stands twice.
    """
    text = page.read_text(encoding="utf-8") + "\n"
    found: dict[str, str] = {}
    for match in _BLOCK.finditer(text):
        name = match[2]
        if name in found:
            raise ValueError(f"{page.name} has two blocks {name!r}")
        found[name] = textwrap.dedent(match[3]).strip("\n") + "\n"
    return found


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    from docutils import nodes
    from sphinx.util.docutils import SphinxDirective

    class Run(SphinxDirective):
        """See the module."""

        has_content = True
        required_arguments = 1

        def run(self) -> list[nodes.Node]:
            """A literal block of shell commands."""
            text = "\n".join(self.content)
            block = nodes.literal_block(text, text, language="sh")
            self.set_source_info(block)
            return [block]

    app.add_directive("run", Run)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
