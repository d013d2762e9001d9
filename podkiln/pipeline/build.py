"""The main job: from the names of variants to images, built, loaded and pushed."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from podkiln.build import base_image, buildkit, engine, output_dir, source_image
from podkiln.build.kept_export import KeptExport
from podkiln.build.streamed_export import StreamedExport
from podkiln.canonical_layers import image as canonical_image
from podkiln.canonical_layers.cache import LayerCache
from podkiln.canonical_layers.exported import DamagedExportError
from podkiln.errors import IntegrityError, RegistryError
from podkiln.oci import layout, spec
from podkiln.oci.layout import DamagedBlobError
from podkiln.pipeline import planning, preflight, publish, report, reuse
from podkiln.pipeline.publish import Published, Publisher
from podkiln.pipeline.report import Report
from podkiln.render import bake_file, build_context, image_config, lint
from podkiln.render.bake_file import BuildSecrets
from podkiln.render.image_config import RenderedConfig
from podkiln.util import atomic, cache_folder, console, disk_space
from podkiln.weights import local_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from podkiln.canonical_layers.exported import ExportedImage
    from podkiln.oci.layout import Layout
    from podkiln.oci.spec import Digest
    from podkiln.options import BuildRequest
    from podkiln.pipeline.reuse import ReusedRuntime
    from podkiln.plan.plan import Plan
    from podkiln.registry import RegistryOptions

log = logging.getLogger(__name__)
Built: TypeAlias = "tuple[str, dict[str, float], list[Layout]]"
"""The command to build by hand, the seconds of each step, and a layout for each plan."""


@dataclass(frozen=True)
class _Run:
    """BuildKit, about to be run.

    `options`: those that a person who builds by hand does without. `needed`: about the bytes of its export;
    `takes`: those of a first build.
    """

    argv: Sequence[str]
    out: Path
    environment: BuildSecrets
    names: Sequence[str]
    options: Sequence[str]
    needed: int | None
    takes: int
    quiet: bool

    def taken(
        self, export: KeptExport | StreamedExport, take: Callable[[], list[Layout]]
    ) -> tuple[float, list[Layout]]:
        """Run it, and take what it has exported; return when that began, and what came out.

        What was damaged in an export that is kept was removed, so that BuildKit writes it once more.
        """
        self._run(self.argv, export)
        try:
            return time.monotonic(), take()
        except DamagedExportError as damaged:
            if export.consumed:
                raise
            log.warning("%s It is exported once more.", damaged)
        # What was built anew just now is in BuildKit's cache.
        self._run([word for word in self.argv if word != "--no-cache"], export)
        return time.monotonic(), take()

    def _run(self, argv: Sequence[str], export: KeptExport | StreamedExport) -> None:
        export.prepare(self.names)
        options = [*self.options, *export.options(self.names)]
        before = disk_space.free(export.folder)
        try:
            buildkit.run(argv, self.out, self.environment, options, quiet=self.quiet)
        except buildkit.BuildDiskFullError as full:
            # BuildKit's client writes what is exported: that disk is podkiln's, and not BuildKit's.
            if full.path and Path(full.path).is_relative_to(export.folder):
                raise disk_space.error(export.folder, self.needed, before) from None
            full.hint = f"A first build takes about {console.size(self.takes)} there. {full.hint}"
            raise


def build(request: BuildRequest) -> list[Report]:
    """Do the main job. Everything that can be refused is refused before the first byte moves."""
    with cache_folder.in_use():
        return _build(request)


def _build(request: BuildRequest) -> list[Report]:
    plans = planning.decide(request)
    for each in plans:
        each.require()
    settings = publish.registry_options(request)
    preflight.check(plans, request, lambda made: planning.with_registry_state(made, settings))
    plans = [planning.with_kept_packages(each, settings) for each in plans]
    builder = prepare_engine(request)
    _require_platforms(plans, builder)
    with output_dir.exclusive_lock(request.output.out):
        made = _reused(plans, request, builder, settings)
        whole = made is None
        command, seconds, runtimes = made or build_all(plans, request, builder, cache_folder.path())
        reports = []
        for plan, runtime in zip(plans, runtimes, strict=True):
            publisher = Publisher.of(plan, settings)
            done = _published(publisher, runtime, whole=whole)
            if done.pushed:
                own = reuse.remember_own(plan, runtime)
                publisher.remember_runtime(reuse.remember(plan, runtime) if whole else None, own)
            place = request.output.out / plan.name / "report.json"
            told = Report(
                plan,
                str(publisher.name),
                command,
                done.layout,
                {**seconds, **done.seconds},
                done.baked,
                done.pushed,
                report.last_digest(place),
            )
            report.write([told], place)
            reports.append(told)
    if request.output.report:
        report.write(reports, request.output.report)
    return reports


def _published(publisher: Publisher, runtime: Layout, *, whole: bool) -> Published:
    """Publish an image; `whole`: its runtime was built, and not taken for one that is in the registry."""
    try:
        return publisher.publish(runtime)
    except DamagedBlobError as damaged:
        # It may be a kept layer under another name: these are read before they are used again.
        damaged.file.unlink(missing_ok=True)
        LayerCache(cache_folder.path() / cache_folder.LAYERS).doubt()
        hint = "It was removed. Build again: it is made anew, and kept layers are read before they are used."
        raise IntegrityError(str(damaged), hint=hint) from None
    except (RegistryError, IntegrityError) as failed:
        if not whole:  # it had what it does not know now, or has it no more
            reuse.forget(publisher.plan)
            reuse.clear(publisher.plan, publisher.plan.request.output.out)
            failed.hint = failed.hint or "Push again: the runtime is built then, and what is missing is sent."
        raise


def _reused(
    plans: Sequence[Plan], request: BuildRequest, builder: str | None, settings: RegistryOptions
) -> Built | None:
    """Build only what lies above the runtimes, where the registry has those of all plans."""
    reused = [found for plan in plans if (found := reuse.find(plan, settings))]
    if len(reused) < len(plans):
        return None
    try:
        return _build_uppermost(reused, request, builder, settings)
    except (RegistryError, IntegrityError) as lost:
        log.warning("%s So the runtime is built.", lost)
        for each in plans:
            reuse.clear(each, request.output.out)
        return None


def prepare_engine(request: BuildRequest) -> str | None:
    """Make sure that an engine answers which can build; return the builder to use."""
    if request.engine.builder is None:
        engine.ensure()
    return engine.require(request.engine.builder).builder


def _require_platforms(plans: Sequence[Plan], builder: str | None) -> None:
    """See that the builder builds for platforms that are not this machine's own. Raises EngineError."""
    for platform in {each.described.platform for each in plans} - {base_image.platform_here()}:
        engine.require_platform(builder, platform)


