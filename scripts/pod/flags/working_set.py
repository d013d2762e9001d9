"""Whether the models that are switched on fit the card, and what follows for ComfyUI's loader.

Dynamic VRAM is right where models do not fit; where they fit, the classic loader is faster. The figures, and
how they were measured, are in variants/flags/profiles.yaml.
"""

from __future__ import annotations

from pod.flags.rules import Rule
from pod.util.dataclass import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pod.flags.gpu_class import GpuClass
    from pod.flags.model_selection import ModelOffer, Selection
    from pod.flags.rules import WorkingSet

_MIB = 1 << 20
_FILES_OF_MODELS = "MODELS"  # LORAS are small beside a model, and what is left free has room for them


@dataclass(frozen=True)
class _Load:
    """A model's place on the card in MiB: with activation where its task was measured, else files alone."""

    offer: ModelOffer
    mib: int


def rule_for(class_rule: Rule, known: WorkingSet, card: GpuClass, selection: Selection) -> Rule:
    """Return a class's rule as the enabled models change it: the class's own where none is enabled."""
    enabled = [choice.offer for choice in selection.choices if choice.enabled]
    named = [wish.word for wish in selection.wishes if wish.where == _FILES_OF_MODELS]
    if not enabled and not named:
        return class_rule
    reason = _against(known, card, enabled, named)
    rest = tuple(word for word in class_rule.args if word not in known.rule.args)
    if reason is None:
        largest = _largest(known, enabled)
        reason = f"{_takes(largest)}, within {_share(known)} of the {card.free_mib} MiB that are free"
        faster = f"{known.rule.reason} ({known.tasks[largest.offer.task or ''].reason})"
        return Rule((*rest, *known.rule.args), f"{reason}, and {faster}", known.rule.unless)
    stays = f"Dynamic VRAM stays on because {reason}"
    if not rest:
        return Rule((), f"nothing to pass, {stays}")
    return Rule(rest, f"{class_rule.reason}; {stays}", class_rule.unless)


def _against(
    known: WorkingSet, card: GpuClass, enabled: Sequence[ModelOffer], named: Sequence[str]
) -> str | None:
    """Return the phrase that says why the classic loader is not chosen; None where it is."""
    unknown = [
        offer.id for offer in enabled if not offer.weights or any(file.size is None for file in offer.weights)
    ]
    if unknown or named:
        return f"the size of what {(*unknown, *named)[0]} brings is not known"
    largest, free = _largest(known, enabled), card.free_mib or 0
    if largest.mib > free * known.share:
        return f"{_takes(largest)}, more than {_share(known)} of the {free} MiB that are free"
    return next(filter(None, (_unmeasured(known, card, offer) for offer in enabled)), None)


def _unmeasured(known: WorkingSet, card: GpuClass, offer: ModelOffer) -> str | None:
    """Return the phrase that says why what was measured tells nothing of a model; None where it does."""
    if offer.requires:
        return f"models that need {offer.requires[0]}, such as {offer.id}, were not measured"
    task = known.tasks.get(offer.task or "")
    if task is None:
        what = f"of the task {offer.task}" if offer.task else "that name no task"
        return f"models {what}, such as {offer.id}, were not measured"
    if (card.gb or 0) < task.from_gb:
        fits = f"{_takes(_load(known, offer))}, which would fit"
        return f"{fits}, but for {offer.task} the classic loader was the faster one on {task.from_gb} GB and up alone"
    return None


def _takes(load: _Load) -> str:
    return f"{load.offer.id} takes about {load.mib} MiB"


def _share(known: WorkingSet) -> str:
    return f"{known.share * 100:g} %"


def _largest(known: WorkingSet, enabled: Sequence[ModelOffer]) -> _Load:
    return max((_load(known, offer) for offer in enabled), key=lambda load: load.mib)


def _load(known: WorkingSet, offer: ModelOffer) -> _Load:
    files = sum((file.size or 0) * known.loaded.get(file.precision or "", 1) for file in offer.weights)
    task = known.tasks.get(offer.task or "")
    if task is None:
        return _Load(offer, round(files / _MIB))
    return _Load(offer, round(files * task.factor / _MIB) + task.activation_mib)
