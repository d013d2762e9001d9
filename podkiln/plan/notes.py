"""What is worth knowing of a plan, in sentences: nothing of it speaks against a build. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podkiln.config.list_changes import APT
from podkiln.lock.apt import NOT_LOCKED
from podkiln.lock.schema import ModelSize
from podkiln.plan import cuda, node_layers
from podkiln.util.console import GB

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podkiln.config.catalog import Entry
    from podkiln.config.list_changes import ChangedList
    from podkiln.plan.plan import Plan


def _replaced(changed: ChangedList) -> str:
    """Say that a list of a parent was replaced."""
    child, parent = changed.replaced or ("", "")
    name = ".".join(map(str, changed.path))
    layers = ", and the layers from the system packages on are its own" if changed.path == APT else ""
    return (
        f"{child} replaces the list {name} of {parent} whole{layers}; "
        "`{add: [...], remove: [...]}` would change it."
    )


def of_model(made: Plan) -> list[str]:
    """Return which words of the model that is served are not locked, and what wants a token in each pod."""
    if made.lock.model is None:
        return []
    words = made.lock.model.document.words
    notes = [
        f"{word.word} ({word.role}) is unresolved: a pod asks its hub what it is, and takes what that says; "
        f"`./build.py lock{made.described.option}` pins it where the hub answers."
        for word in words
        if word.found is None
    ]
    parts = {part.name: part for word in words if word.found for part in word.found.parts.values()}
    return [
        *notes,
        *(f"{name} is gated: each pod needs HF_TOKEN." for name, part in parts.items() if part.gated),
    ]


def of(made: Plan, shipped: Mapping[str, Entry]) -> list[str]:
    """Return what a person should know of a plan and is no reason to refuse it. `shipped`: models, by id."""
    notes = [
        f"{offer.id} is what `define:` describes ({offer.entry.where}), "
        "in place of the shipped model of that id."
        for offer in made.offered
        if offer.entry.place and offer.id in shipped
    ]
    gone = made.described.lists[APT].removed if APT in made.described.lists else ()
    if gone:
        names = ", ".join(each.value for each in gone)
        notes.append(f"Without {names}, the layers from the system packages on are this variant's own.")
    notes += map(_replaced, filter(lambda each: each.replaced, made.described.lists.values()))
    notes += [
        f"{offer.id} needs {', '.join(offer.unmet)}, which this image lacks: it is fetched only when named."
        for offer in made.offered
        if offer.unmet
    ]
    notes += [
        f"{offer.id} has files of this machine and is not baked: no pod gets it."
        for offer in made.offered
        if offer.model.local and not offer.baked
    ]
    notes += node_layers.notes(made.nodes)
    notes += cuda.notes(made.described, made.lock, made.offered)
    notes += of_model(made)
    if made.apt is None:
        notes.append(f"apt is {NOT_LOCKED}: the lock has no index for the base {made.base_digest}.")
    left_out = [offer for offer in made.offered if offer.baked] if made.request.weights.no_weights else []
    if left_out:
        sizes = [ModelSize.of(offer.model, made.lock.weights[offer.id]) for offer in left_out]
        more = "more than " if any(size.unknown for size in sizes) else ""
        total = sum(size.known_bytes for size in sizes) / GB
        names = ", ".join(offer.id for offer in left_out)
        notes.append(f"--no-weights leaves out {names} ({more}{total:.1f} GB); they are fetched at start.")
    return notes
