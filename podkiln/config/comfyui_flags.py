"""The files in variants/flags/, read for one ComfyUI release, and whether they agree with each other.

What a release's parser takes stands in a file of its own (podkiln.config.releases); what podkiln knows of
flags and which it chooses holds for all releases, or for a range of them. Rules that name no flag, or flags
that exclude each other, are found here and not in a pod.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from packaging.specifiers import InvalidSpecifier

from pod.flags.arguments import Catalogue, Flag, RefusedError
from podkiln.config import document, releases
from podkiln.config.fields import holds
from podkiln.config.flag_files import (
    Annotation,
    AnnotationsFile,
    DeadFile,
    FlagEntry,
    FlagsOfRelease,
    ProfileEntry,
    Profiles,
    ProfilesFile,
    RuleEntry,
    TorchFile,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from podkiln.config.document import Document
    from podkiln.errors import DescriptionError

DIRECTORY = releases.SHIPPED
ANNOTATIONS = "annotations.yaml"
PROFILES = "profiles.yaml"
DEAD = "dead.yaml"
TORCH = "torch.yaml"
MEASURED = DIRECTORY / "measured"
_RANGE = "Say in `releases` for which releases the rule holds, and write one for the others."


@dataclass(frozen=True)
class FlagData:
    """What holds for one release: all of it valid in itself, and in agreement."""

    flags: FlagsOfRelease
    dead: DeadFile
    profiles: ProfilesFile


@lru_cache(maxsize=8)
def architectures(torch: str | None, cuda: str, directory: Path = DIRECTORY) -> tuple[str, ...] | None:
    """Return what a wheel of torch was built for; None where it is not recorded. Raises DescriptionError."""
    wheels = document.load(directory / TORCH).parse(TorchFile).wheels
    return next((each.architectures for each in wheels if (each.torch, each.cuda) == (torch, cuda)), None)


def load(release: str, directory: Path = DIRECTORY, rules: Path | None = None) -> FlagData:
    """Read and check the flags of one ComfyUI release, and the profiles. Raises DescriptionError.

    Args:
        release: The release.
        directory: Where the release's own file lies.
        rules: Where the files lie that hold for all releases; beside that by default.
    """
    described, problems = check(release, directory, rules)
    if problems:
        raise problems[0]
    return described


def known_flags(rules: Path = DIRECTORY) -> tuple[Annotation, ...]:
    """Return what podkiln knows of flags, whatever the release. Raises DescriptionError."""
    return document.load(rules / ANNOTATIONS).parse(AnnotationsFile).flags


@lru_cache(maxsize=8)
def check(
    release: str, directory: Path = DIRECTORY, rules: Path | None = None
) -> tuple[FlagData, tuple[DescriptionError, ...]]:
    """Read a release's flags and the profiles; return them, and which rules name what the release lacks.

    Raises DescriptionError for files that are wrong whatever the release.
    """
    found, file = releases.load(release, directory)
    return agree(found, file, rules or directory)


def agree(
    found: releases.ReleaseFile, file: Document, folder: Path
) -> tuple[FlagData, tuple[DescriptionError, ...]]:
    """Return what `check` does of a release's file, which need not be written yet. Raises DescriptionError.

    Args:
        found: What the file says.
        file: The file.
        folder: Where the files lie that hold for all releases.
    """
    release = found.comfyui
    dead_document = document.load(folder / DEAD)
    dead = dead_document.parse(DeadFile)
    here = {name: flag for name, flag in dead.flags.items() if holds(flag.releases, release)}
    notes = document.load(folder / ANNOTATIONS)
    annotated = notes.parse(AnnotationsFile).flags
    profiles_document = document.load(folder / PROFILES)
    profiles = profiles_document.parse(ProfilesFile, _that_hold(profiles_document, release))
    flags = _annotated(found, file, annotated, notes)
    catalogue = _catalogue(flags, file)
    problems = [
        dead_document.error(("flags", name), f"ComfyUI {release} does have this flag.")
        for name in here
        if name in catalogue.flags
    ]
    _check_tables(profiles, profiles_document)
    known = {each.name for each in annotated}
    problems += _rule_problems(profiles, profiles_document, catalogue, known)
    ram = tuple(
        entry.model_copy(update={"reason": entry.reason.replace("{comfyui}", release)})
        for entry in profiles.ram
        if holds(entry.releases, release)
    )
    profiles = profiles.model_copy(update={"ram": ram})
    return FlagData(flags, DeadFile(flags=here), profiles), tuple(problems)


def _that_hold(file: Document, release: str) -> dict[str, Any]:
    """Return the profiles with one rule where a list has one for each range of releases.

    Raises DescriptionError where none of a list holds for the release.
    """

    def one(value: Any, location: tuple[str | int, ...]) -> Any:
        if isinstance(value, dict):
            return {key: one(each, (*location, key)) for key, each in value.items()}
        if not isinstance(value, list):
            return value
        if (
            location != ("ram",)
            and value
            and all(isinstance(each, dict) and "args" in each for each in value)
        ):
            fitting = [each for each in value if _may_hold(each.get("releases"), release)]
            if not fitting:
                raise file.error(location, f"none of these rules is for ComfyUI {release}.")
            return fitting[0]
        return [one(each, (*location, number)) for number, each in enumerate(value)]

    found: dict[str, Any] = one(file.data, ())
    return found


def _may_hold(releases: Any, release: str) -> bool:
    """Whether a rule that is not checked yet holds for a release; a range that is none is refused later."""
    try:
        return holds(releases, release)
    except (InvalidSpecifier, TypeError, AttributeError):
        return True


def _annotated(
    found: releases.ReleaseFile, file: Document, annotations: tuple[Annotation, ...], notes: Document
) -> FlagsOfRelease:
    """Put what is known of flags beside what the release's parser says."""
    fitting: dict[str, Annotation] = {}
    for number, note in enumerate(annotations):
        if holds(note.releases, found.comfyui):
            if note.name in fitting:
                raise notes.error(
                    ("flags", number), f"{note.name} is described twice for ComfyUI {found.comfyui}."
                )
            fitting[note.name] = note
    _check_names(annotations, notes)
    names = {flag.name for flag in found.flags}
    flags = [
        _flag(flag, fitting.get(flag.name), names, file, number) for number, flag in enumerate(found.flags)
    ]
    later = [
        note.name
        for note in annotations
        if note.since and note.name not in names and holds(f">{found.comfyui.partition('-')[0]}", note.since)
    ]
    return FlagsOfRelease(
        comfyui=found.comfyui, commit=found.commit, later=tuple(dict.fromkeys(later)), flags=tuple(flags)
    )


