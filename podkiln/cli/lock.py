"""`lock` and `schemas`: what is written from descriptions and committed beside them."""

from __future__ import annotations

import logging
import os
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import click

from podkiln.cli.options import names_of, variant_option
from podkiln.config import json_schema
from podkiln.errors import DescriptionError, LockError, UsageError
from podkiln.lock.resolve import additions, relock
from podkiln.lock.resolve.http import trusting
from podkiln.lock.resolve.table import markdown
from podkiln.options import (
    FILE,
    BuildRequest,
    EngineOptions,
    NetworkOptions,
    RuntimeOptions,
    SubstituteOptions,
    apply,
    option,
)
from podkiln.pipeline import keep_packages, lock_packages
from podkiln.util.console import GB

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from podkiln.lock.resolve.relock import RelockResult

log = logging.getLogger("podkiln")
APT: Final = "apt"
"""What --upgrade calls the Debian packages."""


@click.command("lock")
@variant_option
@apply(RuntimeOptions.options())
@option(
    "--check", is_flag=True, help="Write nothing, ask no network; fail where lock and description differ."
)
@option(
    "--upgrade",
    multiple=True,
    metavar="NAME",
    help="Look up again: a package, uv, apt, additions, nodes, the id of a model or node, model (the "
    "served one), families, base, comfyui, all.",
)
@option(
    "--since", metavar="REV", help="With --check: fail too where the lock knew more at this git revision."
)
@option("--table", type=FILE, help="Write what changed, and what is unresolved and why, as Markdown.")
@option(
    "--keep",
    metavar="HOST/NAME[:TAG]",
    help="Push the locked Debian packages and wheels there as an image; builds take them from it first.",
)
@apply(
    SubstituteOptions.options(base="Lock the Debian packages of another base: NAME@sha256:…, or bootstrap.")
)
@apply(NetworkOptions.options("ca_bundle", "apt_mirror"))
@apply(EngineOptions.options("builder"))
def lock_command(
    variant: tuple[str, ...],
    cuda: str | None,
    check: bool,
    upgrade: tuple[str, ...],
    since: str | None,
    table: Path | None,
    keep: str | None,
    **options: Any,
) -> None:
    """Resolve what descriptions leave open, and write it down.

    By default of all variants, for each CUDA release and platform.
    """
    names = names_of(variant, default="all" if cuda else None) if variant or cuda else ()
    if since is not None and not check:
        raise UsageError("--since belongs to --check.", hint="Write `lock --check --since REV`.")
    if check:
        for name, given in (("--upgrade", upgrade), ("--table", table), ("--keep", keep)):
            if given:
                raise UsageError(
                    f"--check writes nothing, so it takes no {name}.", hint="Give one of the two."
                )
        named = f" --variant {shlex.join([','.join(variant)])}" if variant else ""
        _check(names, since, cuda, named + (f" --cuda {cuda}" if cuda else ""))
        return
    asked = {"cuda": cuda, **options}
    with trusting(options["ca_bundle"]):
        summary = relock.relock(names, [name for name in upgrade if name != APT], cuda)
        summary = _with_packages(summary, names, upgrade, asked)
        if keep:
            summary = _with_kept(summary, names, keep, asked)
    _tell(summary, table)


def _tell(summary: RelockResult, table: Path | None) -> None:
    """Say what was locked. Raises LockError for what only a person can put right."""
    for warning in summary.warnings:
        log.warning("%s", warning)
    for path in summary.changed:
        log.info("wrote %s" if path.exists() else "removed %s", path)
    if table:
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text(markdown(summary), encoding="utf-8")
    log.info(
        "%s locked, %s not resolved yet.",
        "1 weight is" if summary.resolved == 1 else f"{summary.resolved} weights are",
        "1 is" if summary.unresolved == 1 else f"{summary.unresolved} are",
    )
    if summary.problems:
        for line in summary.problems[1:]:
            click.echo(line, err=True)
        raise LockError(summary.problems[0])


def _with_packages(
    summary: RelockResult, names: Sequence[str], upgrade: Sequence[str], options: Mapping[str, Any]
) -> RelockResult:
    """Lock Debian's packages too, and show what changed."""
    request = BuildRequest.of(names, os.environ, **options)
    renewed = not {APT, "all"}.isdisjoint(upgrade)
    found = lock_packages.lock(
        names,
        request,
        upgrade=renewed,
        required=APT in upgrade,
        upgrade_added=additions.ALL in upgrade,
    )
    if found.changes and (renewed or additions.ALL in upgrade):
        for line in lock_packages.table(found.changes):
            click.echo(line)
    elif found.changes:
        log.info("%d Debian packages are locked now.", sum(each.after is not None for each in found.changes))
    elif APT in upgrade:
        log.info("The Debian packages are as they were locked.")
    return replace(
        summary,
        changed=(*summary.changed, *found.changed),
        warnings=(*summary.warnings, *found.warnings),
        packages=found.changes,
    )


def _with_kept(
    summary: RelockResult, names: Sequence[str], keep: str, options: Mapping[str, Any]
) -> RelockResult:
    """Keep what is locked now, and say where."""
    found = keep_packages.keep(names, BuildRequest.of(names, os.environ, **options), keep)
    for image in found.images:
        size = sum(each.size for each in image.layers) / GB
        log.info("kept %d layers of packages, %.1f GB: %s", len(image.layers), size, image)
        for base in image.bases:
            log.info("kept the base: %s@%s", image.repository, base)
    return replace(
        summary,
        changed=(*summary.changed, *found.changed),
        warnings=(*summary.warnings, *found.warnings),
    )


def _check(names: tuple[str, ...], since: str | None, cuda: str | None, option: str) -> None:
    found = relock.check(names, since, cuda)
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
