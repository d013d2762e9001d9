"""Which of the image's models are wanted, and how far each has to be offloaded to fit this pod."""

from __future__ import annotations

from pod.errors import SETTING_MALFORMED
from pod.flags.rules import AUTO, MIB_PER_GB
from pod.util import files
from pod.util.dataclass import dataclass, replace
from pod.util.env import SettingError, nearest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from pod.flags.gpu_class import GpuClass
    from pod.flags.rules import Rules
    from pod.flags.settings import Settings
    from pod.model_refs.model_ref import ModelRef

_WEIGHTS = (".safetensors", ".sft", ".gguf")  # beside pickles: what may lie on the card


@dataclass(frozen=True)
class Need:
    """What a model needs in one memory mode, in nominal GB; `mode` is None for a model without modes."""

    mode: str | None
    vram_gb: float
    ram_gb: float


@dataclass(frozen=True)
class Weights:
    """One file that comes with a model: `size` in bytes, exact or about; None where nobody knows it."""

    size: int | None
    precision: str | None = None


@dataclass(frozen=True)
class ModelOffer:
    """One model of models.json, as far as choosing is concerned.

    `task` is what it makes, None for unknown; `weights` the files that are not optional; `requires` what has
    to be there beside them.
    """

    id: str
    env: str
    default: bool
    baked: bool
    needs: tuple[Need, ...]
    unmet: tuple[str, ...]
    task: str | None = None
    weights: tuple[Weights, ...] = ()
    requires: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelDecision:
    """What was decided about one model; `why` is a phrase, and `fits` whether it does in `memory_mode`."""

    offer: ModelOffer
    enabled: bool
    why: str
    memory_mode: str | None = None
    fits: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return the entry of decision.json; `fetch` says whether its files have to come from somewhere."""
        return {
            "id": self.offer.id,
            "enabled": self.enabled,
            "fetch": self.enabled and not self.offer.baked,
            "memory_mode": self.memory_mode,
            "why": self.why,
        }


@dataclass(frozen=True)
class Selection:
    """All models of the image, the files that were named besides, and what there is to say about them."""

    choices: tuple[ModelDecision, ...] = ()
    wishes: tuple[ModelRef, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def reasons(self) -> list[str]:
        """Say which files were understood."""
        where = dict.fromkeys(wish.where for wish in self.wishes)
        words = {name: [wish.word for wish in self.wishes if wish.where == name] for name in where}
        return [f"{name}: to be fetched besides: {', '.join(words[name])}" for name in where]

    def memory_mode(self, rules: Rules) -> str | None:
        """Return the most offloading mode that any enabled model needs; None when none has one."""
        modes = [choice.memory_mode for choice in self.choices if choice.enabled and choice.memory_mode]
        return max(modes, key=rules.offloading) if modes else None


def load(path: Path) -> tuple[ModelOffer, ...]:
    """Read models.json. Raises PodError."""
    return files.read_image_data(path, from_json)


def from_json(data: Mapping[str, Any]) -> tuple[ModelOffer, ...]:
    """Make offers of models.json's data. Raises ValueError, KeyError or TypeError where it is damaged."""
    return tuple(
        ModelOffer(
            id=entry["id"],
            env=entry["env"],
            default=entry["default"],
            baked=entry["baked"],
            needs=_needs(entry),
            unmet=tuple(entry["unmet"]),
            task=entry["task"],
            weights=tuple(
                Weights(file["size"] or file["size_approx"], file["precision"])
                for file in entry["files"]
                if not file["optional"] and (file["pickle"] or file["name"].endswith(_WEIGHTS))
            ),
            requires=tuple(entry["requires"]),
        )
        for entry in data["models"]
    )


def _needs(entry: Mapping[str, Any]) -> tuple[Need, ...]:
    modes = [(need["mode"], need) for need in entry["memory_modes"]]
    return tuple(
        Need(mode, float(need["vram_gb"] or 0), float(need["ram_gb"] or 0))
        for mode, need in modes or [(None, entry)]
    )


