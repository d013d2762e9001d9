"""`render` and `lint`: what a build context looks like, and whether it keeps the rules."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from podkiln.build import output_dir
from podkiln.cli.options import names_of, variant_option
from podkiln.config import variant
from podkiln.errors import LintError, RenderError, UsageError
from podkiln.options import FOLDER, BuildRequest, RuntimeOptions, apply, option
from podkiln.pipeline import planning
from podkiln.render import bake_file, build_context, golden, lint
from podkiln.util import atomic

if TYPE_CHECKING:
    from podkiln.plan.plan import Plan

log = logging.getLogger("podkiln")


@click.command("render")
@variant_option
@apply(RuntimeOptions.options())
@option("--out", type=FOLDER, help="Where to write.  [default: dist]")
@option("--check", is_flag=True, help="Write nothing; compare with the golden copies in tests/golden/.")
@option("--update-golden", "update", is_flag=True, help="Write the golden copies instead.")
def render_command(
    variant: tuple[str, ...], cuda: str | None, out: Path | None, check: bool, update: bool
) -> None:
    """Render the build contexts of variants (all by default)."""
    chosen = [*(["--check"] if check else []), *(["--update-golden"] if update else [])]
    if len(chosen) + (out is not None) > 1:
        others = " and ".join([*chosen, *(["--out"] if out else [])])
        raise UsageError(
            f"{others} exclude each other.",
            hint="--out is where contexts go; golden copies have their place.",
        )
    plans = _plans(variant, cuda)
    _refuse_own(plans, chosen)
    if check:
        drift = golden.drift(plans)
        if drift:
            raise RenderError(
                f"{drift[0]} is not what is rendered now ({len(drift)} files differ).",
                hint="Look at the difference: ./build.py render --update-golden && git diff tests/golden",
            )
        return
    if update:
        golden.update(plans)
        return
    out = out or Path("dist")
    with output_dir.exclusive_lock(out):
        for plan in plans:
            output_dir.write(build_context.render(plan), out / plan.name)
            log.info("rendered %s", out / plan.name)
        text = bake_file.as_text(bake_file.bake_file(plans, bake_file.BuildSecrets(), {}))
        atomic.write(out / bake_file.BAKE_FILE, text)


@click.command("lint")
@variant_option
@apply(RuntimeOptions.options())
def lint_command(variant: tuple[str, ...], cuda: str | None) -> None:
    """Check what is rendered (all variants by default)."""
    found = [
        f"{plan.name}/{each}"
        for plan in _plans(variant, cuda)
        for each in lint.check(build_context.render(plan))
    ]
    for line in found:
        click.echo(line)
    if found:
        raise LintError(f"{len(found)} rules are broken.", hint="They are listed above, with file and line.")


def _refuse_own(plans: list[Plan], chosen: list[str]) -> None:
    """Golden copies are of this repository: of what it ships."""
    if chosen and any(plan.described.cuda for plan in plans):
        raise UsageError(f"{chosen[0]} is for the variants' own CUDA.", hint="Leave --cuda out.")
    own = next((plan for plan in plans if chosen and not plan.described.shipped), None)
    if own:
        raise UsageError(
            f"{chosen[0]} takes shipped variants only; {own.described.chain[0].path} is not one.",
            hint="`./build.py render --out DIR` writes what is rendered of it, to be looked at.",
        )


def _plans(names: tuple[str, ...], cuda: str | None) -> list[Plan]:
    chosen = names_of(names, default="all")
    request = BuildRequest.of(chosen, cuda=cuda, no_weights=True)
    return [planning.make_plan(variant.load(name, cuda), request) for name in chosen]
