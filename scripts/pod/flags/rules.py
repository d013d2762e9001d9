"""flags.json: what podkiln knows about one ComfyUI's flags, and which of them a card and a pod get.

The builder writes it from variants/flags/ after checking it (podkiln/render/flags_json.py), so here a wrong
shape is damage, not a mistake to explain in detail.
"""

from __future__ import annotations

from pod.flags.arguments import Catalogue, Flag
from pod.hardware.compatibility import Cuda, OtherCuda
from pod.util import files
from pod.util.dataclass import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

AUTO = "auto"
MIB_PER_GB = 1024


@dataclass(frozen=True)
class Rule:
    """Arguments, and the sentence that says why; they make way for stronger sources' flags in `unless`."""

    args: tuple[str, ...]
    reason: str
    unless: tuple[str, ...] = ()


@dataclass(frozen=True)
class CardClass:
    """A nominal size of card in GB; `memory_mode` is for models that say nothing about their needs."""

    gb: int
    tier: str
    memory_mode: str


@dataclass(frozen=True)
class TaskMeasure:
    """What a task takes beside the files, as measured, from which class of card on; `reason` has figures."""

    factor: float
    activation_mib: int
    from_gb: int
    reason: str


@dataclass(frozen=True)
class WorkingSet:
    """Arguments for models whose working set is no more than `share` of the free VRAM.

    `loaded` is what a file's bytes become on the card, by its precision; 1 for those that are not in it.
    `converting` are flags with which that does not hold.
    """

    rule: Rule
    converting: tuple[str, ...]
    share: float
    loaded: Mapping[str, float]
    tasks: Mapping[str, TaskMeasure]


@dataclass(frozen=True)
class Profile:
    """One answer to "which flags for which card"; with a working set, for which models too."""

    no_gpu: Rule
    unified: Rule
    classes: Mapping[int, Rule]
    working_set: WorkingSet | None = None


@dataclass(frozen=True)
class MemoryMode:
    """What a GPU_MEMORY_MODE means, by profile."""

    mode: str
    aliases: tuple[str, ...]
    rules: Mapping[str, Rule]


@dataclass(frozen=True)
class RamRule:
    """Arguments for a pod with less than `below_gb` of RAM; `limited`: only where a control group says so."""

    below_gb: int
    limited: bool
    rule: Rule


@dataclass(frozen=True)
class Rules:
    """All of flags.json."""

    catalogue: Catalogue
    tolerance: float
    classes: tuple[CardClass, ...]
    tiers: Mapping[str, tuple[int, int]]
    unified_cards: tuple[str, ...]
    profiles: Mapping[str, Profile]
    memory_modes: tuple[MemoryMode, ...]
    ram: tuple[RamRule, ...]
    common: tuple[str, ...]
    profile: str
    port: int
    workspace: str
    cuda: Cuda | None

    def reaches(self, mib: int, gb: float) -> bool:
        """Whether so many MiB are as good as so many nominal GB."""
        return mib >= gb * MIB_PER_GB * (1 - self.tolerance)

    def class_of(self, vram_mib: int) -> CardClass:
        """Return the largest class that a card reaches; the smallest one for a card that reaches none."""
        reached = [class_ for class_ in self.classes if self.reaches(vram_mib, class_.gb)]
        return reached[-1] if reached else self.classes[0]

    def class_gb(self, gb: int) -> CardClass:
        """Return the class of a nominal size."""
        return next(class_ for class_ in self.classes if class_.gb == gb)

    def common_for(self, port: int, root: str) -> tuple[str, ...]:
        """Return the arguments of every start, {port} and {root} filled in."""
        return tuple(word.replace("{port}", str(port)).replace("{root}", root) for word in self.common)

    def offloading(self, mode: str) -> int:
        """Rank a memory mode by how much it keeps off the card: 0 is a full load."""
        return [known.mode for known in self.memory_modes].index(mode)


def load(path: Path) -> Rules:
    """Read flags.json. Raises PodError."""
    return files.read_image_data(path, from_json)


def from_json(data: Mapping[str, Any]) -> Rules:
    """Make Rules of flags.json's data. Raises ValueError, KeyError or TypeError where it is damaged."""
    flags = [Flag(**{key: _frozen(value) for key, value in flag.items()}) for flag in data["flags"]]
    return Rules(
        catalogue=Catalogue(
            version=data["comfyui"],
            flags={flag.name: flag for flag in flags},
            dead={name: f"{entry['history']}; {entry['say']}" for name, entry in data["dead"].items()},
            later=frozenset(data["later"]),
        ),
        tolerance=data["tolerance"],
        classes=tuple(CardClass(**entry) for entry in data["classes"]),
        tiers={name: (span["from_gb"], span["to_gb"]) for name, span in data["tiers"].items()},
        unified_cards=tuple(data["unified_cards"]),
        profiles={name: _profile(entry) for name, entry in data["profiles"].items()},
        memory_modes=tuple(_memory_mode(entry) for entry in data["memory_modes"]),
        ram=tuple(RamRule(entry["below_gb"], entry["limited"], _rule(entry)) for entry in data["ram"]),
        common=tuple(data["common"]),
        profile=data["profile"],
        port=data["port"],
        workspace=data["workspace"],
        cuda=_cuda(data["cuda"]) if data["cuda"] else None,
    )


def _frozen(value: object) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _cuda(data: Mapping[str, Any]) -> Cuda:
    return Cuda(
        version=data["version"],
        driver=data["driver"],
        least_driver=data["least_driver"],
        architectures=_frozen(data["architectures"]),
        limits=tuple(data["limits"]),
        others=tuple(
            OtherCuda(each["version"], each["least_driver"], _frozen(each["architectures"]))
            for each in data["others"]
        ),
    )


def _rule(entry: Mapping[str, Any]) -> Rule:
    return Rule(tuple(entry["args"]), entry["reason"], tuple(entry.get("unless", ())))


def _profile(entry: Mapping[str, Any]) -> Profile:
    return Profile(
        no_gpu=_rule(entry["no_gpu"]),
        unified=_rule(entry["unified"]),
        classes={int(gb): _rule(rule) for gb, rule in entry["classes"].items()},
        working_set=_working_set(entry["working_set"]) if entry["working_set"] else None,
    )


def _working_set(entry: Mapping[str, Any]) -> WorkingSet:
    tasks = {
        task: TaskMeasure(*(measure[key] for key in ("factor", "activation_mib", "from_gb", "reason")))
        for task, measure in entry["tasks"].items()
    }
    return WorkingSet(_rule(entry), tuple(entry["converting"]), entry["share"], entry["loaded"], tasks)


def _memory_mode(entry: Mapping[str, Any]) -> MemoryMode:
    rules = {profile: _rule(rule) for profile, rule in entry["profiles"].items()}
    return MemoryMode(entry["mode"], tuple(entry["aliases"]), rules)
