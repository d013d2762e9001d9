"""`render` and `lint`: what a build context looks like, and whether it keeps the rules."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from podkiln import bake, context, golden, job, lint, render, variant
from podkiln.cli.options import FOLDER, names_of, variant_option
from podkiln.errors import LintError, RenderError
from podkiln.request import Request

if TYPE_CHECKING:
    from podkiln.plan import Plan

log = logging.getLogger("podkiln")


@click.command("render")
@variant_option
@click.option("--out", type=FOLDER, default=Path("dist"), show_default=True, help="Where to write.")
@click.option("--check", is_flag=True, help="Write nothing; compare with the golden copies in tests/golden/.")
@click.option("--golden", "update", is_flag=True, help="Write the golden copies instead.")
def render_command(variant: str | None, out: Path, check: bool, update: bool) -> None:
    """Render the build contexts of variants (all by default)."""
    plans = _plans(variant)
    if check:
        drift = golden.drift(plans)
        if drift:
            raise RenderError(
                f"{drift[0]} is not what is rendered now ({len(drift)} files differ).",
                hint="Look at the difference: ./build.py render --golden && git diff tests/golden",
            )
        return
    if update:
        golden.update(plans)
        return
    with context.alone(out):
        for plan in plans:
            context.write(render.render(plan), out / plan.name)
            log.info("rendered %s", out / plan.name)
        text = bake.as_text(bake.bake_file(plans, bake.Environment(), {}))
        context.write_file(out / bake.BAKE_FILE, text)


@click.command("lint")
@variant_option
def lint_command(variant: str | None) -> None:
    """Check what is rendered (all variants by default)."""
    found = [f"{plan.name}/{each}" for plan in _plans(variant) for each in lint.check(render.render(plan))]
    for line in found:
        click.echo(line)
    if found:
        raise LintError(f"{len(found)} rules are broken.", hint="They stand above, with file and line.")


def _plans(names: str | None) -> list[Plan]:
    chosen = names_of(names, default="all")
    request = Request(variants=chosen, no_weights=True)
    return [job.make_plan(variant.load(name), request) for name in chosen]
