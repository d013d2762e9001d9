"""What the command line asks for: one frozen group of options a concern, each handed down whole.

A field of a group declares its own option, as those of ko do (pkg/commands/options/*.go). A command takes
the groups that it has a use for, or some of a group, in the order in which its --help shows them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Self, get_type_hints

import click

from podkiln.errors import UsageError
from podkiln.util.console import MB
from podkiln.util.executor import JOBS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
EXISTING_FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
MAX_JOBS: Final = 64  # layers moved at once: registries and hubs refuse long before
UPLOAD_RATE: Final = 40 * MB  # bytes per second: what a hosted CI runner sends, for limits in time


class Option(click.Option):
    """An option that refuses an empty value: `--base "$BASE"` with nothing in BASE is a mistake."""

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


class Rate(click.ParamType[int]):
    """Megabytes a second on the command line, bytes a second here: a number that can be reckoned with."""

    name = "rate"
    slowest: Final = 0.001
    fastest: Final = 1_000_000.0

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return bytes a second. Raises click.BadParameter."""
        try:
            rate = float(value)
        except (TypeError, ValueError):
            rate = math.nan
        if not self.slowest <= rate <= self.fastest:  # nan is not, either
            self.fail(f"{value} is no number from {self.slowest:g} to {self.fastest:.0f}.", param, ctx)
        return int(rate * MB)


def apply(options: Sequence[Decorator]) -> Decorator:
    """Return one decorator for many, in the order in which --help shows them."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _declared(names: str, **given: Any) -> tuple[str, dict[str, Any]]:
    """Return what a field's type is annotated with: its option's names, and what click is given besides."""
    return names, given


class Group:
    """Options of one concern."""

    @classmethod
    def options(cls, *chosen: str, **helps: str) -> list[Decorator]:
        """Return the options of the fields chosen, or of all; `helps`: in other words, for one command."""
        hints = get_type_hints(cls, include_extras=True)
        found: list[Decorator] = []
        for field_name in (*chosen, *helps) or hints:
            ((names, given),) = hints[field_name].__metadata__
            shown = {"default": getattr(cls, field_name)} if "show_default" in given else {}
            words = {"help": helps.get(field_name, given["help"])}
            found.append(option(*names.split(), **{**shown, **given, **words}))
        return found


@dataclass(frozen=True)
class ImageOptions(Group):
    """Where the image goes. `push`: None plans for a push where a registry is known, and else for none."""

    push: Annotated[
        bool | None,
        _declared("--push", is_flag=True, help="Push the image to its registry; the tag moves last."),
    ] = False
    registry: Annotated[
        str | None,
        _declared(
            "--registry",
            metavar="HOST/NS",
            help="Where to: ghcr.io/you, docker.io/you, localhost:5000/x. Else PODKILN_REGISTRY, else the "
            "variant's image.registry, else in GitHub Actions ghcr.io/OWNER.",
        ),
    ] = None
    tag: Annotated[
        str | None,
        _declared(
            "--tag", metavar="T", help="Instead of VARIANT-COMFYUI-cuda-CUDA; {variant} may stand in it."
        ),
    ] = None


@dataclass(frozen=True)
class TransferOptions(Group):
    """The ways that layers take, as they were typed. `rate`: bytes a second to reckon uploads with."""

    mount_from: Annotated[
        tuple[str, ...],
        _declared(
            "--mount-from",
            multiple=True,
            metavar="NAME",
            help="A repository of that registry with such layers.",
        ),
    ] = ()
    copy_from: Annotated[
        tuple[str, ...],
        _declared(
            "--copy-from",
            multiple=True,
            metavar="HOST/NAME",
            help="Any repository to copy weight layers from.",
        ),
    ] = ()
    spool: Annotated[
        Path | None,
        _declared(
            "--spool",
            type=FOLDER,
            metavar="DIR",
            help="Write weights there first: for registries without resume.",
        ),
    ] = None
    jobs: Annotated[
        int,
        _declared(
            "--jobs",
            type=click.IntRange(1, MAX_JOBS),
            show_default=True,
            help="Weight layers, and blobs, moved at once.",
        ),
    ] = JOBS
    rate: Annotated[
        int,
        _declared(
            "--rate",
            type=Rate(),
            default=UPLOAD_RATE / MB,
            show_default=True,
            metavar="MB/S",
            help="Upload rate to reckon with.",
        ),
    ] = UPLOAD_RATE


@dataclass(frozen=True)
class OutputOptions(Group):
    """What comes out on this machine."""

    load: Annotated[bool, _declared("--load", is_flag=True, help="Load the image into the local engine.")] = (
        False
    )
    out: Annotated[Path, _declared("--out", type=FOLDER, show_default=True, help="Where to write.")] = Path(
        "dist"
    )
    report: Annotated[
        Path | None, _declared("--report", type=FILE, help="Write the build report, as JSON.")
    ] = None
    dry_run: Annotated[bool, _declared("--dry-run", is_flag=True, help="Show the plan and stop.")] = False


@dataclass(frozen=True)
class SubstituteOptions(Group):
    """What stands in for locked inputs."""

    base: Annotated[
        str | None,
        _declared(
            "--base", metavar="REF|bootstrap", help="Another base image; bootstrap: from Debian packages."
        ),
    ] = None
    source: Annotated[
        tuple[str, ...],
        _declared(
            "--source",
            multiple=True,
            metavar="NAME=DIR|URL#COMMIT",
            help="Another source tree: comfyui, requirements.",
        ),
    ] = ()
    allow_substituted: Annotated[
        bool,
        _declared("--allow-substituted", is_flag=True, help="Push even if an input is not the locked one."),
    ] = False


@dataclass(frozen=True)
class NetworkOptions(Group):
    """The builder's own network: a PEM file of CAs to trust, and URLs, which may hold a login."""

    ca_bundle: Annotated[
        Path | None,
        _declared("--ca-bundle", type=EXISTING_FILE, help="PEM file of a corporate CA; never in the image."),
    ] = None
    python_index: Annotated[
        str | None,
        _declared("--python-index", metavar="URL", help="A package index to use instead of the default."),
    ] = None
    apt_mirror: Annotated[
        str | None,
        _declared("--apt-mirror", metavar="URL", help="A Debian mirror to use instead of the base's."),
    ] = None