def build_all(plans: Sequence[Plan], request: BuildRequest, builder: str | None, cache: Path) -> Built:
    """Render, lint and build all variants in one run of BuildKit, so that they share what they can.

    `cache`: the folder with the kept export, and the layers that were written before. Returns the command to
    repeat it by, the seconds of each step, and what came out.
    """
    begun = time.monotonic()
    out = request.output.out
    argv, environment = _render(plans, request, builder)
    names = [each.name for each in plans]
    rendered = time.monotonic()
    known = LayerCache(cache / cache_folder.LAYERS)
    here = request.output.load or not request.image.push
    with _export(request, names, builder, cache / cache_folder.EXPORTS) as export, _partials(plans, out):

        def take() -> list[Layout]:
            images = [export.exported(each.name) for each in plans]
            return [
                _take(each, image, known, out, here=here, later=images[at:] if export.consumed else None)
                for at, (each, image) in enumerate(zip(plans, images, strict=True), start=1)
            ]

        measured = max((each.described.release.measured for each in plans), key=lambda each: each.compressed)
        needed, takes = measured.compressed, measured.build_disk
        run = _Run(argv, out, environment, names, (), needed, takes, quiet=request.console.quiet)
        with disk_space.room(cache / cache_folder.EXPORTS, needed):
            built, runtimes = run.taken(export, take)
        export.prune()
        known.prune()
    took = {"render": rendered - begun, "build": built - rendered, "layers": time.monotonic() - built}
    return buildkit.by_hand(argv, out, environment), took, runtimes


