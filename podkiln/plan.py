"""What a build will hold and move, decided before anything is touched; every refusal happens here.

Pure: facts in, a plan out. Sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from podkiln.errors import PlanRefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podkiln.catalogue import Offered
    from podkiln.inputs import Input
    from podkiln.lock import Lock
    from podkiln.variant import Described

# What the runtime takes on a pod's disk once it is unpacked, measured on the full image, and room to work in.
RUNTIME_BYTES = 8_000_000_000
WORKING_GB = 10
GB = 10**9
MOST_LAYERS = 120


@dataclass(frozen=True)
class Layer:
    """One layer as far as it is known beforehand: a runtime layer's digest and size come with the build."""

    what: str
    size: int | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    push: bool = False
    no_weights: bool = False
    allow_substituted: bool = False


@dataclass(frozen=True)
class Plan:
    """A variant with everything decided: the only thing that rendering and building look at."""

    described: Described
    lock: Lock
    offered: tuple[Offered, ...]
    inputs: tuple[Input, ...]
    options: Options
    layers: tuple[Layer, ...]
    refusals: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())

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
    def weight_bytes(self) -> int:
        """Bytes of the weights that are baked, as far as they are known."""
        return sum(offer.model.size_bytes for offer in self.baked)

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
            "fetch_bytes": self.weight_bytes,
            "upload_bytes": self.weight_bytes,
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
) -> Plan:
    """Decide everything that can be decided without moving a byte."""
    options = options or Options()
    baked = [offer for offer in offered if offer.baked and not options.no_weights]
    layers = (*_weight_layers(baked), *_runtime_layers(described))
    return Plan(
        described=described,
        lock=lock,
        offered=tuple(offered),
        inputs=tuple(inputs),
        options=options,
        layers=layers,
        refusals=tuple(_refusals(lock, baked, inputs, options, layers)),
        notes=tuple(_notes(offered, options)),
    )


def _weight_layers(baked: Sequence[Offered]) -> list[Layer]:
    """Weights lie below the runtime, so that an update of the runtime leaves them where they are."""
    return [
        Layer(what=f"{offer.id}: {file.destination}", size=file.known_bytes)
        for offer in baked
        for file in offer.model.wanted
    ]


def _runtime_layers(described: Described) -> list[Layer]:
    runtime = described.spec.runtime
    python = [f"Python: {layer.name}" for layer in runtime.python.layers]
    nodes = [f"custom node {name}" for name in described.spec.nodes]
    names = [
        f"base: {runtime.base.image}",
        "system packages",
        "Python environment",
        *python,
        f"ComfyUI {runtime.comfyui.version}",
        *nodes,
        "podkiln and start.sh",
    ]
    return [Layer(what=name) for name in names]


def _refusals(
    lock: Lock,
    baked: Sequence[Offered],
    inputs: Sequence[Input],
    options: Options,
    layers: Sequence[Layer],
) -> list[str]:
    found = [
        f"{offer.id}: {file.destination} has no trusted sha256 and exact size, so it cannot be baked; "
        "fetch it at start, or resolve it with `./build.py lock`."
        for offer in baked
        for file, locked in zip(offer.model.files, lock.weights[offer.id], strict=True)
        if not file.optional and not locked.resolved
    ]
    if baked:
        names = ", ".join(offer.id for offer in baked)
        found.append(
            f"this version of podkiln does not bake weights yet ({names}); "
            "with --no-weights the image is built without them and fetches them at start."
        )
    strangers = [each.name for each in inputs if each.substituted]
    if options.push and strangers and not options.allow_substituted:
        found.append(
            f"{', '.join(strangers)} is not what the lock names; an image with substitutes is pushed "
            "only with --allow-substituted."
        )
    if len(layers) > MOST_LAYERS:
        found.append(f"{len(layers)} layers; engines start images of at most about {MOST_LAYERS}.")
    return found


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