@dataclass(frozen=True)
class EngineOptions(Group):
    """How BuildKit builds."""

    builder: Annotated[
        str | None,
        _declared("--builder", metavar="NAME", help="A buildx builder, for more machine than this one."),
    ] = None
    no_cache: Annotated[bool, _declared("--no-cache", is_flag=True, help="Build every step anew.")] = False


@dataclass(frozen=True)
class WeightOptions(Group):
    """Whether weights are baked. `accept_licence`: models whose licence the user answers for."""

    no_weights: Annotated[
        bool,
        _declared("--no-weights", is_flag=True, help="Bake no weights; they are fetched at start instead."),
    ] = False
    accept_licence: Annotated[
        tuple[str, ...],
        _declared(
            "--accept-licence",
            multiple=True,
            metavar="MODEL",
            help="Push its weights though its licence asks.",
        ),
    ] = ()


@dataclass(frozen=True)
class ConsoleOptions(Group):
    """How much is said."""

    verbose: Annotated[int, _declared("-v --verbose", count=True, help="Show every command.")] = 0
    quiet: Annotated[bool, _declared("-q --quiet", is_flag=True, help="Show errors only.")] = False


@dataclass(frozen=True)
class BuildRequest:
    """All that the command line asked for, and the environment, which may name a registry."""

    variants: tuple[str, ...]
    image: ImageOptions = ImageOptions()
    transfer: TransferOptions = TransferOptions()
    output: OutputOptions = OutputOptions()
    substitutes: SubstituteOptions = SubstituteOptions()
    network: NetworkOptions = NetworkOptions()
    engine: EngineOptions = EngineOptions()
    weights: WeightOptions = WeightOptions()
    console: ConsoleOptions = ConsoleOptions()
    environ: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, variants: Sequence[str], environ: Mapping[str, str] | None = None, **options: Any) -> Self:
        """Deal options out to their groups, by name. Raises TypeError for one that no group has."""
        groups: dict[str, Any] = {}
        for each in fields(cls):
            if isinstance(each.default, Group):
                own = {name: options.pop(name) for name in vars(each.default) if name in options}
                groups[each.name] = type(each.default)(**own)
        if options:
            raise TypeError(f"no group has an option {', '.join(options)}")
        return cls(tuple(variants), environ=environ or {}, **groups)
