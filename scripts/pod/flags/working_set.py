"""Whether the models that are switched on fit the card, and what follows for ComfyUI's loader.

Dynamic VRAM is right where models do not fit; where they fit, the classic loader is faster. The figures, and
how they were measured, are in variants/flags/profiles.yaml.
"""

from __future__ import annotations

from pod.flags.rules import MIB_PER_GB, Rule
from pod.util.dataclass import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pod.flags.gpu_class import GpuClass
    from pod.flags.model_selection import ModelOffer, Selection
    from pod.flags.rules import Profile, Rules, WorkingSet

RESERVE = "--reserve-vram"  # GB that ComfyUI leaves to others
_MIB = 1 << 20
_FILES_OF_MODELS = "MODELS"  # LORAS are small beside a model, and what is left free has room for them


@dataclass(frozen=True)
class _Load:
    """A model's place on the card in MiB: with activation where its task was measured, else files alone."""

    offer: ModelOffer
    mib: int


def rule_for(
    rules: Rules,
    profile: Profile,
    card: GpuClass,
    selection: Selection,
    words: Sequence[str] = (),
    reserved_gb: float = 0,
) -> Rule:
    """Return a class's rule as the enabled models change it: the class's own where none is enabled.

    Args:
        rules: What is known of cards.
        profile: Has the class's rule and what was measured.
        card: The card.
        selection: What is enabled.
        words: Flags that the memory mode and the user give besides.
        reserved_gb: What the user keeps for others, of the free VRAM.
    """
    class_rule, known = profile.classes[card.gb or 0], profile.working_set
    if known is None:
        return class_rule
    enabled = [choice.offer for choice in selection.choices if choice.enabled]
    named = [wish.word for wish in selection.wishes if wish.where == _FILES_OF_MODELS]
    if not enabled and not named:
        return class_rule
    free = max(0, (card.free_mib or 0) - round(reserved_gb * MIB_PER_GB))
    room = f"the {free} MiB that are free" + (f" beside {RESERVE} {reserved_gb:g}" if reserved_gb else "")
    # A large card of which another process holds most is as a small one.
    enough = {gb for gb in profile.classes if gb <= (card.gb or 0) and rules.reaches(free, gb)}
    reason = _unknown(known, enabled, named, words)
    largest = _largest(known, enabled) if reason is None else None
    if largest and largest.mib > free * known.share:
        reason = f"{_takes(largest)}, more than {_share(known)} of {room}"
    reason = reason or next(filter(None, (_unmeasured(known, enough, offer) for offer in enabled)), None)
    rest = tuple(word for word in class_rule.args if word not in known.rule.args)
    if largest and reason is None:
        fits = f"{_takes(largest)}, within {_share(known)} of {room}"
        faster = f"{known.rule.reason} ({known.tasks[largest.offer.task or ''].reason})"
        return Rule((*rest, *known.rule.args), f"{fits}, and {faster}", known.rule.unless)
    stays = f"Dynamic VRAM stays on because {reason}"
    if not rest:
        return Rule((), f"nothing to pass, {stays}")
    return Rule(rest, f"{class_rule.reason}; {stays}", class_rule.unless)


def _unknown(
    known: WorkingSet, enabled: Sequence[ModelOffer], named: Sequence[str], words: Sequence[str]
) -> str | None:
    """Return the phrase that says why the size on the card is not known; None where it is."""
    without = [
        offer.id for offer in enabled if not offer.weights or any(file.size is None for file in offer.weights)
    ]
    if without or named:
        return f"the size of what {(*without, *named)[0]} brings is not known"
    if converting := next((word for word in words if word in known.converting), None):
        return f"what weights take with {converting} was not measured"
    return None


def _unmeasured(known: WorkingSet, enough: Collection[int], offer: ModelOffer) -> str | None:
    """Return the phrase that says why what was measured tells nothing of a model; None where it does.

    `enough`: the classes of cards for which there is enough free VRAM.
    """
    if offer.requires:
        return f"models that need {offer.requires[0]}, such as {offer.id}, were not measured"
    task = known.tasks.get(offer.task or "")
    if task is None:
        what = f"of the task {offer.task}" if offer.task else "that name no task"
        return f"models {what}, such as {offer.id}, were not measured"
    if task.from_gb not in enough:
        fits = f"{_takes(_load(known, offer))}, which would fit, but for {offer.task}"
        return f"{fits} the classic loader was the faster one with {task.from_gb} GB free and up alone"
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
