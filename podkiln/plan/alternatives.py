"""What to do instead of baking a file whose layer a registry does not take: one sentence each. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from podkiln.plan import registry_limits
from podkiln.util.console import GB

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from podkiln.config.catalog import Entry, VariantModel
    from podkiln.config.model import ModelFile
    from podkiln.config.variant import LoadedVariant
    from podkiln.plan.registry_limits import Registry

_WHOLE = 0.99  # of a limit: an approximate size near it is no promise


@dataclass(frozen=True)
class OversizedFile:
    """A file of a baked model that does not fit, and what is known of the registry that it goes to."""

    offer: VariantModel
    file: ModelFile
    size: int
    registry: Registry
    rate: int


def of(found: OversizedFile, described: LoadedVariant, catalogue: Mapping[str, Entry]) -> tuple[str, ...]:
    """Return the alternatives: a smaller file, a smaller model, another registry, fetching at start."""
    return (
        *_smaller_files(found, described.option),
        *_smaller_models(found, catalogue, described.option),
        *_other_registries(found),
        at_start(found.offer, described),
    )


def _smaller_files(found: OversizedFile, option: str) -> Iterator[str]:
    """Another precision or resolution of the same model: its description has it as an optional file."""
    for file in found.offer.model.files:
        alike = file.folder == found.file.folder and bool(file.precision)
        if file.optional and alike and (size := _fitting(file, found)):
            what = f"Bake its {file.precision} file {file.destination} ({size / GB:.1f} GB)"
            how = f"describe {found.offer.id} again under `define:`, with the large file optional"
            yield f"{what}: {how}{_once(option, file)}."


def _smaller_models(found: OversizedFile, catalogue: Mapping[str, Entry], option: str) -> Iterator[str]:
    """Another model of the family, of which each file fits."""
    family = found.offer.model.family
    for name, entry in catalogue.items():
        if not family or entry.model.family != family:
            continue
        sizes = [_fitting(file, found) for file in entry.model.wanted]
        if all(sizes):
            size, once = sum(size or 0 for size in sizes), _once(option, *entry.model.wanted)
            yield f"Bake {name} in its place ({size / GB:.1f} GB, of the same family){once}."


def _other_registries(found: OversizedFile) -> Iterator[str]:
    others = [_described(each) for each in registry_limits.taking(found.size, found.rate)]
    if others:
        yield f"Push to {_listed(others)}."


def at_start(offer: VariantModel, described: LoadedVariant) -> str:
    """Return how to have a model fetched by the pods instead: the line to change, or the option."""
    listed = described.spec.models.bake
    at = [listed.index(offer.id)] if offer.id in listed else []
    file, place = described.find(("models", "bake", *at))
    where = f"{file.path.name}:{file.line(place)}"
    return f"Fetch it at start: take {offer.id} out of `bake:` ({where}), or build with --no-weights."


def _fitting(file: ModelFile, found: OversizedFile) -> int | None:
    """Return a file's size (bytes) if the registry would take it; None if it would not or that is unknown."""
    size = file.known_bytes
    return size if size and found.registry.takes(int(size / _WHOLE), found.rate) else None


def _once(option: str, *files: ModelFile) -> str:
    """Say that a hash is still to be found; `option` names the variant behind the command."""
    resolved = all(file.locked for file in files)
    return "" if resolved else f"; `./build.py lock{option}` has to find its sha256 first"


def _described(registry: Registry) -> str:
    if registry.layer_bytes is None:
        return registry.name
    return f"{registry.name} (layers up to {registry.layer_bytes / GB:.1f} GB)"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
