"""A push without a build of the runtime: its layers are in the registry, only those above them are made.

What is above is podkiln's own code and start.sh. They are built on the base and the system packages alone,
which are read from the registry once and stand in the place of a stage of the Dockerfile.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from podkiln.canonical_layers import image as canonical_image
from podkiln.canonical_layers.cache import LayerCache
from podkiln.canonical_layers.entries import FOLDER, Entry
from podkiln.canonical_layers.image import Below
from podkiln.canonical_layers.writer import WrittenLayer
from podkiln.errors import LockError, RegistryError
from podkiln.lock import runtimes
from podkiln.oci import layout, spec
from podkiln.oci.spec import Digest
from podkiln.pipeline import publish
from podkiln.pipeline.request import image_name
from podkiln.registry import Repository
from podkiln.render import runtime_recipe
from podkiln.render.image_config import (
    IMPORTED,
    STAGE_OF_IMPORTS,
    STAGE_OF_SYSTEM,
    RenderedConfig,
)
from podkiln.util import disk_space

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from podkiln.canonical_layers.exported import ExportedImage
    from podkiln.lock.runtimes import OwnLayers, RememberedRuntime, RuntimeLayer
    from podkiln.oci.layout import Layout
    from podkiln.plan.plan import Plan
    from podkiln.registry import RegistryOptions

log = logging.getLogger(__name__)
IMAGE = "uppermost"
"""The folder of a variant's output that holds what was made."""


@dataclass(frozen=True)
class ReusedRuntime:
    """A plan whose runtime's layers are in the registry."""

    plan: Plan
    runtime: RememberedRuntime

    @property
    def written(self) -> list[WrittenLayer]:
        """The layers of the runtime."""
        return [
            WrittenLayer(Digest(each.digest), each.size, Digest(each.diff_id)) for each in self.runtime.layers
        ]


def find(plan: Plan, settings: RegistryOptions) -> ReusedRuntime | None:
    """Look for a plan's runtime in the repository that it is pushed to; what neighbours have is mounted.

    None: the image is wanted on this disk, or the runtime was never pushed, or not all of it can be there.

    Raises:
        LockError: The memory is damaged.
        IntegrityError: The registry holds a layer with another size, so that no push would get through.
    """
    request = plan.request
    if not request.image.push or request.output.load or request.engine.no_cache:
        return None
    runtime = runtimes.read(publish.runtimes_of(plan)).get(runtime_recipe.of(plan))
    if runtime is None:
        return None
    target = image_name(plan)
    near = publish.sources_of(plan).neighbours(target)
    try:
        with Repository(target, settings, push=True, mount_from=near) as repository:
            if not all(_brought(repository, _blob(each), near) for each in runtime.layers):
                return None
    except RegistryError as refused:
        log.warning("%s What it has of the runtime is not known, so the runtime is built.", refused)
        return None
    log.info("%s: its runtime is in the registry already; what lies above it is built.", plan.name)
    return ReusedRuntime(plan, runtime)


def _brought(repository: Repository, blob: spec.Descriptor, near: Sequence[str]) -> bool:
    return repository.blob_exists(blob) or any(repository.mount(blob, name) for name in near)


def _blob(layer: RuntimeLayer) -> spec.Descriptor:
    return spec.Descriptor(spec.LAYER_ZSTD, Digest(layer.digest), layer.size)


@contextlib.contextmanager
def contexts(
    reused: Sequence[ReusedRuntime], settings: RegistryOptions, cache: Path, out: Path
) -> Iterator[list[str]]:
    """Give the options of `docker buildx bake` that put base and system packages in the place of a runtime.

    Raises RegistryError, IntegrityError, OSError.
    """
    known = LayerCache(cache)
    folders = [out / each.plan.name / "below" for each in reused]
    try:
        words: list[str] = []
        for each, folder in zip(reused, folders, strict=True):
            digest = _base_layout(each, folder, known, settings)
            context = f"oci-layout://{folder.absolute()}@{digest}"
            stage = RenderedConfig.of(each.plan).stage_below
            words += ["--set", f"{each.plan.name}.contexts.{stage}={context}"]
            words += _imported(each.plan, folder)
        known.keep_only({Digest(layer.digest) for each in reused for layer in _base(each)})
        yield words
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def _imported(plan: Plan, folder: Path) -> list[str]:
    """Put a file in the place of the test that imports the nodes: its runtime passed it when it was built."""
    if not any(each.included for each in plan.nodes):
        return []
    place = folder / STAGE_OF_IMPORTS
    place.mkdir()
    (place / IMPORTED).touch()
    return ["--set", f"{plan.name}.contexts.{STAGE_OF_IMPORTS}={place.absolute()}"]


def _base(reused: ReusedRuntime) -> Sequence[RuntimeLayer]:
    return reused.runtime.layers[: reused.runtime.base]


