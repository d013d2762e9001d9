"""Options that several commands have, described once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from podkiln.concurrency import JOBS
from podkiln.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
EXISTING_FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
ALL = "all"


def apply(options: Sequence[Decorator]) -> Decorator:
    """Return one decorator for many, in the order in which --help shows them."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def names_of(value: str | None, *, default: str | None = None) -> tuple[str, ...]:
    """Return the variants that --variant names: V, V1,V2 or all. Raises UsageError when it names none."""
    from podkiln import variant  # noqa: PLC0415 - pydantic takes its time, and --help has no use for it

    given = [name.strip() for name in (value or default or "").split(",") if name.strip()]
    if not given:
        raise UsageError("--variant is missing.", hint=f"There are: {', '.join(variant.names())}, all.")
    if given == [ALL]:
        return tuple(variant.names())
    return tuple(given)


variant_option = click.option(
    "--variant", metavar="V[,V2|all]", help="A shipped variant, or the path of your own YAML file."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts (schema 1).")
SUBSTITUTES: list[Decorator] = [
    click.option(
        "--base", metavar="REF|bootstrap", help="Another base image; bootstrap: from Debian packages."
    ),
    click.option(
        "--source",
        multiple=True,
        metavar="NAME=DIR|URL#COMMIT",
        help="Another source tree: comfyui, requirements.",
    ),
    click.option("--allow-substituted", is_flag=True, help="Push even if an input is not the locked one."),
]
NEARBY: list[Decorator] = [
    click.option(
        "--mount-from", multiple=True, metavar="NAME", help="A repository of that registry with such layers."
    ),
    click.option(
        "--copy-from", multiple=True, metavar="HOST/NAME", help="Any repository to copy weight layers from."
    ),
]
BUILD_OPTIONS: list[Decorator] = [
    variant_option,
    click.option("--push", is_flag=True, help="Push to --registry; the tag moves last."),
    click.option(
        "--registry", metavar="HOST/NS", help="Where to: ghcr.io/you, docker.io/you, localhost:5000/x."
    ),
    click.option(
        "--tag", metavar="T", help="Instead of VARIANT-COMFYUI-cuda-CUDA; {variant} may stand in it."
    ),
    *NEARBY,
    click.option(
        "--spool",
        type=FOLDER,
        metavar="DIR",
        help="Write weights there first: for registries without resume.",
    ),
    click.option(
        "--jobs",
        type=click.IntRange(min=1),
        default=JOBS,
        show_default=True,
        help="Weight layers, and blobs, moved at once.",
    ),
    click.option("--load", is_flag=True, help="Load the image into the local engine."),
    click.option("--out", type=FOLDER, default=Path("dist"), show_default=True, help="Where to write."),
    *SUBSTITUTES,
    click.option("--ca-bundle", type=EXISTING_FILE, help="PEM file of a corporate CA; never in the image."),
    click.option("--python-index", metavar="URL", help="A package index to use instead of the default."),
    click.option("--apt-mirror", metavar="URL", help="A Debian mirror to use instead of the base's."),
    click.option("--builder", metavar="NAME", help="A buildx builder, for more machine than this one."),
    click.option("--no-cache", is_flag=True, help="Build every step anew."),
    click.option("--no-weights", is_flag=True, help="Bake no weights; they are fetched at start instead."),
    click.option(
        "--accept-licence", multiple=True, metavar="MODEL", help="Push its weights though its licence asks."
    ),
    click.option("--report", type=FILE, help="Write the build report, as JSON."),
    click.option("--dry-run", is_flag=True, help="Show the plan and stop."),
    click.option("-v", "--verbose", count=True, help="Show every command."),
    click.option("-q", "--quiet", is_flag=True, help="Show errors only."),
]
