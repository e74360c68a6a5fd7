"""A process that behaves as a service does towards its supervisor. Run by path, not imported.

fake_service.py READY_FILE JOURNAL NAME [exit|hang|deaf]
exit: ends at once with status 3. hang: never writes its ready file. deaf: ignores SIGTERM.
"""

import json
import os
import signal
import sys
from pathlib import Path

ready, journal, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
how = sys.argv[4] if len(sys.argv) > 4 else ""


def note(what: str) -> None:
    with journal.open("a") as stream:
        stream.write(f"{what} {name}\n")


def end(*_: object) -> None:
    ready.unlink(missing_ok=True)
    note("stop")
    sys.exit(0)


if how == "exit":
    print("I have a reason to end")
    sys.exit(3)
signal.signal(signal.SIGTERM, signal.SIG_IGN if how == "deaf" else end)
note("start")
if how != "hang":
    beside = ready.with_suffix(".new")
    beside.write_text(json.dumps({"pid": os.getpid()}))
    beside.replace(ready)
while True:
    signal.pause()