def _base_layout(reused: ReusedRuntime, folder: Path, known: LayerCache, settings: RegistryOptions) -> Digest:
    """Make an OCI layout of base and system packages; returns the digest of its manifest."""
    shutil.rmtree(folder, ignore_errors=True)
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    layers = [_blob(each) for each in _base(reused)]
    needed = sum(each.size for each in layers)
    with Repository(image_name(reused.plan), settings) as repository, disk_space.room(known.folder, needed):
        for each in layers:
            canonical_image.link(
                known.add(each, repository.read(each)), blobs / each.digest.partition(":")[2]
            )
    platform = spec.Platform.parse(reused.plan.described.platform)
    config = spec.canonical_json(
        {
            "architecture": platform.architecture,
            "os": platform.os,
            "config": reused.runtime.settings,
            "rootfs": {"type": "layers", "diff_ids": [each.diff_id for each in _base(reused)]},
            "history": [{"created_by": "podkiln"} for _ in layers],
        }
    )
    return canonical_image.write_documents(folder, config, layers, platform)


def take(reused: ReusedRuntime, exported: ExportedImage, known: LayerCache, out: Path) -> Layout:
    """Write the image: its documents and uppermost layers, in a folder without the layers below."""
    plan, runtime = reused.plan, reused.runtime
    rendered = RenderedConfig.of(plan)
    epoch = plan.described.spec.runtime.epoch
    rows = [{"created_by": step.text, "empty_layer": step.empty_layer} for step in rendered.steps]
    below = rendered.steps_below
    above = exported.config.history[below - len(rows) :]
    history = (*runtime.history, *rows[:below], *above)
    document = rendered.document(replace(exported.config, history=history))
    workdir = rendered.config["WorkingDir"].strip("/")
    folders = [Entry(workdir.encode(), FOLDER, 0o755, 0, 0, epoch)]
    written = Below(reused.written, runtime.base, folders)
    place = out / plan.name / IMAGE
    for earlier in (place, out / plan.name / "image"):  # which would be taken for this one
        shutil.rmtree(earlier, ignore_errors=True)
    try:
        canonical_image.write(exported, document, place, epoch, known, below=written)
    except BaseException:
        clear(plan, out)
        raise
    return layout.read_documents(place)


def clear(plan: Plan, out: Path) -> None:
    """Remove what was made of an image whose runtime lies in a registry alone: by itself it is none."""
    shutil.rmtree(out / plan.name / IMAGE, ignore_errors=True)


def forget(plan: Plan) -> None:
    """Forget a runtime that its registry no longer has, so that the next push builds it."""
    with contextlib.suppress(OSError, LockError):
        runtimes.forget(publish.runtimes_of(plan), runtime_recipe.of(plan))


def remember(plan: Plan, image: Layout) -> RememberedRuntime:
    """Return what is to be remembered of a runtime that was built as a whole."""
    rendered = RenderedConfig.of(plan)
    own = image.config.history[len(image.config.history) - len(rendered.steps) :]
    base = image.config.history[: -len(own)]
    return runtimes.RememberedRuntime(
        name=plan.name,
        layers=_split(rendered, image)[0],
        base=_layers(base) + _layers(own[: rendered.stages[STAGE_OF_SYSTEM]]),
        settings=_settings_of_base(rendered, image.config.document["config"]),
        history=tuple(dict(row) for row in base),
    )


def remember_own(plan: Plan, image: Layout) -> OwnLayers:
    """Return what is to be remembered of the layers of podkiln's own code."""
    return runtimes.OwnLayers(name=plan.name, layers=_split(RenderedConfig.of(plan), image)[1])


def _split(
    rendered: RenderedConfig, image: Layout
) -> tuple[tuple[RuntimeLayer, ...], tuple[RuntimeLayer, ...]]:
    """Return the layers of an image without weights: those of the runtime, and podkiln's own above them."""
    layers = tuple(
        runtimes.RuntimeLayer(digest=blob.digest, size=blob.size, diff_id=diff_id)
        for blob, diff_id in zip(image.manifest.layers, image.config.diff_ids, strict=True)
    )
    below = len(layers) - rendered.layers_above
    return layers[:below], layers[below:]


def _layers(history: Sequence[Mapping[str, Any]]) -> int:
    return sum(not row.get("empty_layer") for row in history)


def _settings_of_base(rendered: RenderedConfig, config: dict[str, Any]) -> dict[str, Any]:
    """Return what an image sets beyond its Dockerfile: what its base does."""
    made = {key: value for key, value in config.items() if key not in rendered.config}
    labels = {key: text for key, text in config["Labels"].items() if key not in rendered.config["Labels"]}
    variables = [each for each in config["Env"] if each.partition("=")[0] not in rendered.environment]
    return {**made, **({"Labels": labels} if labels else {}), **({"Env": variables} if variables else {})}