def _render(
    plans: Sequence[Plan], request: BuildRequest, builder: str | None
) -> tuple[list[str], BuildSecrets]:
    """Render and lint all variants; return the command that builds them, and what their builds may know."""
    out = request.output.out
    for each in plans:
        files = build_context.render(each)
        lint.require(each.name, files, each.described.option)
        output_dir.write(files, out / each.name)
    platform = plans[0].described.platform
    inputs = {each for plan in plans for each in plan.inputs if each.context}
    packed = {each: source_image.context(each, platform) for each in inputs}
    contexts = _authorities(request)
    environment = BuildSecrets(request.network, plans[0].described.spec.runtime.base.suite)
    text = bake_file.as_text(bake_file.bake_file(plans, environment, contexts, packed))
    atomic.write(out / bake_file.BAKE_FILE, text)
    names = [each.name for each in plans]
    return buildkit.command_line(names, builder=builder, no_cache=request.engine.no_cache), environment


def _authorities(request: BuildRequest) -> dict[str, str]:
    """Put the bundle of --ca-bundle alone into a folder, and return that as a context. Raises OSError.

    BuildKit takes folders; the command that is told to repeat the build names it too, so it stays.
    """
    if request.network.ca_bundle is None:
        return {}
    content = request.network.ca_bundle.read_bytes()
    place = cache_folder.path() / cache_folder.AUTHORITIES / hashlib.sha256(content).hexdigest()[:16]
    place.mkdir(parents=True, exist_ok=True)
    atomic.write(place / "ca.pem", content)
    return {"ca": str(place)}


def _build_uppermost(
    reused: Sequence[ReusedRuntime], request: BuildRequest, builder: str | None, settings: RegistryOptions
) -> Built:
    """Build what lies above runtimes that are in the registry; returns what `build_all` does."""
    begun = time.monotonic()
    out, names = request.output.out, [each.plan.name for each in reused]
    argv, environment = _render([each.plan for each in reused], request, builder)
    rendered = time.monotonic()
    known = LayerCache(cache_folder.path() / cache_folder.LAYERS)
    with (
        reuse.contexts(reused, settings, cache_folder.path() / cache_folder.PULLED, out) as contexts,
        KeptExport.hold(cache_folder.path() / cache_folder.UPPERMOST, builder) as export,
    ):
        fetched = time.monotonic()

        def take() -> list[Layout]:
            return [reuse.take(each, export.exported(each.plan.name), known, out) for each in reused]

        takes = sum(layer.size for each in reused for layer in each.runtime.layers[: each.runtime.base])
        run = _Run(argv, out, environment, names, contexts, None, takes, quiet=request.console.quiet)
        with disk_space.room(export.folder):
            built, made = run.taken(export, take)
        export.prune()
        known.prune()
    took = {
        "render": rendered - begun,
        "fetch": fetched - rendered,
        "build": built - fetched,
        "layers": time.monotonic() - built,
    }
    return buildkit.by_hand(argv, out, environment), took, made


def _export(
    request: BuildRequest, names: Sequence[str], builder: str | None, folder: Path
) -> AbstractContextManager[KeptExport | StreamedExport]:
    """Return where BuildKit exports to."""
    if request.engine.no_keep:
        return StreamedExport.begin(folder, names)
    return KeptExport.hold(folder, builder)


@contextlib.contextmanager
def _partials(plans: Sequence[Plan], out: Path) -> Iterator[None]:
    """Leave no half-made image behind, however the build ends."""
    folders = [out / each.name / bake_file.PARTIAL for each in plans]
    try:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        yield
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def _take(
    made: Plan,
    exported: ExportedImage,
    known: LayerCache,
    out: Path,
    *,
    here: bool,
    later: Sequence[ExportedImage] | None,
) -> Layout:
    """Write the image from what BuildKit exported, and put it in its place.

    Weights are to be baked `here`, into it, or not. Layers go as they are read, but for what images need that
    come `later`; None: all stay.
    """
    partial, place = out / made.name / bake_file.PARTIAL, out / made.name / "image"
    epoch = made.described.spec.runtime.epoch
    document = RenderedConfig.of(made).document(exported.config)
    consume = () if later is None else canonical_image.unneeded(exported, later, epoch)
    rows = [image_config.title(str(row.get("created_by", ""))) for row in exported.config.layer_history]
    titles = dict(zip(exported.config.diff_ids, rows, strict=False))
    with console.Bytes(f"writing {made.name}") as bar:

        def progress(diff_id: Digest, done: int, whole: int) -> None:
            bar(titles.get(diff_id) or spec.short(diff_id), done, whole)

        canonical_image.write(exported, document, partial, epoch, known, consume, on_progress=progress)
    if here:
        local_layers.keep(made.layers, place, partial)
    output_dir.replace_folder(partial, place)
    return layout.read(place)
