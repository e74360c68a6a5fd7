"""``ready.json``: how a service tells whoever started it that it serves, and where.

Written whole or not at all, once everything listens; removed at a clean stop. It holds the ports
that were really chosen (port 0: any free one) and the writer's pid, so that a file left behind by a
killed process is recognised. It holds no secret.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

NAME = "ready.json"


def write(data_dir: Path, **content: Any) -> None:
    """Write ``data_dir/ready.json`` with ``content`` and this process's pid."""
    file = data_dir / NAME
    beside = file.with_suffix(f".{os.getpid()}")
    beside.write_text(json.dumps({**content, "pid": os.getpid()}) + "\n")
    beside.replace(file)


def remove(data_dir: Path) -> None:
    """Remove the file, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        (data_dir / NAME).unlink()


def remove_own(data_dir: Path) -> None:
    """Remove the file if this process wrote it; not that of a successor."""
    try:
        content = json.loads((data_dir / NAME).read_text())
    except (OSError, ValueError):
        return
    if isinstance(content, dict) and content.get("pid") == os.getpid():
        remove(data_dir)
