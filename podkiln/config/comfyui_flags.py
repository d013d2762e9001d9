"""The files in variants/flags/: their shapes, and whether they agree with each other.

Rules that name no flag, or flags that exclude each other, are found here and not in a pod.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from pod.flags.arguments import Catalogue, Flag, RefusedError
from podkiln.config import document
from podkiln.config.document import ROOT, StrictModel, TupleOf
from podkiln.errors import DescriptionError

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.config.document import Document

DIRECTORY = ROOT / "variants" / "flags"
PROFILES = "profiles.yaml"
DEAD = "dead.yaml"
TORCH = "torch.yaml"

FlagName = Annotated[str, StringConstraints(pattern=r"^--[a-z0-9][a-z0-9_-]*$")]
TierName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+$")]
Architecture = Annotated[str, StringConstraints(pattern=r"^(sm|compute)_[0-9]{2,3}[a-z]?$")]
Gigabytes = Annotated[int, Field(gt=0)]


def _phrase(text: str) -> str:
    """Refuse what does not fit into a sentence: reasons are joined with other words."""
    if not text.strip() or "\n" in text or text.endswith("."):
        raise ValueError("expected a phrase on one line without a full stop at its end")
    return text


Phrase = Annotated[str, AfterValidator(_phrase)]


class FlagEntry(StrictModel):
    """One flag of ComfyUI; what the keys mean stands at the head of the file."""

    name: FlagName
    arity: Literal["none", "one", "optional", "any", "some"] = "none"
    type: Literal["str", "int", "float", "file", "folder"] = "str"
    choices: TupleOf[str] = ()
    first: TupleOf[str] = ()
    most: Gigabytes | None = None
    minimum: int | None = None
    maximum: int | None = None
    group: str | None = None
    opposite: FlagName | None = None
    repeat: bool = False
    note: Phrase | None = None
    module: Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]*$")] | None = None
    package: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+$")] | None = None
    companion: FlagName | None = None
    holds: str | None = None
    help: str


class FlagsFile(StrictModel):
    """variants/flags/comfyui-*.yaml."""

    comfyui: str
    commit: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
    later: TupleOf[FlagName]
    flags: TupleOf[FlagEntry] = Field(min_length=1)


class DeadFlag(StrictModel):
    """A flag of old guides."""

    history: Phrase
    say: Phrase


class DeadFile(StrictModel):
    """variants/flags/dead.yaml."""

    flags: dict[FlagName, DeadFlag]


class RuleEntry(StrictModel):
    """Arguments and their reason; they make way for the flags in `unless` from a stronger source."""

    args: TupleOf[str]
    reason: Phrase
    unless: TupleOf[FlagName] = ()


class ClassEntry(StrictModel):
    """A nominal size of card."""

    gb: Gigabytes
    tier: TierName
    memory_mode: str


class Span(StrictModel):
    """The classes that a tier means."""

    from_gb: Gigabytes
    to_gb: Gigabytes


class ProfileEntry(StrictModel):
    """Arguments by class of card."""

    about: Phrase
    no_gpu: RuleEntry
    unified: RuleEntry
    classes: dict[int, RuleEntry]


class ModeEntry(StrictModel):
    """A memory mode, and what it means in each profile."""

    mode: str
    aliases: TupleOf[str] = ()
    dynamic: RuleEntry
    conservative: RuleEntry


class RamEntry(RuleEntry):
    """Arguments for little RAM."""

    below_gb: Gigabytes
    limited: bool = False


class Profiles(StrictModel):
    """The two profiles that variants may name."""

    dynamic: ProfileEntry
    conservative: ProfileEntry


class ProfilesFile(StrictModel):
    """variants/flags/profiles.yaml."""

    tolerance: Annotated[float, Field(ge=0, lt=0.5)]
    classes: TupleOf[ClassEntry] = Field(min_length=1)
    tiers: dict[TierName, Span]
    unified_cards: TupleOf[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]+$")]]
    profiles: Profiles
    memory_modes: TupleOf[ModeEntry] = Field(min_length=1)
    ram: TupleOf[RamEntry]


class TorchWheel(StrictModel):
    """What one build of torch has machine code for."""

    torch: str
    cuda: str
    architectures: TupleOf[Architecture] = Field(min_length=1)


class TorchFile(StrictModel):
    """variants/flags/torch.yaml."""

    wheels: TupleOf[TorchWheel]


@dataclass(frozen=True)
class FlagData:
    """The three files, each valid in itself and all in agreement."""

    flags: FlagsFile
    dead: DeadFile
    profiles: ProfilesFile


@lru_cache(maxsize=8)
def architectures(torch: str | None, cuda: str, directory: Path = DIRECTORY) -> tuple[str, ...] | None:
    """Return what a wheel of torch was built for; None where it is not recorded. Raises DescriptionError."""
    wheels = document.load(directory / TORCH).parse(TorchFile).wheels
    return next((each.architectures for each in wheels if (each.torch, each.cuda) == (torch, cuda)), None)


@lru_cache(maxsize=8)
def load(comfyui_version: str, directory: Path = DIRECTORY) -> FlagData:
    """Read and check the flags of one ComfyUI version, and the profiles. Raises DescriptionError."""
    path = directory / f"comfyui-{comfyui_version}.yaml"
    if not path.is_file():
        known = ", ".join(
            sorted(found.stem.removeprefix("comfyui-") for found in directory.glob("comfyui-*.yaml"))
        )
        raise DescriptionError(
            f"{path}: the flags of ComfyUI {comfyui_version} are not described.",
            hint=f"Described: {known or 'none'}. A new pin needs a new file: read comfy/cli_args.py for it.",
        )
    flags_document = document.load(path)
    dead_document = document.load(directory / DEAD)
    profiles_document = document.load(directory / PROFILES)
    described = FlagData(
        flags_document.parse(FlagsFile), dead_document.parse(DeadFile), profiles_document.parse(ProfilesFile)
    )
    catalogue = _check_flags(described.flags, flags_document, comfyui_version)
    for name in described.dead.flags:
        if name in catalogue.flags:
            raise dead_document.error(("flags", name), f"ComfyUI {comfyui_version} does have this flag.")
    _check_tables(described.profiles, profiles_document)
    _check_rules(described.profiles, profiles_document, catalogue)
    return described


def _check_flags(flags: FlagsFile, file: Document, version: str) -> Catalogue:
    if flags.comfyui != version:
        raise file.error(("comfyui",), f"the file is named after {version}, but says {flags.comfyui}.")
    known: dict[str, Flag] = {}
    for number, entry in enumerate(flags.flags):
        here = ("flags", number)
        if entry.name in known:
            raise file.error(here, f"{entry.name} is duplicated.")
        if entry.arity == "none" and (entry.type != "str" or entry.choices or entry.first or entry.most):
            raise file.error(here, f"{entry.name} takes no value, so it has no type, choices or most.")
        known[entry.name] = Flag(**entry.model_dump())
    for number, entry in enumerate(flags.flags):
        if entry.opposite and (entry.opposite not in known or known[entry.opposite].opposite != entry.name):
            raise file.error(
                ("flags", number, "opposite"), f"{entry.opposite} does not name {entry.name} in return."
            )
        if entry.companion and entry.companion not in known:
            raise file.error(("flags", number, "companion"), f"there is no flag {entry.companion}.")
    for number, name in enumerate(flags.later):
        if name in known:
            raise file.error(("later", number), f"{name} stands among the flags of this version.")
    return Catalogue(version, known)


def _check_tables(tables: ProfilesFile, file: Document) -> None:
    """Check that classes, tiers and memory modes name each other rightly."""
    sizes = [entry.gb for entry in tables.classes]
    if sizes != sorted(set(sizes)):
        raise file.error(("classes",), "the classes must go up, each size once.")
    modes = [entry.mode for entry in tables.memory_modes]
    words = modes + [alias for entry in tables.memory_modes for alias in entry.aliases]
    if len(set(words)) < len(words):
        raise file.error(("memory_modes",), "a mode or alias is duplicated.")
    for name, span in tables.tiers.items():
        if span.from_gb not in sizes or span.to_gb not in sizes or span.from_gb > span.to_gb:
            raise file.error(("tiers", name), "from_gb and to_gb must be classes, in that order.")
    for number, entry in enumerate(tables.classes):
        if entry.memory_mode not in modes:
            raise file.error(
                ("classes", number, "memory_mode"), f"there is no memory mode {entry.memory_mode!r}."
            )
        tier = tables.tiers.get(entry.tier)
        if tier is None or not tier.from_gb <= entry.gb <= tier.to_gb:
            raise file.error(
                ("classes", number, "tier"), f"there is no tier {entry.tier!r} with {entry.gb} GB in it."
            )
    for name, profile in tables.profiles:
        if sorted(profile.classes) != sizes:
            where = ("profiles", name, "classes")
            raise file.error(
                where, f"every class needs its rule, and no other: {', '.join(map(str, sizes))}."
            )


def _check_rules(tables: ProfilesFile, file: Document, catalogue: Catalogue) -> None:
    """Check the arguments of each rule alone: flags that exist, arity, choices, groups."""
    rules: list[tuple[tuple[str | int, ...], RuleEntry]] = []
    for name, profile in tables.profiles:
        here = ("profiles", name)
        rules += [((*here, "no_gpu"), profile.no_gpu), ((*here, "unified"), profile.unified)]
        rules += [((*here, "classes", gb), rule) for gb, rule in profile.classes.items()]
    for number, mode in enumerate(tables.memory_modes):
        rules += [(("memory_modes", number, name), getattr(mode, name)) for name in Profiles.model_fields]
    rules += [(("ram", number), entry) for number, entry in enumerate(tables.ram)]
    for where, rule in rules:
        try:
            parsed = catalogue.parse(rule.args, "args")
        except RefusedError as refused:
            raise file.error((*where, "args"), str(refused)) from None
        if parsed.notes:
            raise file.error((*where, "args"), parsed.notes[0])
        for name in rule.unless:
            if name not in catalogue.flags:
                raise file.error((*where, "unless"), f"ComfyUI {catalogue.version} has no flag {name}.")
