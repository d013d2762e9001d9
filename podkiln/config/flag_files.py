"""The shapes of the files in variants/flags/ that hold for all ComfyUI releases, or for a range of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from podkiln.config.document import StrictModel, TupleOf
from podkiln.config.fields import FlagName, Phrase, Release, Releases, Version
from podkiln.config.model import Precision, Task

TierName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+$")]
Architecture = Annotated[str, StringConstraints(pattern=r"^(sm|compute)_[0-9]{2,3}[a-z]?$")]
Gigabytes = Annotated[int, Field(gt=0)]
Mebibytes = Annotated[int, Field(gt=0)]


class FlagEntry(StrictModel):
    """One flag of a release: what its parser says, and what podkiln knows of it besides."""

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
    module: str | None = None
    package: str | None = None
    companion: FlagName | None = None
    holds: str | None = None
    help: str = ""


class Annotation(StrictModel):
    """What podkiln knows of a flag; the keys are explained at the head of annotations.yaml."""

    name: FlagName
    since: Version | None = None
    releases: Releases | None = None
    type: Literal["file", "folder"] | None = None
    action: str | None = None
    first: TupleOf[str] = ()
    most: Gigabytes | None = None
    repeat: bool = False
    minimum: int | None = None
    maximum: int | None = None
    opposite: FlagName | None = None
    note: Phrase | None = None
    module: Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]*$")] | None = None
    package: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+$")] | None = None
    companion: FlagName | None = None
    holds: str | None = None
    help: str


class AnnotationsFile(StrictModel):
    """variants/flags/annotations.yaml."""

    flags: TupleOf[Annotation]


class FlagsOfRelease(StrictModel):
    """A release's flags in its parser's order, and those that are known to have come later."""

    comfyui: Release
    commit: str
    later: TupleOf[FlagName]
    flags: TupleOf[FlagEntry]


class DeadFlag(StrictModel):
    """A flag of old guides. `releases`: those that do not have it; all, where it never was one."""

    releases: Releases | None = Field(None, exclude=True)
    history: Phrase
    say: Phrase


class DeadFile(StrictModel):
    """variants/flags/dead.yaml."""

    flags: dict[FlagName, DeadFlag]


class RuleEntry(StrictModel):
    """Arguments and their reason; they make way for the flags in `unless` from a stronger source.

    `releases`: the releases that it holds for.
    """

    releases: Releases | None = Field(None, exclude=True)
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


class TaskEntry(StrictModel):
    """What a task takes beside a model's files, and the cases of a file in measured/ that it was read from.

    `from_gb`: the smallest class in which the arguments were measured to pay; `reason`: by how much.
    """

    factor: Annotated[float, Field(ge=1, le=3)]
    activation_mib: Mebibytes
    from_gb: Gigabytes
    measured: Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]+\.json$")]
    workflow: str
    reason: Phrase


class WorkingSetEntry(RuleEntry):
    """Arguments for models whose working set is no more than `share` of the free VRAM; see profiles.yaml.

    `converting`: flags that keep weights in another precision than they were measured in.
    """

    converting: TupleOf[FlagName]
    share: Annotated[float, Field(gt=0, le=1)]
    loaded: dict[Precision, Annotated[float, Field(gt=0, le=4)]]
    tasks: dict[Task, TaskEntry]


class ProfileEntry(StrictModel):
    """Arguments by class of card, and where they were measured; with a working set, by the enabled models."""

    about: Phrase
    measured: Phrase
    working_set: WorkingSetEntry | None = None
    no_gpu: RuleEntry
    unified: RuleEntry
    classes: dict[int, RuleEntry]


class ModeEntry(StrictModel):
    """A memory mode, and what it means in each profile; where one does not say, what it means in dynamic."""

    mode: str
    aliases: TupleOf[str] = ()
    dynamic: RuleEntry
    conservative: RuleEntry | None = None
    no_xformers: RuleEntry | None = None

    def rule(self, profile: str) -> RuleEntry:
        """Return what the mode means in a profile."""
        return getattr(self, profile) or self.dynamic


class RamEntry(RuleEntry):
    """Arguments for little RAM."""

    below_gb: Gigabytes
    limited: bool = False


class Profiles(StrictModel):
    """The profiles that variants may name."""

    dynamic: ProfileEntry
    conservative: ProfileEntry
    no_xformers: ProfileEntry


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
