"""`lock` and `schemas`: what is written from descriptions and committed beside them."""

from __future__ import annotations

import logging
import shlex
from typing import TYPE_CHECKING

import click

from podkiln.cli.options import names_of, variant_option
from podkiln.config import json_schema
from podkiln.errors import DescriptionError, LockError, UsageError
from podkiln.lock.resolve import relock
from podkiln.lock.resolve.table import markdown
from podkiln.options import FILE, option

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger("podkiln")


@click.command("lock")
@variant_option
@option(
    "--check", is_flag=True, help="Write nothing, ask no network; fail where lock and description differ."
)
@option(
    "--upgrade",
    multiple=True,
    metavar="NAME",
    help="Look up again: a package, uv, a model, base, comfyui, all.",
)
@option(
    "--since", metavar="REV", help="With --check: fail too where the lock knew more at this git revision."
)
@option("--table", type=FILE, help="Write what changed, and what is unresolved and why, as Markdown.")
def lock_command(
    variant: tuple[str, ...], check: bool, upgrade: tuple[str, ...], since: str | None, table: Path | None
) -> None:
    """Resolve what descriptions leave open (of all variants by default), and write it down."""
    names = names_of(variant, default="all")
    if since is not None and not check:
        raise UsageError("--since belongs to --check.", hint="Write `lock --check --since REV`.")
    if check:
        if upgrade:
            raise UsageError("--check writes nothing, so it takes no --upgrade.", hint="Give one of the two.")
        if table:
            raise UsageError("--check writes nothing, so it takes no --table.", hint="Give one of the two.")
        _check(names, since, f" --variant {shlex.join([','.join(variant)])}" if variant else "")
        return
    summary = relock.relock(names, upgrade)
    for warning in summary.warnings:
        log.warning("%s", warning)
    for path in summary.changed:
        log.info("wrote %s", path)
    if table:
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text(markdown(summary), encoding="utf-8")
    log.info("%d weights are locked, %d are not resolved yet.", summary.resolved, summary.unresolved)
    if summary.problems:
        for line in summary.problems[1:]:
            click.echo(line, err=True)
        raise LockError(summary.problems[0])


def _check(names: tuple[str, ...], since: str | None, option: str) -> None:
    found = relock.check(names, since)
    for line in found[1:]:
        click.echo(line, err=True)
    if found:
        raise LockError(
            found[0], hint=f"Run `./build.py lock{option}`, look at the difference, and commit it."
        )


@click.command("schemas")
@option("--check", is_flag=True, help="Write nothing; fail when a committed schema is stale.")
def schemas_command(check: bool) -> None:
    """Write variants/schemas/, which editors complete and check descriptions with."""
    if check:
        stale = json_schema.stale()
        if stale:
            raise DescriptionError(f"{stale[0]} is stale.", hint="Run `./build.py schemas`, and commit it.")
        return
    for path in json_schema.write():
        log.info("wrote %s", path)
