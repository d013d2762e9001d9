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
            self.fail(f"{value} is not a number from {self.slowest:g} to {self.fastest:.0f}.", param, ctx)
        return int(rate * MB)


def apply(options: Sequence[Decorator]) -> Decorator:
    """Return one decorator for many, in the order in which --help shows them."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _opt(names: str, about: str, **given: Any) -> tuple[list[str], dict[str, Any]]:
    """Return the annotation of a field: its option as --help shows it, and what click is given besides."""
    words = names.split()
    metavar = {} if words[-1].startswith("-") else {"metavar": words.pop()}
    return words, {"help": about, **metavar, **given}


class Group:
    """Options of one concern. One whose default is False is a flag; () can be given several times."""

    @classmethod
    def options(cls, *chosen: str, **helps: str) -> list[Decorator]:
        """Return the options of the fields chosen, or of all; `helps`: in other words, for one command."""
        hints = get_type_hints(cls, include_extras=True)
        found: list[Decorator] = []
        for field_name in (*chosen, *helps) or hints:
            ((names, declared),) = hints[field_name].__metadata__
            default = getattr(cls, field_name)
            given = {"is_flag": default is False, "multiple": default == (), **declared}
            if "show_default" in given:
                given = {"default": default, **given}
            if field_name in helps:
                given["help"] = helps[field_name]
            found.append(option(*names, **given))
        return found


@dataclass(frozen=True)
class RuntimeOptions(Group):
    """What is built otherwise than the variants say."""

    cuda: Annotated[
        str | None,
        _opt("--cuda X.Y", "For another CUDA release than the variant's: 12.8 for drivers before 580."),
    ] = None


@dataclass(frozen=True)
class ImageOptions(Group):
    """Where the image goes. `push`: None plans for a push where a registry is known, and else for none."""

    push: Annotated[bool | None, _opt("--push", "Push the image to its registry; the tag moves last.")] = (
        False
    )
    registry: Annotated[
        str | None,
        _opt(
            "--registry HOST/NS",
            "Where to: ghcr.io/you, docker.io/you, localhost:5000/x. Else PODKILN_REGISTRY, else the "
            "variant's image.registry, else in GitHub Actions ghcr.io/OWNER.",
        ),
    ] = None
    tag: Annotated[
        str | None, _opt("--tag T", "Instead of VARIANT-COMFYUI-cuda-CUDA; {variant} may stand in it.")
    ] = None


@dataclass(frozen=True)
class TransferOptions(Group):
    """The ways that layers take, as they were typed. `rate`: bytes a second to reckon uploads with."""

    mount_from: Annotated[
        tuple[str, ...], _opt("--mount-from NAME", "A repository of that registry with such layers.")
    ] = ()
    copy_from: Annotated[
        tuple[str, ...], _opt("--copy-from HOST/NAME", "Any repository to copy weight layers from.")
    ] = ()
    spool: Annotated[
        Path | None,
        _opt("--spool DIR", "Write weights there first: for registries without resume.", type=FOLDER),
    ] = None
    jobs: Annotated[
        int,
        _opt(
            "--jobs",
            "Weight layers, and blobs, moved at once.",
            type=click.IntRange(1, MAX_JOBS),
            show_default=True,
        ),
    ] = JOBS
    rate: Annotated[
        int,
        _opt(
            "--rate MB/S",
            "Upload rate to assume.",
            type=Rate(),
            default=UPLOAD_RATE / MB,
            show_default=True,
        ),
    ] = UPLOAD_RATE


@dataclass(frozen=True)
class OutputOptions(Group):
    """What comes out on this machine."""

    load: Annotated[bool, _opt("--load", "Load the image into the local engine.")] = False
    out: Annotated[Path, _opt("--out", "Where to write.", type=FOLDER, show_default=True)] = Path("dist")
    report: Annotated[Path | None, _opt("--report", "Write the build report, as JSON.", type=FILE)] = None
    dry_run: Annotated[bool, _opt("--dry-run", "Show the plan and stop.")] = False


@dataclass(frozen=True)
class SubstituteOptions(Group):
    """What stands in for locked inputs."""

    base: Annotated[
        str | None, _opt("--base REF|bootstrap", "Another base image; bootstrap: from Debian packages.")
    ] = None
    source: Annotated[
        tuple[str, ...],
        _opt(
            "--source NAME=DIR|URL#COMMIT",
            "Another source tree: comfyui, requirements, node-NAME; nodes=none.",
        ),
    ] = ()
    allow_substituted: Annotated[
        bool, _opt("--allow-substituted", "Push even if an input is not the locked one.")
    ] = False


@dataclass(frozen=True)
class NetworkOptions(Group):
    """The builder's own network: a PEM file of CAs to trust, and URLs, which may hold a login."""

    ca_bundle: Annotated[
        Path | None,
        _opt("--ca-bundle", "PEM file of a corporate CA; never in the image.", type=EXISTING_FILE),
    ] = None
    python_index: Annotated[
        str | None, _opt("--python-index URL", "A package index to use instead of the default.")
    ] = None
    apt_mirror: Annotated[
        str | None, _opt("--apt-mirror URL", "A Debian mirror to use instead of the base's.")
    ] = None


@dataclass(frozen=True)
class EngineOptions(Group):
    """How BuildKit builds."""

    builder: Annotated[
        str | None, _opt("--builder NAME", "A buildx builder, for more machine than this one.")
    ] = None
    no_cache: Annotated[bool, _opt("--no-cache", "Build every step again.")] = False
    no_keep: Annotated[
        bool, _opt("--no-keep", "Keep no export for the next build: for machines that build once.")
    ] = False


@dataclass(frozen=True)
class WeightOptions(Group):
    """Whether weights are baked. `accept_licence`: models and nodes whose licence the user answers for."""

    no_weights: Annotated[
        bool, _opt("--no-weights", "Bake no weights; they are fetched at start instead.")
    ] = False
    accept_licence: Annotated[
        tuple[str, ...],
        _opt("--accept-licence NAME", "Accept that of a model or node, so that it may be in the image."),
    ] = ()


@dataclass(frozen=True)
class ConsoleOptions(Group):
    """How much is said."""

    verbose: Annotated[int, _opt("-v --verbose", "Show every command.", count=True)] = 0
    quiet: Annotated[bool, _opt("-q --quiet", "Show errors only.")] = False


@dataclass(frozen=True)
class BuildRequest:
    """All that the command line asked for, and the environment, which may name a registry."""

    variants: tuple[str, ...]
    runtime: RuntimeOptions = RuntimeOptions()
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
