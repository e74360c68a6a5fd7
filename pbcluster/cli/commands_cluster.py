"""``init``, ``up``, ``down``; hidden: ``supervise``, a detached ``up``."""

from __future__ import annotations

import threading
from typing import Any

import click

from pbcluster.cli import demo as demo_tenant
from pbcluster.cli import initialise, running, show, state
from pbcluster.cli.initialise import Wish
from pbcluster.cli.layout import ClusterDir, Plan
from pbcluster.cli.options import dir_option, json_option, plan_options
from pbcluster.cli.state import ClusterState
from pbcluster.cli.status import status as look
from pbcluster.cli.status import summary
from pbcluster.errors import PBClusterError


@click.command(name="init")
@dir_option
@plan_options
@json_option
def init_command(directory: str, as_json: bool, **wished: Any) -> None:
    """Write a cluster's directory: settings, keys, secrets. Starts nothing.

    \b
    Example:
      pbcluster init --dir ./shop --nodes 3 --base-domain apps.example.com
    """
    where = ClusterDir.at(directory)
    plan = initialise.initialise(where, Wish(**wished))
    if as_json:
        show.print_json({"dir": str(where.root)} | look(where).content)
        return
    names = ", ".join(process.id for process in plan.processes)
    show.say(f"made {where.root} with {names}")
    show.say(f"start it:   pbcluster up --dir {directory}")


@click.command()
@dir_option
@plan_options
@click.option("--detach", is_flag=True, help="Return when it serves and leave it running.")
@click.option("--no-restart", is_flag=True, help="Do not start again what dies.")
@click.option("--demo", is_flag=True, help="Create a tenant `demo` and print its login.")
@json_option
def up(
    directory: str, detach: bool, no_restart: bool, demo: bool, as_json: bool, **wished: Any
) -> None:
    """Start a whole cluster on this machine and say when it serves.

    Makes the directory if there is none. Runs in the foreground until Ctrl-C, which stops
    everything in order (a second Ctrl-C: at once), or in the background with --detach.

    \b
    Examples:
      pbcluster up
      pbcluster up --dir ./second --gateway-port 9080 --admin-port 9095 --detach
    """
    where = ClusterDir.at(directory)
    ran = state.supervisor(where) is not None
    plan = running.prepare(where, Wish(**wished))
    progress = show.Progress()
    after = _AfterUp(where, plan, demo=demo, as_json=as_json)
    try:
        if ran:
            running.wait_serving(where, progress)
            show.warn(f"the cluster in {where.root} is already running")
        elif detach:
            running.start_detached(where, restart=not no_restart, show=progress)
        else:
            progress.then(after.once_serving)
            running.run_here(where, plan, restart=not no_restart, show=progress)
            return
    finally:
        progress.close()
    after.report()


@click.command()
@dir_option
@json_option
def down(directory: str, as_json: bool) -> None:
    """Stop a cluster: gateways first, then nodes, members, S3. Only its own processes.

    Its data stays; `pbcluster up` finds it again.
    """
    where = ClusterDir.at(directory)
    where.load_plan()
    progress = show.Progress()
    try:
        ran = running.stop(where, progress)
    finally:
        progress.close()
    if as_json:
        show.print_json({"dir": str(where.root), "stopped": ran})
    else:
        show.say("stopped" if ran else f"nothing of the cluster in {where.root} is running")


@click.command(hidden=True)
@dir_option
@click.option("--no-restart", is_flag=True)
def supervise(directory: str, no_restart: bool) -> None:
    """What `up --detach` starts: supervise a directory that is written already."""
    where = ClusterDir.at(directory)
    progress = show.Progress()
    running.run_here(where, where.load_plan(), restart=not no_restart, show=progress)


class _AfterUp:
    """What ``up`` prints once the cluster serves."""

    def __init__(self, where: ClusterDir, plan: Plan, *, demo: bool, as_json: bool) -> None:
        self._where = where
        self._plan = plan
        self._demo = demo
        self._as_json = as_json
        self._done = False

    def once_serving(self, now: ClusterState) -> None:
        """Called by the supervisor's loop, which must not wait: the rest runs in a thread."""
        if now.phase == state.SERVING and not self._done:
            self._done = True
            threading.Thread(target=self._report_or_say, daemon=True).start()

    def _report_or_say(self) -> None:
        try:
            self.report()
        except PBClusterError as error:
            show.warn(f"pbcluster: {error}")
        if not self._as_json:
            show.say("\nCtrl-C stops the cluster; its data stays.")

    def report(self) -> None:
        """Print where everything is; create the demo tenant first if asked."""
        login = demo_tenant.ensure(self._where, self._plan) if self._demo else None
        if self._as_json:
            more = {"demo": login.shown()} if login else {}
            show.print_json(look(self._where).content | more)
            return
        show.say(f"\nthe cluster in {self._where.root} serves")
        for line in summary(self._plan):
            show.say(line)
        if login:
            show.say("\n" + login.text(self._where))
