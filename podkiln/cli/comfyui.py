"""`comfyui`: describe another release of ComfyUI."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from podkiln.errors import DescriptionError, UsageError
from podkiln.lock.resolve.http import trusting
from podkiln.options import FILE, NetworkOptions, RuntimeOptions, SubstituteOptions, apply, option
from podkiln.pipeline import comfyui

log = logging.getLogger("podkiln")


@click.command("comfyui")
@click.argument("release", metavar="VERSION|COMMIT|newest")
@option("--variant", metavar="FILE", help="Write beside this variant of your own, and lock it.")
@apply(RuntimeOptions.options())
@apply(SubstituteOptions.options(source="comfyui=DIR: its source tree; without it GitHub is asked."))
@apply(NetworkOptions.options("ca_bundle"))
@option("--pin", is_flag=True, help="Move the shipped variants to it.")
@option("--no-lock", is_flag=True, help="Write flags, folders and requirements, and lock nothing.")
@option("--table", type=FILE, help="Write what changes as Markdown, for a pull request.")
def comfyui_command(
    release: str,
    variant: str | None,
    cuda: str | None,
    source: tuple[str, ...],
    ca_bundle: Path | None,
    pin: bool,
    no_lock: bool,
    table: Path | None,
) -> None:
    """Read flags, folders and requirements off a release's source, lock it, and say what it changes.

    The source is read and never run. VERSION@COMMIT names both, where no repository can be asked.
    """
    asked = comfyui.ReleaseRequest(release, variant, _folder(source), pin=pin, lock=not no_lock, cuda=cuda)
    with trusting(ca_bundle):
        found = comfyui.describe(asked)
    for warning in found.warnings:
        log.warning("%s", warning)
    for path in found.written:
        log.info("wrote %s", path)
    if table:
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text(found.markdown(), encoding="utf-8")
    for line in found.lines():
        click.echo(line)
    if found.problems:
        raise DescriptionError(
            found.problems[0],
            hint="Until each such rule says in `releases` for which releases it holds, no image of "
            f"ComfyUI {found.after} is built.",
        )


def _folder(source: tuple[str, ...]) -> Path | None:
    """Return the folder of --source. Raises UsageError."""
    if not source:
        return None
    name, _, value = source[0].partition("=")
    if len(source) > 1 or name != "comfyui" or not value or "://" in value:
        raise UsageError("--source: here it is comfyui=DIR, once.", hint="Without it, GitHub is asked.")
    try:
        return Path(value).expanduser()
    except RuntimeError:  # the home of nobody
        raise UsageError(f"--source: there is no folder {value}: nobody has that home.") from None