def select(
    offers: Sequence[ModelOffer], settings: Settings, card: GpuClass, ram_mib: int | None, rules: Rules
) -> Selection:
    """Decide about every model. Raises SettingError where MODELS names one that the image does not offer."""
    _check_names(offers, settings)
    choices, warnings = [], []
    for offer in offers:
        choice, warning = _wanted(offer, settings)
        warnings += warning
        if choice.enabled and card.usable:
            need, warning = _mode(offer, settings, card, ram_mib, rules)
            warnings += warning
            choice = ModelDecision(offer, choice.enabled, choice.why, need, fits=not warning)
        choices.append(choice)
    return Selection(tuple(choices), settings.wishes, tuple(warnings))


def checked(settings: Settings, offers: Sequence[ModelOffer], root: Path) -> Settings:
    """Hold names of models and folders against those of the image; returns settings with warnings.

    Here, because a boot that is refused must not have touched the volume. Raises PodError.
    """
    _check_names(offers, settings)
    if not settings.wishes:
        return settings
    from pod.model_refs import model_ref, models_json  # noqa: PLC0415 - only needed where a file is named

    warnings = model_ref.check_folders(settings.wishes, models_json.folders(root), SETTING_MALFORMED)
    return replace(settings, warnings=(*settings.warnings, *warnings))


def _check_names(offers: Sequence[ModelOffer], settings: Settings) -> None:
    ids = [offer.id for offer in offers]
    for name in settings.models or ():
        if name not in (*ids, "all", "none"):
            near = nearest(name, ids)
            hint = f"did you mean {near}?" if near else f"it offers {', '.join(ids) or 'none'}."
            raise SettingError(f"MODELS names {name!r}, which this image does not offer: {hint}")


def _wanted(offer: ModelOffer, settings: Settings) -> tuple[ModelDecision, list[str]]:
    """Say whether a model is wanted: its own variable beats MODELS, which beats the image's default."""
    enabled, named, why = _asked(offer, settings)
    if not enabled or not offer.unmet:
        return ModelDecision(offer, enabled, why), []
    needs = ", ".join(offer.unmet)
    if named:
        return ModelDecision(offer, enabled, why), [
            f"model {offer.id} needs {needs}, which this image lacks; fetched all the same ({why})"
        ]
    warning = (
        f"model {offer.id} needs {needs}, which this image lacks, so it is left out; {offer.env}=true insists"
    )
    return ModelDecision(offer, enabled=False, why=f"this image lacks {needs}"), [warning]


def _asked(offer: ModelOffer, settings: Settings) -> tuple[bool, bool, str]:
    """Return whether a model is asked for, whether it was named for that, and by what."""
    toggle = settings.toggle(offer.env)
    if toggle is not None:
        return toggle, True, f"{offer.env}={'true' if toggle else 'false'}"
    if settings.models is None:
        return offer.default, False, "on by default" if offer.default else "off by default"
    if settings.models in (("all",), ("none",)):
        return settings.models == ("all",), False, f"MODELS={settings.models[0]}"
    named = offer.id in settings.models
    return named, named, "MODELS names it" if named else "MODELS does not name it"


def _mode(
    offer: ModelOffer, settings: Settings, card: GpuClass, ram_mib: int | None, rules: Rules
) -> tuple[str | None, list[str]]:
    """Return the least offloading mode whose needs fit, or the one that GPU_MEMORY_MODE says."""

    def fits(need: Need) -> bool:
        vram_fits = card.vram_mib is None or rules.reaches(card.vram_mib, need.vram_gb)
        return vram_fits and (ram_mib is None or rules.reaches(ram_mib, need.ram_gb))

    needs = sorted(offer.needs, key=lambda need: rules.offloading(need.mode) if need.mode else 0)
    mode: str | None
    if settings.memory_mode != AUTO:
        mode = settings.memory_mode
        needs = [need for need in needs if need.mode in (None, mode)]
    else:
        mode = next((need for need in needs if fits(need)), needs[-1]).mode
    if not needs or any(fits(need) for need in needs):
        return mode, []
    last = needs[-1]
    has = f"{_gb(card.vram_mib)} and {_gb(ram_mib)}"
    how = f" in mode {last.mode}" if last.mode else ""
    amounts = f"{last.vram_gb:g} GB of VRAM and {last.ram_gb:g} GB of RAM"
    warning = f"model {offer.id} needs {amounts}{how}; this pod has {has}"
    return mode, [f"{warning}, so it may run out of memory"]


def _gb(mib: int | None) -> str:
    return "an unknown amount" if mib is None else f"{mib / MIB_PER_GB:.1f} GB"
