"""What a build will hold and move, decided before anything is touched; every refusal happens here.

Pure: facts in, a plan out. Sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from podkiln.config import catalog
from podkiln.errors import PlanRefusedError
from podkiln.lock.apt import NOT_LOCKED
from podkiln.lock.schema import ModelSize
from podkiln.options import BuildRequest
from podkiln.plan import (
    cuda,
    destination,
    image_layers,
    node_layers,
    notes,
    refusals,
    registry_limits,
    weight_layers,
)
from podkiln.plan.licences import LicenceTerms
from podkiln.util.console import GB

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podkiln.config.catalog import Entry, VariantModel
    from podkiln.config.variant import LoadedVariant
    from podkiln.lock.apt import AptLock
    from podkiln.lock.kept_image import KeptImage
    from podkiln.lock.schema import Lock
    from podkiln.oci.spec import Digest
    from podkiln.plan.destination import Destination
    from podkiln.plan.image_layers import Layer
    from podkiln.plan.node_layers import PlannedNode
    from podkiln.plan.refusals import Refusal
    from podkiln.plan.registry_limits import LimitCheck
    from podkiln.plan.substitutes import Substitute
    from podkiln.plan.weight_layers import WeightFile, WeightLayerSpec

WORKING_GB = 10  # room on a pod's disk, beside what is known
MAX_LAYERS: Final = refusals.MAX_LAYERS

ReuseKind: TypeAlias = Literal["existing", "mounted", "copied"]
"""How a layer made before comes to the registry without its sources (podkiln.weights.layer_lookup)."""


@dataclass(frozen=True)
class Plan:
    """A variant with everything decided: the only thing that rendering and building look at.

    Attributes:
        request: What the command line asked for, of which the image's own part is `push`, `destination`.
        bundles: The weight layers, in declared order.
        known: What earlier bakes came to: recipe of a bundle -> digest of its layer.
        there: How layers come that need not be made, by what a registry was asked; None: none was.
        kept: The image that packages are taken from first; None: there is none.
        fresh: Whether no wheel is taken from what BuildKit keeps of earlier builds.
    """

    described: LoadedVariant
    lock: Lock
    offered: tuple[VariantModel, ...]
    inputs: tuple[Substitute, ...]
    request: BuildRequest
    bundles: tuple[WeightLayerSpec, ...] = ()
    known: Mapping[Digest, Digest] = field(default_factory=dict)
    refusals: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()
    there: Mapping[Digest, ReuseKind] | None = None
    kept: KeptImage | None = None
    fresh: bool = False

    @property
    def name(self) -> str:
        """The variant's name."""
        return self.described.name

    @cached_property
    def destination(self) -> Destination | None:
        """The registry that the image goes to; None where it goes to none. Raises UsageError."""
        return destination.find(self.described, self.request)

    @property
    def version(self) -> str:
        """The release of what its image is for: of ComfyUI, or of diffusers where there is none."""
        if self.described.spec.has_comfyui or self.lock.serving is None:
            return self.described.spec.runtime.comfyui.version
        return self.lock.serving.pins()["diffusers"]

    @property
    def push(self) -> bool:
        """Whether the image is pushed, or planned to be."""
        return destination.is_pushed(self.described, self.request)

    @property
    def host(self) -> str | None:
        """The host of that registry."""
        return self.destination.host if self.destination else None

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """All layers, from the bottom up."""
        high = self.above
        below = [each for each in self.bundles if each not in high]
        return (
            *image_layers.of_weights(below, self.known),
            *image_layers.of_runtime(self.described, [*node_layers.layers(self.nodes), *self._added]),
            *image_layers.of_weights(high, self.known),
        )

    @cached_property
    def nodes(self) -> tuple[PlannedNode, ...]:
        """The custom nodes, in the order of their layers; some of them without their code."""
        accepted = self.request.weights.accept_licence
        return node_layers.of(self.described, self.lock.nodes, accepted)

    @property
    def _added(self) -> list[Layer]:
        locked = self.lock.additions
        # On another base they are about as large.
        apt = self.added_apt or (next(iter(locked.apt.values()), None) if locked else None)
        added = image_layers.of_additions(self.described, apt, locked.python if locked else None)
        served = image_layers.of_serving(self.lock.serving)
        return [*added, *served] if self.described.spec.has_comfyui else [*served, *added]

    @property
    def baked(self) -> tuple[VariantModel, ...]:
        """The models whose weights go into the image, in the order of their layers."""
        return () if self.request.weights.no_weights else catalog.baked(self.described, self.offered)

    @property
    def terms(self) -> tuple[LicenceTerms, ...]:
        """The terms that the baked models come under."""
        accepted = self.request.weights.accept_licence
        return tuple(LicenceTerms(offer, offer.id in accepted) for offer in self.baked)

    @property
    def substituted(self) -> tuple[Substitute, ...]:
        """The inputs that are something else than what is locked."""
        return tuple(each for each in self.inputs if each.substituted)

    @property
    def base_digest(self) -> str:
        """What names the base that is built on: a digest, or where none is known a reference or words."""
        return next(
            (each.actual for each in self.inputs if each.name == "base"), self.lock.runtime.base_digest
        )

    @property
    def apt(self) -> AptLock | None:
        """The apt lock of that base; None: Debian's packages are taken as its archive has them that day."""
        return self.lock.apt.get(self.base_digest)

    @property
    def added_apt(self) -> AptLock | None:
        """The apt lock of what the variant adds above that; None: it adds nothing, or that is not locked."""
        return self.lock.additions.apt.get(self.base_digest) if self.lock.additions else None

    @property
    def above(self) -> tuple[WeightLayerSpec, ...]:
        """The weight layers that lie above the runtime; all others lie below it."""
        models = {offer.id for offer in self.offered if offer.above}
        return tuple(each for each in self.bundles if each.model in models)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weight layers."""
        return sum(each.size for each in self.bundles)

    @property
    def largest_file(self) -> WeightFile | None:
        """The biggest of the baked files."""
        files = [weight for each in self.bundles for weight in each.weights]
        return max(files, key=lambda weight: weight.size, default=None)

    @property
    def fit(self) -> LimitCheck | None:
        """The largest layer beside the limits of the registry; None where no registry is named."""
        largest = max([self.described.release.measured.largest_layer, *(each.size for each in self.bundles)])
        return registry_limits.fit(self.host, largest, self.request.transfer.rate) if self.host else None

    @property
    def fetch_bytes(self) -> int:
        """Bytes that come from the weights' sources: of each layer that is not found where it is to be."""
        return sum(each.content_bytes for each in self.lacking)

    @property
    def lacking(self) -> tuple[WeightLayerSpec, ...]:
        """The weight layers that have to be made from their sources."""
        return tuple(each for each in self.bundles if self._found(each) is None)

    @property
    def upload_bytes(self) -> int:
        """Bytes of weight layers that are sent: of each that is neither there nor mounted."""
        sent = (None, "copied")
        return sum(each.size for each in self.bundles if self._found(each) in sent)

    def _found(self, made: WeightLayerSpec) -> ReuseKind | None:
        """Tell how a layer gets to the registry; if none was asked, a layer made before counts as there."""
        digest = self.known.get(made.recipe)
        return "existing" if self.there is None and digest else self.nearby(digest)

    def nearby(self, digest: Digest | None) -> ReuseKind | None:
        """Tell how a layer gets to the registry without its sources; None: it does not, or none was asked."""
        return self.there.get(digest) if self.there and digest else None

    @property
    def fetched_at_start(self) -> int:
        """Bytes that a pod fetches at its first start with the default settings, as far as they are known."""
        return self._served_bytes + sum(self._size(offer).known_bytes for offer in self._fetched)

    @property
    def _served_bytes(self) -> int:
        """Bytes of the model that is served, as far as they are locked, without what lies in the image."""
        files = self.lock.model.document.files if self.lock.model else ()
        baked = {weight.sha256 for each in self.bundles for weight in each.weights}
        return sum(file.size or 0 for file in files if file.sha256 not in baked)

    @property
    def unknown_sizes(self) -> tuple[str, ...]:
        """The files among these whose size is not known: MODEL: FILE."""
        open_words = self.lock.model.document.unresolved if self.lock.model else ()
        return (
            *(f"{each.id}: {file}" for each in self._fetched for file in self._size(each).unknown),
            *(f"{word.role}: {word.word}" for word in open_words),
        )

    @property
    def _fetched(self) -> list[VariantModel]:
        baked = {offer.id for offer in self.baked}
        return [each for each in self.offered if each.default and each.id not in baked and not each.unmet]

    def _size(self, offer: VariantModel) -> ModelSize:
        return ModelSize.of(offer.model, self.lock.weights[offer.id])

    @property
    def container_disk_gb(self) -> int:
        """GB of container disk that a pod needs, without a volume for its models."""
        added = sum(image_layers.UNPACKING * (layer.about or 0) for layer in self.layers)
        measured = self.described.release.measured
        need = measured.unpacked + added + self.weight_bytes + self.fetched_at_start
        return -(-need // GB) + WORKING_GB

    def require(self) -> None:
        """Raise PlanRefusedError when there is a refusal."""
        if self.refusals:
            first = self.refusals[0]
            raise PlanRefusedError(f"{self.name}: {first.what}", hint=" ".join(first.instead) or None)

    def as_json(self) -> dict[str, Any]:
        """Return the plan for scripts."""
        return {
            "schema": 2,
            "variant": self.name,
            "layers": [
                {
                    "what": layer.what,
                    "size": layer.size,
                    "about_bytes": layer.about,
                    "digest": layer.digest,
                    "reuse": self.nearby(layer.digest),
                }
                for layer in self.layers
            ],
            "total_bytes": sum(layer.size or 0 for layer in self.layers),
            "fetch_bytes": self.fetch_bytes,
            "upload_bytes": self.upload_bytes,
            "layer_count": len(self.layers),
            "most_layers": MAX_LAYERS,
            "largest_file": _file_json(self.largest_file),
            "registry": self.fit and self.fit.as_json(),
            "destination": _destination_json(self.destination),
            "licences": [each.as_json() for each in self.terms],
            "nodes": [each.as_json() for each in self.nodes],
            "fetched_at_start_bytes": self.fetched_at_start,
            "unknown_sizes": list(self.unknown_sizes),
            "container_disk_gb": self.container_disk_gb,
            "substituted": [
                {"name": each.name, "locked": each.locked, "actual": each.actual} for each in self.substituted
            ],
            "cuda": cuda.as_json(self.described, self.lock),
            "platform": self.described.platform,
            "apt": self.apt.digest if self.apt else NOT_LOCKED,
            "refusals": [each.what for each in self.refusals],
            "alternatives": [{"refusal": each.what, "instead": list(each.instead)} for each in self.refusals],
            "notes": list(self.notes),
        }


def make(
    described: LoadedVariant,
    lock: Lock,
    offered: Sequence[VariantModel],
    inputs: Sequence[Substitute] = (),
    request: BuildRequest | None = None,
    known: Mapping[Digest, Digest] | None = None,
    shipped: Mapping[str, Entry] | None = None,
) -> Plan:
    """Decide everything that can be decided without moving a byte.

    `known` is what earlier bakes came to: recipe of a bundle -> digest of its layer. `shipped` are the models
    that refusals may name as alternatives, besides those that are offered, and that the variant may describe
    again.
    """
    facts = Plan(described, lock, tuple(offered), tuple(inputs), request or BuildRequest((described.name,)))
    unresolved = refusals.of_unresolved(facts.baked, lock.weights, described)
    dealt = () if unresolved else weight_layers.bundles(weight_layers.weights_of(facts.baked, lock.weights))
    made = replace(facts, bundles=dealt, known=known or {})
    models = {**(shipped or {}), **{offer.id: offer.entry for offer in offered}}
    return replace(
        made,
        refusals=(
            *unresolved,
            *refusals.of_additions(made),
            *_refused_push(made, models),
            *refusals.of_count(len(made.layers)),
        ),
        notes=tuple(notes.of(made, shipped or {})),
    )


def _refused_push(made: Plan, models: Mapping[str, Entry]) -> list[Refusal]:
    """Return what speaks against sending the image to a registry."""
    found: list[Refusal] = []
    if made.push:
        found += refusals.of_licences(made.terms, made.described)
    if made.host:
        rate, locked = made.request.transfer.rate, made.lock.weights
        found += refusals.of_sizes(made.host, rate, made.baked, locked, made.described, models)
    if made.push and not made.request.substitutes.allow_substituted:
        found += refusals.of_substitutes(made.inputs)
    return found


def _destination_json(found: Destination | None) -> dict[str, str] | None:
    return {"registry": found.registry, "source": found.source} if found else None


def _file_json(weight: WeightFile | None) -> dict[str, Any] | None:
    if weight is None:
        return None
    return {"model": weight.model, "path": weight.destination, "bytes": weight.size}
