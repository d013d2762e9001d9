"""Options that several commands have, described once."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from podkiln.errors import UsageError
from podkiln.util.executor import JOBS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
EXISTING_FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
ALL = "all"  # as podkiln.config.variant has it
MOST_JOBS: Final = 64  # layers moved at once: registries and hubs refuse long before


class Option(click.Option):
    """An option that refuses an empty value: `--base "$BASE"` with nothing in BASE is an error."""

    def __init__(self, *declarations: Any, may_be_empty: bool = False, **given: Any) -> None:
        super().__init__(*declarations, **given)
        self.may_be_empty = may_be_empty

    def consume_value(self, ctx: click.Context, opts: Any) -> tuple[Any, Any]:
        """Return the value as it was typed, and where it comes from. Raises UsageError for an empty one."""
        value, source = super().consume_value(ctx, opts)
        typed = value if isinstance(value, list | tuple) else [value]
        if not self.may_be_empty and any(isinstance(each, str) and not each.strip() for each in typed):
            raise UsageError(f"{self.opts[0]} is empty.", hint="Give it a value, or leave it out.")
        return value, source


option = partial(click.option, cls=Option)


class Rate(click.ParamType[float]):
    """Megabytes a second: a finite number within limits."""

    name = "rate"
    slowest: Final = 0.001
    fastest: Final = 1_000_000.0

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number. Raises click.BadParameter."""
        try:
            rate = float(value)
        except (TypeError, ValueError):
            rate = math.nan
        if not self.slowest <= rate <= self.fastest:  # nan is not, either
            self.fail(f"{value} is not a number from {self.slowest:g} to {self.fastest:.0f}.", param, ctx)
        return rate


def apply(options: Sequence[Decorator]) -> Decorator:
    """Return one decorator for many, in the order in which --help shows them."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def names_of(values: Sequence[str], *, default: str | None = None) -> tuple[str, ...]:
    """Return the variants that --variant names, each time it is given: V, V1,V2 or all.

    Raises UsageError when it names none, an empty one, or one twice.
    """
    from podkiln.config import variant  # noqa: PLC0415 - pydantic takes its time, and --help has no use for it

    chosen = values or ([default] if default else [])
    typed = [name.strip() for value in chosen for name in value.split(",")]
    hint = f"There are: {', '.join(variant.names())}, all."
    if not any(typed):
        raise UsageError("--variant is missing.", hint=hint)
    if not all(typed):
        raise UsageError(f"--variant: there is an empty name in {', '.join(chosen)!r}.", hint=hint)
    names = [each for name in typed for each in (variant.names() if name == ALL else [name])]
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if twice:
        raise UsageError(f"--variant: {twice} is named twice.", hint="Name it once.")
    return tuple(names)


def one_of(values: Sequence[str], what: str, *, default: str | None = None) -> str:
    """Return the only variant that --variant names. Raises UsageError; `what` says why there is one."""
    names = names_of(values, default=default)
    if len(names) > 1:
        raise UsageError(f"--variant: {what}, so it can only be one variant.", hint="Call it once for each.")
    return names[0]


variant_option = option(
    "--variant",
    multiple=True,
    metavar="V[,V2|all]",
    help="A shipped variant, or the path of your own YAML file.",
)
registry_option = option(
    "--registry",
    metavar="HOST/NS",
    help="Where to: ghcr.io/you, docker.io/you, localhost:5000/x. Else PODKILN_REGISTRY, else the variant's "
    "image.registry, else in GitHub Actions ghcr.io/OWNER.",
)
json_option = option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
SUBSTITUTES: list[Decorator] = [
    option("--base", metavar="REF|bootstrap", help="Another base image; bootstrap: from Debian packages."),
    option(
        "--source",
        multiple=True,
        metavar="NAME=DIR|URL#COMMIT",
        help="Another source tree: comfyui, requirements.",
    ),
    option("--allow-substituted", is_flag=True, help="Push even if an input is not the locked one."),
]
NEARBY: list[Decorator] = [
    option(
        "--mount-from", multiple=True, metavar="NAME", help="A repository of that registry with such layers."
    ),
    option(
        "--copy-from", multiple=True, metavar="HOST/NAME", help="Any repository to copy weight layers from."
    ),
]
BUILD_OPTIONS: list[Decorator] = [
    variant_option,
    option("--push", is_flag=True, help="Push the image to its registry; the tag moves last."),
    registry_option,
    option("--tag", metavar="T", help="Instead of VARIANT-COMFYUI-cuda-CUDA; {variant} may stand in it."),
    *NEARBY,
    option(
        "--spool",
        type=FOLDER,
        metavar="DIR",
        help="Write weights there first: for registries without resume.",
    ),
    option(
        "--jobs",
        type=click.IntRange(1, MOST_JOBS),
        default=JOBS,
        show_default=True,
        help="Weight layers, and blobs, moved at once.",
    ),
    option("--load", is_flag=True, help="Load the image into the local engine."),
    option("--out", type=FOLDER, default=Path("dist"), show_default=True, help="Where to write."),
    *SUBSTITUTES,
    option("--ca-bundle", type=EXISTING_FILE, help="PEM file of a corporate CA; never in the image."),
    option("--python-index", metavar="URL", help="A package index to use instead of the default."),
    option("--apt-mirror", metavar="URL", help="A Debian mirror to use instead of the base's."),
    option("--builder", metavar="NAME", help="A buildx builder, for more machine than this one."),
    option("--no-cache", is_flag=True, help="Build every step again."),
    option("--no-weights", is_flag=True, help="Bake no weights; they are fetched at start instead."),
    option(
        "--accept-licence",
        multiple=True,
        metavar="MODEL",
        help="Accept its licence, so that its weights may be pushed.",
    ),
    option("--report", type=FILE, help="Write the build report, as JSON."),
    option("--dry-run", is_flag=True, help="Show the plan and stop."),
    option("-v", "--verbose", count=True, help="Show every command."),
    option("-q", "--quiet", is_flag=True, help="Show errors only."),
]