def _check_names(annotations: tuple[Annotation, ...], file: Document) -> None:
    """See that flags name others that there are, in some release, and that opposites name each other."""
    opposites = {note.name: note.opposite for note in annotations}
    for number, note in enumerate(annotations):
        for key in ("opposite", "companion"):
            name = getattr(note, key)
            if name and name not in opposites:
                raise file.error(("flags", number, key), f"there is no flag {name}.")
    for number, note in enumerate(annotations):
        if note.opposite and opposites[note.opposite] != note.name:
            raise file.error(
                ("flags", number, "opposite"), f"{note.opposite} does not name {note.name} in return."
            )


def _flag(
    flag: releases.ParsedFlag, note: Annotation | None, names: set[str], file: Document, number: int
) -> FlagEntry:
    if flag.action and (note is None or note.action != flag.action):
        raise file.error(
            ("flags", number, "action"),
            f"what {flag.action} does with the values of {flag.name} is not known.",
            hint=f"Read that class in comfy/cli_args.py, and say it in variants/flags/{ANNOTATIONS}.",
        )
    read = flag.model_dump(exclude={"default", "action"}, exclude_none=True, exclude_defaults=True)
    known = note.model_dump(exclude={"since", "releases", "action"}, exclude_defaults=True) if note else {}
    for key in ("opposite", "companion"):  # of a flag that this release does not have
        if known.get(key) not in names:
            known.pop(key, None)
    return FlagEntry(**{**read, **known})


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
        _check_working_set(name, profile, sizes, file)


def _check_working_set(name: str, profile: ProfileEntry, sizes: list[int], file: Document) -> None:
    """Check that each task begins at a class, and was measured in a file that is there."""
    for task, entry in (profile.working_set.tasks if profile.working_set else {}).items():
        where = ("profiles", name, "working_set", "tasks", task)
        if entry.from_gb not in sizes:
            raise file.error((*where, "from_gb"), f"{entry.from_gb} GB is no class.")
        if not (MEASURED / entry.measured).is_file():
            raise file.error((*where, "measured"), f"there is no {entry.measured} in {MEASURED}.")


def _catalogue(flags: FlagsOfRelease, file: Document) -> Catalogue:
    known: dict[str, Flag] = {}
    for number, entry in enumerate(flags.flags):
        here = ("flags", number)
        if entry.name in known:
            raise file.error(here, f"{entry.name} is duplicated.")
        if entry.arity == "none" and (entry.type != "str" or entry.choices or entry.first or entry.most):
            raise file.error(here, f"{entry.name} takes no value, so it has no type, choices or most.")
        known[entry.name] = Flag(**entry.model_dump())
    return Catalogue(flags.comfyui, known)


def _rules(tables: ProfilesFile) -> Iterator[tuple[tuple[str | int, ...], RuleEntry]]:
    """Yield each rule with its place in profiles.yaml."""
    for name, profile in tables.profiles:
        yield ("profiles", name, "no_gpu"), profile.no_gpu
        yield ("profiles", name, "unified"), profile.unified
        for gb, rule in profile.classes.items():
            yield ("profiles", name, "classes", gb), rule
        if profile.working_set:
            yield ("profiles", name, "working_set"), profile.working_set
    for number, mode in enumerate(tables.memory_modes):
        for name in Profiles.model_fields:
            yield ("memory_modes", number, name), mode.rule(name)
    for number, entry in enumerate(tables.ram):
        yield ("ram", number), entry


def _rule_problems(
    tables: ProfilesFile, file: Document, catalogue: Catalogue, annotated: set[str]
) -> Iterator[DescriptionError]:
    """Yield what is wrong with the arguments of each rule alone: flags that exist, arity, choices, groups."""
    for where, rule in _rules(tables):
        if not holds(rule.releases, catalogue.version):
            continue
        try:
            parsed = catalogue.parse(rule.args, "args")
        except RefusedError as refused:
            yield file.error((*where, "args"), str(refused), hint=_RANGE)
            continue
        if parsed.notes:
            yield file.error((*where, "args"), parsed.notes[0], hint=_RANGE)
        for name in (*rule.unless, *getattr(rule, "converting", ())):
            if name not in catalogue.flags and name not in annotated:
                yield file.error((*where, "unless"), f"ComfyUI {catalogue.version} has no flag {name}.")


def outdated(before: str, after: str, rules: Path = DIRECTORY) -> list[str]:
    """Return which rules hold for one release and not for another, one sentence each."""
    file = document.load(rules / PROFILES)
    found = []
    for where, rule in _rules(file.parse(ProfilesFile, _that_hold(file, before))):
        if holds(rule.releases, before) and not holds(rule.releases, after):
            here = file.error(where, f"holds for ComfyUI {rule.releases}, and is left out.")
            found.append(str(here))
    return found
