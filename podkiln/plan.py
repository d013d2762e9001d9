"""What a build will hold and move, decided before anything is touched; every refusal happens here.

Pure: facts in, a plan out. Sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from podkiln import bundle, limits
from podkiln.errors import PlanRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podkiln.bundle import Bundle
    from podkiln.catalogue import Offered
    from podkiln.inputs import Input
    from podkiln.lock import Lock
    from podkiln.oci import Digest
    from podkiln.variant import Described

# What the runtime takes on a pod's disk once it is unpacked, measured on the full image, and room to work in.
RUNTIME_BYTES = 8_000_000_000
WORKING_GB = 10
GB = 10**9
MOST_LAYERS = 120

Nearby: TypeAlias = Literal["existing", "mounted", "copied"]
"""How a layer that was made before comes to the registry without its sources (podkiln.places)."""


@dataclass(frozen=True)
class Layer:
    """One layer as far as it is known beforehand: a runtime layer's digest and size come with the build."""

    what: str
    size: int | None = None
    digest: Digest | None = None

    @property
    def is_weight(self) -> bool:
        """Whether it holds weights: only their sizes are known before the build."""
        return self.size is not None


@dataclass(frozen=True)
class Options:
    """What the command line asked for. `host`: the registry that a push goes to, if it is known."""

    push: bool = False
    no_weights: bool = False
    allow_substituted: bool = False
    host: str | None = None
    accepted: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Plan:
    """A variant with everything decided: the only thing that rendering and building look at."""

    described: Described
    lock: Lock
    offered: tuple[Offered, ...]
    inputs: tuple[Input, ...]
    options: Options
    bundles: tuple[Bundle, ...]
    layers: tuple[Layer, ...]
    refusals: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())
    there: Mapping[Digest, Nearby] | None = None  # None: no registry was asked

    @property
    def name(self) -> str:
        """The variant's name."""
        return self.described.name

    @property
    def baked(self) -> tuple[Offered, ...]:
        """The models whose weights go into the image."""
        return () if self.options.no_weights else tuple(offer for offer in self.offered if offer.baked)

    @property
    def substituted(self) -> tuple[Input, ...]:
        """The inputs that are something else than what is locked."""
        return tuple(each for each in self.inputs if each.substituted)

    @property
    def above(self) -> tuple[Bundle, ...]:
        """The weight layers that lie above the runtime; all others lie below it."""
        models = {offer.id for offer in self.offered if offer.above}
        return tuple(each for each in self.bundles if each.model in models)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weight layers."""
        return sum(each.size for each in self.bundles)

    @property
    def fetch_bytes(self) -> int:
        """Bytes that come from the weights' sources: of each layer that is not found where it is to be."""
        return sum(each.content_bytes for each in self.lacking)

    @property
    def lacking(self) -> tuple[Bundle, ...]:
        """The weight layers that have to be made from their sources."""
        return tuple(each for each in self.bundles if self._found(each) is None)

    @property
    def upload_bytes(self) -> int:
        """Bytes of weight layers that are sent: of each that is neither there nor mounted."""
        sent = (None, "copied")
        return sum(each.size for each in self.bundles if self._found(each) in sent)

    def _found(self, made: Bundle) -> Nearby | None:
        """Tell how a layer is had; where no registry was asked, what was made once counts as there."""
        digest = next((layer.digest for layer in self.layers if layer.what == _title(made)), None)
        if digest is None:
            return None
        return "existing" if self.there is None else self.there.get(digest)

    @property
    def fetched_at_start(self) -> int:
        """Bytes that a pod fetches at its first start when nobody changes the defaults."""
        baked = {offer.id for offer in self.baked}
        return sum(
            o.model.size_bytes for o in self.offered if o.default and o.id not in baked and not o.unmet
        )

    @property
    def container_disk_gb(self) -> int:
        """GB of container disk that a pod needs, without a volume for its models."""
        need = RUNTIME_BYTES + self.weight_bytes + self.fetched_at_start
        return -(-need // GB) + WORKING_GB

    def require(self) -> None:
        """Raise PlanRefusedError when there is a refusal."""
        if self.refusals:
            raise PlanRefusedError(f"{self.name}: {self.refusals[0]}")

    def as_json(self) -> dict[str, Any]:
        """Return the plan for scripts."""
        return {
            "schema": 1,
            "variant": self.name,
            "layers": [
                {"what": layer.what, "size": layer.size, "digest": layer.digest} for layer in self.layers
            ],
            "total_bytes": sum(layer.size or 0 for layer in self.layers),
            "fetch_bytes": self.fetch_bytes,
            "upload_bytes": self.upload_bytes,
            "fetched_at_start_bytes": self.fetched_at_start,
            "container_disk_gb": self.container_disk_gb,
            "substituted": [
                {"name": each.name, "locked": each.locked, "actual": each.actual} for each in self.substituted
            ],
            "refusals": list(self.refusals),
            "notes": list(self.notes),
        }


def make(
    described: Described,
    lock: Lock,
    offered: Sequence[Offered],
    inputs: Sequence[Input] = (),
    options: Options | None = None,
    known: Mapping[Digest, Digest] | None = None,
    *,
    there: Mapping[Digest, Nearby] | None = None,
) -> Plan:
    """Decide everything that can be decided without moving a byte.

    `known` is what earlier bakes came to: recipe of a bundle -> digest of its layer. `there` is what a
    registry was asked about these digests: those that are not in it have to be made again.
    """
    options = options or Options()
    baked = [offer for offer in offered if offer.baked and not options.no_weights]
    unresolved = _unresolved(lock, baked)
    bundles = () if unresolved else bundle.bundles(bundle.weights_of(baked, lock.weights))
    high = {offer.id for offer in baked if offer.above}
    below = [each for each in bundles if each.model not in high]
    above = [each for each in bundles if each.model in high]
    known = known or {}
    layers = (
        *_weight_layers(below, known),
        *_runtime_layers(described),
        *_weight_layers(above, known),
    )
    refusals = [
        *unresolved,
        *_licence_refusals(baked, options),
        *_limit_refusals(bundles, options),
        *_substitute_refusals(inputs, options),
    ]
    if len(layers) > MOST_LAYERS:
        refusals.append(f"{len(layers)} layers; engines start images of at most about {MOST_LAYERS}.")
    return Plan(
        described=described,
        lock=lock,
        offered=tuple(offered),
        inputs=tuple(inputs),
        options=options,
        bundles=bundles,
        layers=layers,
        refusals=tuple(refusals),
        notes=tuple(_notes(offered, options)),
        there=there,
    )


def _title(made: Bundle) -> str:
    return f"{made.model}: {made.name}" if len(made.weights) == 1 else made.name


def _weight_layers(bundles: Sequence[Bundle], known: Mapping[Digest, Digest]) -> list[Layer]:
    return [Layer(what=_title(each), size=each.size, digest=known.get(each.recipe)) for each in bundles]


def _runtime_layers(described: Described) -> list[Layer]:
    runtime = described.spec.runtime
    python = [f"Python: {layer.name}" for layer in runtime.python.layers]
    nodes = [f"custom node {name}" for name in described.spec.nodes]
    names = [
        f"base: {runtime.base.image}",
        "system packages",
        "Python environment",
        *python,
        *(["JupyterLab"] if runtime.jupyter else []),
        f"ComfyUI {runtime.comfyui.version}",
        *nodes,
        "podkiln and start.sh",
    ]
    return [Layer(what=name) for name in names]


def _unresolved(lock: Lock, baked: Sequence[Offered]) -> list[str]:
    return [
        f"{offer.id}: {file.destination} has no trusted sha256 and exact size, so it cannot be baked; "
        "fetch it at start, or resolve it with `./build.py lock`."
        for offer in baked
        for file, locked in zip(offer.model.files, lock.weights[offer.id], strict=True)
        if not file.optional and not locked.resolved
    ]


def _licence_refusals(baked: Sequence[Offered], options: Options) -> list[str]:
    """A pushed image hands weights on to others, which not every licence lets one do."""
    return [
        f"{offer.id} is under {offer.model.licence.id}, which does not plainly allow handing it on in an "
        f"image; fetch it at start, or add --accept-licence {offer.id} if you may."
        for offer in baked
        if options.push and offer.model.licence.bake == "ask" and offer.id not in options.accepted
    ]


def _limit_refusals(bundles: Sequence[Bundle], options: Options) -> list[str]:
    if not options.host:
        return []
    found = [limits.refusal(options.host, _title(each), each.size) for each in bundles]
    return [
        f"{refusal}; fetch it at start instead, bake a smaller precision, or push to another registry."
        for refusal in found
        if refusal
    ]


def _substitute_refusals(inputs: Sequence[Input], options: Options) -> list[str]:
    strangers = [each.name for each in inputs if each.substituted]
    if not options.push or not strangers or options.allow_substituted:
        return []
    names = ", ".join(strangers)
    only = "an image with substitutes is pushed only with --allow-substituted"
    return [f"{names} is not what the lock names; {only}."]


def _notes(offered: Sequence[Offered], options: Options) -> list[str]:
    notes = [
        f"{offer.id} needs {', '.join(offer.unmet)}, which this image has not: it is fetched only when named."
        for offer in offered
        if offer.unmet
    ]
    left_out = [offer for offer in offered if offer.baked] if options.no_weights else []
    if left_out:
        size = sum(offer.model.size_bytes for offer in left_out)
        names = ", ".join(offer.id for offer in left_out)
        notes.append(f"--no-weights leaves out {names} ({size / GB:.1f} GB); they are fetched at start.")
    return notes
