"""``python -m benchmarks``: every measurement in turn, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

COMMANDS = (
    ("crossing.py",),
    ("transport.py",),
    ("web_proxy.py",),
)


def main() -> int:
    here = Path(__file__).parent
    failed = 0
    for name, *arguments in COMMANDS:
        print(f"== benchmarks/{name}", flush=True)
        done = subprocess.run([sys.executable, here / name, *arguments], check=False)
        failed += done.returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
