"""`lock` and `schemas`: what is written from descriptions and committed beside them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import click

from podkiln import resolve, schemas
from podkiln.cli.options import FILE, variant_option
from podkiln.errors import DescriptionError, LockError, UsageError
from podkiln.resolve.table import markdown

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger("podkiln")


@click.command("lock")
@variant_option
@click.option(
    "--check", is_flag=True, help="Write nothing, ask no network; fail where lock and description differ."
)
@click.option(
    "--upgrade",
    multiple=True,
    metavar="NAME",
    help="Look up again: a package, uv, a model, base, comfyui, all.",
)
@click.option(
    "--since", metavar="REV", help="With --check: fail too where the lock knew more at this git revision."
)
@click.option("--table", type=FILE, help="Write what changed, and what is unresolved and why, as Markdown.")
def lock_command(
    variant: str | None, check: bool, upgrade: tuple[str, ...], since: str | None, table: Path | None
) -> None:
    """Resolve what descriptions leave open (of all variants by default), and write it down."""
    names = [name.strip() for name in (variant or "all").split(",") if name.strip()]
    if since is not None and not check:
        raise UsageError("--since belongs to --check.", hint="Write `lock --check --since REV`.")
    if check:
        if table or upgrade:
            raise UsageError("--check writes nothing, so it takes no --table and no --upgrade.")
        _check(names, since)
        return
    summary = resolve.relock(names, upgrade)
    for warning in summary.warnings:
        log.warning("%s", warning)
    for path in summary.changed:
        log.info("wrote %s", path)
    if table:
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text(markdown(summary), encoding="utf-8")
    log.info("%d weights are locked, %d are not resolved yet.", summary.resolved, summary.unresolved)
    if summary.problems:
        raise LockError(summary.problems[0], hint=" ".join(summary.problems[1:]) or None)


def _check(names: list[str], since: str | None) -> None:
    found = resolve.check(names, since)
    for line in found[1:]:
        click.echo(line, err=True)
    if found:
        raise LockError(found[0], hint="Run `./build.py lock`, look at the difference, and commit it.")


@click.command("schemas")
@click.option("--check", is_flag=True, help="Write nothing; fail when a committed schema is stale.")
def schemas_command(check: bool) -> None:
    """Write variants/schemas/, which editors complete and check descriptions with."""
    if check:
        stale = schemas.stale()
        if stale:
            raise DescriptionError(f"{stale[0]} is stale.", hint="Run `./build.py schemas`, and commit it.")
        return
    for path in schemas.write():
        log.info("wrote %s", path)
