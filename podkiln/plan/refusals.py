"""Why something must not be built or pushed, each with what to do instead. Pure; the plan asks."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from podkiln.oci import tar_layer
from podkiln.plan import alternatives, registry_limits
from podkiln.plan.alternatives import OversizedFile
from podkiln.plan.weight_layers import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from podkiln.config.catalog import Entry, VariantModel
    from podkiln.config.model import ModelFile
    from podkiln.config.variant import LoadedVariant
    from podkiln.lock.schema import LockedFile
    from podkiln.plan.licences import LicenceTerms
    from podkiln.plan.plan import Plan
    from podkiln.plan.substitutes import Substitute

MAX_LAYERS: Final = 120


@dataclass(frozen=True)
class Refusal:
    """One reason, in one sentence; `instead` are the ways out, a sentence each."""

    what: str
    instead: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((self.what, *self.instead))


def of_unresolved(
    baked: Sequence[VariantModel], locked: Mapping[str, tuple[LockedFile, ...]], described: LoadedVariant
) -> list[Refusal]:
    """Refuse files without a trusted hash: they could not be checked."""
    return [
        Refusal(
            f"{offer.id}: {file.destination} has no {' and no '.join(known.lacking)}, so it cannot be baked.",
            (
                f"Resolve it with `./build.py lock{described.option}`.",
                alternatives.at_start(offer, described),
            ),
        )
        for offer in baked
        for file, known in zip(offer.model.files, locked[offer.id], strict=True)
        if not file.optional and not known.resolved
    ]


def of_licences(terms: Sequence[LicenceTerms], described: LoadedVariant) -> list[Refusal]:
    """Refuse a push that hands on weights whose licence does not plainly let one do so."""
    return [
        Refusal(
            f"{each.offer.id} is under {each.offer.model.licence.id}, "
            "which does not clearly allow redistribution in an image.",
            (
                f"If you may redistribute it, add --accept-licence {each.offer.id}.",
                alternatives.at_start(each.offer, described),
            ),
        )
        for each in terms
        if each.refused
    ]


def of_sizes(
    host: str,
    rate: int,
    baked: Sequence[VariantModel],
    locked: Mapping[str, tuple[LockedFile, ...]],
    described: LoadedVariant,
    catalogue: Mapping[str, Entry],
) -> Iterator[Refusal]:
    """Refuse layers that the registry does not take, as far as their sizes are known, exactly or not."""
    registry = registry_limits.find_limits(host)
    for offer, file, size in _large(baked, locked) if registry else ():
        what = registry_limits.refusal(host, f"{offer.id}: {file.destination}", size, rate)
        if registry and what:
            found = OversizedFile(offer, file, size, registry, rate)
            yield Refusal(what, alternatives.of(found, described, catalogue))


def _large(
    baked: Sequence[VariantModel], locked: Mapping[str, tuple[LockedFile, ...]]
) -> Iterator[tuple[VariantModel, ModelFile, int]]:
    """Yield each file to bake once, with the bytes of its layer."""
    seen: set[str] = set()
    for offer in baked:
        for file, known in zip(offer.model.files, locked[offer.id], strict=True):
            size = known.size or file.known_bytes
            if size and not file.optional and file.destination not in seen:
                seen.add(file.destination)
                yield offer, file, _layer_bytes(file, size)


def _layer_bytes(file: ModelFile, size: int) -> int:
    return tar_layer.TarLayer((tar_layer.Entry(f"{ROOT}/{file.destination}", size),)).size


def of_substitutes(inputs: Sequence[Substitute]) -> list[Refusal]:
    """Refuse a push of what the lock does not name."""
    strangers = [each.name for each in inputs if each.substituted]
    if not strangers:
        return []
    what = f"{', '.join(strangers)} is not what the lock names."
    return [Refusal(what, ("An image with substitutes is pushed only with --allow-substituted.",))]


def of_additions(made: Plan) -> list[Refusal]:
    """Refuse Debian packages that are added and not locked, above others that are."""
    if made.apt is None or made.added_apt or not made.described.additions.packages:
        return []
    base = made.request.substitutes.base
    option = made.described.option + (f" --base {shlex.quote(base)}" if base else "")
    what = f"the Debian packages that are added ({made.described.additions.named()}) are not locked"
    return [
        Refusal(f"{what} for the base {made.base_digest}.", (f"Lock them with `./build.py lock{option}`.",))
    ]


def of_count(layers: int) -> list[Refusal]:
    """Refuse more layers than engines start an image with."""
    if layers <= MAX_LAYERS:
        return []
    what = f"{layers} layers; engines start images of at most about {MAX_LAYERS}."
    return [Refusal(what, ("Bake fewer models: each file of 64 MiB or more is a layer.",))]
