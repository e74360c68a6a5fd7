"""``ready.json``: how a service tells whoever started it that it serves, and where.

Written whole or not at all, once everything listens and the process ends as it should at SIGTERM
(the reactor runs, so its handlers are there); removed at a clean stop. It holds the ports that were
really chosen (port 0: any free one) and the writer's pid, so that a file left behind by a killed
process is recognised. It holds no secret. A service manager is told at the same moments
(:mod:`pbcluster.sd_notify`).
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from pbcluster import sd_notify

NAME = "ready.json"


def write(data_dir: Path, **content: Any) -> None:
    """Write ``data_dir/ready.json`` with ``content`` and this process's pid: it serves."""
    file = data_dir / NAME
    beside = file.with_suffix(f".{os.getpid()}")
    beside.write_text(json.dumps({**content, "pid": os.getpid()}) + "\n")
    beside.replace(file)
    sd_notify.tell(sd_notify.READY, status="serves")


def remove(data_dir: Path) -> None:
    """Remove the file, if it is there: nobody serves yet."""
    with contextlib.suppress(FileNotFoundError):
        (data_dir / NAME).unlink()


def leave(data_dir: Path) -> None:
    """This process stops: remove the file if it wrote it; not that of a successor."""
    sd_notify.tell(sd_notify.STOPPING, status="stops")
    try:
        content = json.loads((data_dir / NAME).read_text())
    except (OSError, ValueError):
        return
    if isinstance(content, dict) and content.get("pid") == os.getpid():
        remove(data_dir)
