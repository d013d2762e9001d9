"""`doctor` and `clean`: what podkiln keeps on this machine, and how to be rid of it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import click

from podkiln.cli.options import json_option
from podkiln.options import option
from podkiln.pipeline import kept
from podkiln.util import cache_folder, console
from podkiln.util.console import MB

if TYPE_CHECKING:
    from podkiln.pipeline.kept import Usage

_EMPTY = "podkiln keeps nothing in {}."


@click.command("doctor")
@json_option
def doctor_command(*, as_json: bool) -> None:
    """Show what podkiln keeps on this machine: where it lies, how large it is, and how much disk is left.

    `clean` removes it. BuildKit's own cache is not among it; `docker buildx du` shows that.
    """
    folder, found = cache_folder.path(), kept.usage()
    there = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(there).free
    if as_json:
        kinds = {each.kind.name: {"path": str(each.path), "bytes": each.size} for each in found}
        console.result({"schema": 1, "cache": {"path": str(folder), "free_bytes": free, "kinds": kinds}})
        return
    if not found:
        click.echo(_EMPTY.format(folder))
    for each in found:
        click.echo(f"{_size(each.size)}  {each.path}: {each.kind.what}")
    if found:
        click.echo(f"{_size(sum(each.size for each in found))}  in all")
    click.echo(f"{_size(free)}  free on that disk")


@click.command("clean")
@option("--all", "everything", is_flag=True, help="Also the base of --base bootstrap and runtimes.json.")
def clean_command(*, everything: bool) -> None:
    """Remove from the cache folder what the next build makes again, and say what that has freed.

    The base of --base bootstrap stays, as one made anew gives images other digests; so does runtimes.json, by
    which a push finds a runtime in its registry. BuildKit's own cache is for `docker buildx prune`.
    """
    removed = kept.clean(everything=everything)
    left = kept.usage()
    if not removed and not left:
        click.echo(_EMPTY.format(cache_folder.path()))
        return
    for each in removed:
        click.echo(f"{_size(each.freed)}  {each.path}: {each.kind.what}{_shared(each)}")
    click.echo(f"{_size(sum(each.freed for each in removed))}  freed")
    for each in left:
        click.echo(f"{_size(each.size)}  {each.path} stays: {each.kind.what} (--all removes it too)")


def _size(count: int) -> str:
    return f"{count / MB:10.1f} MB"


def _shared(removed: Usage) -> str:
    if not removed.shared:
        return ""
    return f" ({removed.shared / MB:.1f} MB more stay on the disk: images that were built share them)"
