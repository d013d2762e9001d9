"""`lock` and `schemas`: what is written from descriptions and committed beside them."""

from __future__ import annotations

import logging
import shlex

import click

from podkiln import resolve, schemas
from podkiln.cli.options import names_of, option, variant_option
from podkiln.errors import DescriptionError, LockError, UsageError

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
def lock_command(variant: tuple[str, ...], check: bool, upgrade: tuple[str, ...]) -> None:
    """Resolve what descriptions leave open (of all variants by default), and write it down."""
    names = names_of(variant, default="all")
    if check:
        if upgrade:
            raise UsageError(
                "--check writes nothing, and --upgrade looks up anew.", hint="Give one of the two."
            )
        _check(names, f" --variant {shlex.join([','.join(variant)])}" if variant else "")
        return
    summary = resolve.relock(names, upgrade)
    for warning in summary.warnings:
        log.warning("%s", warning)
    for path in summary.changed:
        log.info("wrote %s", path)
    log.info("%d weights are locked, %d are not resolved yet.", summary.resolved, summary.unresolved)
    if summary.problems:
        raise LockError(summary.problems[0], hint=" ".join(summary.problems[1:]) or None)


def _check(names: tuple[str, ...], option: str) -> None:
    found = resolve.check(names)
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
        stale = schemas.stale()
        if stale:
            raise DescriptionError(f"{stale[0]} is stale.", hint="Run `./build.py schemas`, and commit it.")
        return
    for path in schemas.write():
        log.info("wrote %s", path)
