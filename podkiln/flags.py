"""ComfyUI's flags and our profiles: YAML in variants/flags/, checked together, written as flags.json.

The choice itself is made by pod.choice, which the image carries too: so what `foretell` says is what a pod
does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints

from pod import rules as pod_rules
from pod.arguments import Catalogue, Flag, RefusedError
from pod.choice import Decision, choose
from pod.failure import PodError
from pod.gpu import Detection, Gpu
from pod.memory import Memory
from pod.settings import read
from podkiln import document
from podkiln.document import Document, Many, Strict
from podkiln.errors import DescriptionError, UsageError

if TYPE_CHECKING:
    from pod.rules import Rules
    from pod.selection import Offer

DIRECTORY = Path(__file__).resolve().parent.parent / "variants" / "flags"
PROFILES = "profiles.yaml"
DEAD = "dead.yaml"

FlagName = Annotated[str, StringConstraints(pattern=r"^--[a-z0-9][a-z0-9_-]*$")]
TierName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+$")]
Gigabytes = Annotated[int, Field(gt=0)]


def _phrase(text: str) -> str:
    """Refuse what does not fit into a sentence: reasons are joined with other words."""
    if not text.strip() or "\n" in text or text.endswith("."):
        raise ValueError("a phrase on one line without a full stop at its end is wanted")
    return text


Phrase = Annotated[str, AfterValidator(_phrase)]


class FlagEntry(Strict):
    """One flag of ComfyUI; what the keys mean stands at the head of the file."""

    name: FlagName
    arity: Literal["none", "one", "optional", "any", "some"] = "none"
    type: Literal["str", "int", "float", "file", "folder"] = "str"
    choices: Many[str] = ()
    first: Many[str] = ()
    most: Gigabytes | None = None
    minimum: int | None = None
    maximum: int | None = None
    group: str | None = None
    opposite: FlagName | None = None
    repeat: bool = False
    note: Phrase | None = None
    help: str


class FlagsFile(Strict):
    """variants/flags/comfyui-*.yaml."""

    comfyui: str
    commit: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
    later: Many[FlagName]
    flags: Many[FlagEntry] = Field(min_length=1)


class DeadFlag(Strict):
    """A flag of old guides."""

    history: Phrase
    say: Phrase


class DeadFile(Strict):
    """variants/flags/dead.yaml."""

    flags: dict[FlagName, DeadFlag]


class RuleEntry(Strict):
    """Arguments and their reason."""

    args: Many[str]
    reason: Phrase


class ClassEntry(Strict):
    """A nominal size of card."""

    gb: Gigabytes
    tier: TierName
    memory_mode: str


class Span(Strict):
    """The classes that a tier means."""

    from_gb: Gigabytes
    to_gb: Gigabytes


class ProfileEntry(Strict):
    """Arguments by class of card."""

    about: Phrase
    no_gpu: RuleEntry
    unified: RuleEntry
    classes: dict[int, RuleEntry]


class ModeEntry(Strict):
    """A memory mode, and what it means in each profile."""

    mode: str
    aliases: Many[str] = ()
    dynamic: RuleEntry
    conservative: RuleEntry


class RamEntry(RuleEntry):
    """Arguments for little RAM."""

    below_gb: Gigabytes
    limited: bool = False


class Profiles(Strict):
    """The two profiles that variants may name."""

    dynamic: ProfileEntry
    conservative: ProfileEntry


class ProfilesFile(Strict):
    """variants/flags/profiles.yaml."""

    tolerance: Annotated[float, Field(ge=0, lt=0.5)]
    classes: Many[ClassEntry] = Field(min_length=1)
    tiers: dict[TierName, Span]
    profiles: Profiles
    memory_modes: Many[ModeEntry] = Field(min_length=1)
    ram: Many[RamEntry]
    compute_cap: str | None = None


@dataclass(frozen=True)
class Described:
    """The three files, each valid in itself and all in agreement."""

    flags: FlagsFile
    dead: DeadFile
    profiles: ProfilesFile


@lru_cache(maxsize=8)
def load(comfyui_version: str, directory: Path = DIRECTORY) -> Described:
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
    described = Described(
        flags_document.parse(FlagsFile), dead_document.parse(DeadFile), profiles_document.parse(ProfilesFile)
    )
    catalogue = _check_flags(described.flags, flags_document, comfyui_version)
    for name in described.dead.flags:
        if name in catalogue.flags:
            raise dead_document.error(("flags", name), f"ComfyUI {comfyui_version} does have this flag.")
    _check_tables(described.profiles, profiles_document)
    _check_rules(described.profiles, profiles_document, catalogue)
    return described


def to_json(
    comfyui_version: str,
    common: list[str],
    profile: str = "dynamic",
    *,
    port: int = 8188,
    workspace: str = "/workspace",
    driver: str | None = None,
) -> dict[str, Any]:
    """Return flags.json for an image. Raises DescriptionError where rules combine to no command line.

    Args:
        comfyui_version: The pinned ComfyUI.
        common: Arguments of every start; {port} and {root} are filled in by the pod.
        profile: What FLAG_PROFILE is by default.
        port: What COMFYUI_PORT is by default.
        workspace: What WORKSPACE is by default.
        driver: The least NVIDIA driver for the image's CUDA.
    """
    described = load(comfyui_version)
    data = _data(described, common, profile) | {"port": port, "workspace": workspace, "driver": driver}
    _check_combinations(comfyui_version, tuple(common))
    return data


def foretell(  # one parameter for each option of `./build.py flags`
    data: dict[str, Any],
    *,
    vram_mib: int,
    ram_mib: int | None = None,
    host_ram_mib: int | None = None,
    tier: str | None = None,
    memory_mode: str | None = None,
    profile: str | None = None,
    args: str = "",
    offers: tuple[Offer, ...] = (),
) -> Decision:
    """Say what a pod would choose. Raises UsageError for what the pod would refuse.

    Args:
        data: flags.json, from `to_json`.
        vram_mib: The card's memory as nvidia-smi reports it; 0 for no GPU.
        ram_mib: The pod's RAM; None for unknown.
        host_ram_mib: The machine's RAM where the pod is limited to less of it.
        tier: GPU_TIER.
        memory_mode: GPU_MEMORY_MODE.
        profile: FLAG_PROFILE.
        args: COMFYUI_ARGS.
        offers: The image's models, from pod.selection.from_json.
    """
    environ = {
        "GPU_TIER": tier or "",
        "GPU_MEMORY_MODE": memory_mode or "",
        "FLAG_PROFILE": profile or "",
        "COMFYUI_ARGS": args,
    }
    rules = pod_rules.from_json(data)
    try:
        settings = read(environ, rules)
        user = rules.catalogue.parse_text(args, "COMFYUI_ARGS", exists=lambda _kind, _path: True)
        return choose(rules, settings, user, _detection(vram_mib), _memory(ram_mib, host_ram_mib), offers)
    except PodError as refused:
        raise UsageError(str(refused), hint="A pod would refuse it in the same words.") from None


def _detection(vram_mib: int) -> Detection:
    if vram_mib == 0:
        return Detection(None, reasons=("there is no GPU",))
    return Detection(Gpu(index=0, uuid="", name="as given", vram_mib=vram_mib), visible=1)


def _memory(ram_mib: int | None, host_ram_mib: int | None) -> Memory:
    if ram_mib is not None and host_ram_mib is not None and ram_mib < host_ram_mib:
        return Memory(host_mib=host_ram_mib, limit_mib=ram_mib)
    return Memory(host_mib=ram_mib, limit_mib=None)


def _data(described: Described, common: list[str], profile: str) -> dict[str, Any]:
    """Turn the checked files into flags.json; what equals a default of pod.arguments.Flag is left out."""
    profiles = described.profiles
    names = tuple(Profiles.model_fields)
    return {
        "schema": pod_rules.SCHEMA,
        "comfyui": described.flags.comfyui,
        "flags": [flag.model_dump(mode="json", exclude_defaults=True) for flag in described.flags.flags],
        "later": list(described.flags.later),
        "dead": {name: flag.model_dump(mode="json") for name, flag in described.dead.flags.items()},
        "tolerance": profiles.tolerance,
        "classes": [entry.model_dump(mode="json") for entry in profiles.classes],
        "tiers": {name: span.model_dump(mode="json") for name, span in profiles.tiers.items()},
        "profiles": profiles.profiles.model_dump(mode="json"),
        "memory_modes": [
            {
                "mode": entry.mode,
                "aliases": list(entry.aliases),
                "profiles": {name: getattr(entry, name).model_dump(mode="json") for name in names},
            }
            for entry in profiles.memory_modes
        ],
        "ram": [entry.model_dump(mode="json") for entry in profiles.ram],
        "compute_cap": profiles.compute_cap,
        "common": common,
        "profile": profile,
        "port": 8188,
        "workspace": "/workspace",
        "driver": None,
    }


def _check_flags(flags: FlagsFile, file: Document, version: str) -> Catalogue:
    if flags.comfyui != version:
        raise file.error(("comfyui",), f"the file is named after {version}, but says {flags.comfyui}.")
    known: dict[str, Flag] = {}
    for number, entry in enumerate(flags.flags):
        here = ("flags", number)
        if entry.name in known:
            raise file.error(here, f"{entry.name} stands twice.")
        if entry.arity == "none" and (entry.type != "str" or entry.choices or entry.first or entry.most):
            raise file.error(here, f"{entry.name} takes no value, so it has no type, choices or most.")
        known[entry.name] = Flag(**entry.model_dump())
    for number, entry in enumerate(flags.flags):
        if entry.opposite and (entry.opposite not in known or known[entry.opposite].opposite != entry.name):
            raise file.error(
                ("flags", number, "opposite"), f"{entry.opposite} does not name {entry.name} in return."
            )
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
        raise file.error(("memory_modes",), "a mode or alias stands twice.")
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


@lru_cache(maxsize=8)
def _check_combinations(version: str, common: tuple[str, ...]) -> None:
    """Choose for every card, RAM, memory mode and profile, and read each command line again.

    Groups are resolved when rules meet, so this is what shows that no pod can be given a line that ComfyUI
    refuses.
    """
    described = load(version)
    rules = pod_rules.from_json(_data(described, list(common), "dynamic"))
    try:
        rules.catalogue.parse(
            rules.common_for(8188, ""), "runtime.comfyui.arguments", exists=lambda _kind, _path: True
        )
    except RefusedError as refused:
        raise DescriptionError(
            str(refused), hint="Correct runtime.comfyui.arguments of the variant."
        ) from None
    mib = pod_rules.MIB_PER_GB
    cards = [0, *(entry.gb * mib for entry in rules.classes)]
    rams = [_memory(None, None), *(_memory(rule.below_gb * mib // 2, 4096 * mib) for rule in rules.ram)]
    modes = ["auto", *(entry.mode for entry in rules.memory_modes)]
    for card, ram, mode, profile in product(cards, rams, modes, rules.profiles):
        environ = {"GPU_MEMORY_MODE": mode, "FLAG_PROFILE": profile}
        settings = read(environ, rules)
        decision = choose(rules, settings, rules.catalogue.parse([], ""), _detection(card), ram)
        _read_again(rules, decision, f"{card} MiB, {mode}, {profile}")
    unified = Detection(Gpu(index=0, uuid="", name="unified", vram_mib=None), visible=1)
    for mode, profile in product(modes, rules.profiles):
        settings = read({"GPU_MEMORY_MODE": mode, "FLAG_PROFILE": profile}, rules)
        decision = choose(rules, settings, rules.catalogue.parse([], ""), unified, rams[-1])
        _read_again(rules, decision, f"unified memory, {mode}, {profile}")


def _read_again(rules: Rules, decision: Decision, case: str) -> None:
    try:
        parsed = rules.catalogue.parse(decision.args, case, exists=lambda _kind, _path: True)
    except RefusedError as refused:
        raise DescriptionError(f"{DIRECTORY / PROFILES}: {refused}") from None
    if parsed.notes:
        raise DescriptionError(f"{DIRECTORY / PROFILES}: {parsed.notes[0]}")
