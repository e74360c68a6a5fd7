"""``bucket copy``, ``bucket use``."""

from __future__ import annotations

from pathlib import Path

import attrs
import click

from pbcluster.cli import buckets, running, show
from pbcluster.cli.layout import ClusterDir
from pbcluster.cli.options import dir_option, json_option
from pbcluster.errors import InvalidInput

_FILE = click.Path(dir_okay=False)


@click.group()
def bucket() -> None:
    """The bucket in S3 with all tenants' data: copy it, put it back, use another one.

    \b
    Another bucket is named by a file of mode 0600:
      endpoint = "https://s3.example.com"
      bucket = "pbcluster-copy"
      region = "us-east-1"
      access_key = "..."
      secret_key = "..."
    """


@bucket.command()
@click.option("--to", "target", type=_FILE, help="Copy the cluster's bucket to the one in FILE.")
@click.option("--from", "source", type=_FILE, help="Put a copy back, into the cluster's bucket.")
@dir_option
@json_option
def copy(target: str | None, source: str | None, directory: str, as_json: bool) -> None:
    """Copy all objects from the cluster's bucket to another one, or back.

    --to works while the cluster runs and serves, again and again: what is there already is not
    copied twice, and nothing is removed. The copy has each tenant as of some moment in it. Objects
    go through this machine, so copy from a machine near both.

    --from works while the cluster is stopped; it starts the cluster's own S3 meanwhile.

    \b
    Examples:
      pbcluster bucket copy --to copy.toml
      pbcluster down && pbcluster bucket copy --from copy.toml
    """
    if bool(target) == bool(source):
        raise InvalidInput("say either --to FILE or --from FILE", field="to", allowed="one of both")
    where = ClusterDir.at(directory)
    plan = where.load_plan()
    if target:
        done = buckets.copy_to(where, plan, buckets.read(Path(target)), show.warn)
    else:
        with running.alone(where):
            done = buckets.copy_from(where, plan, buckets.read(Path(source or "")), show.warn)
    if as_json:
        show.print_json(attrs.asdict(done))
    else:
        show.say(
            f"{done.tenants} tenants: {done.objects} objects copied, {done.bytes} bytes; "
            f"{done.same} were there already"
        )


@bucket.command()
@click.argument("file", type=_FILE)
@dir_option
@json_option
def use(file: str, directory: str, as_json: bool) -> None:
    """Have the nodes use the bucket that FILE names, from the next `up` on.

    Only while the cluster is stopped. Nothing is copied. The S3 that `up` starts runs on and is
    asked nothing any more.
    """
    where = ClusterDir.at(directory)
    with running.alone(where):
        address = buckets.read(Path(file))
        buckets.use(where, where.load_plan(), address)
    told = {"endpoint": address.endpoint, "bucket": address.bucket}
    if as_json:
        show.print_json(told)
    else:
        show.say(f"nodes use the bucket {address.bucket} at {address.endpoint} from now on")
