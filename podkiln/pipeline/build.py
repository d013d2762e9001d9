"""The main job: from the names of variants to images, built, loaded and pushed."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from podkiln.build import base_image, buildkit, engine, output_dir
from podkiln.build.kept_export import KeptExport
from podkiln.config import catalog, variant
from podkiln.errors import RegistryError, UsageError
from podkiln.layers import image as canonical_image
from podkiln.layers.cache import LayerCache
from podkiln.lock import layers, schema
from podkiln.oci import layout, spec
from podkiln.pipeline import preflight, publish, report
from podkiln.pipeline.report import Report
from podkiln.pipeline.request import check, image_name, route
from podkiln.plan import plan
from podkiln.plan import substitutes as inputs
from podkiln.render import bake_file, build_context, lint
from podkiln.util import atomic
from podkiln.weights import layer_lookup, local_layers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from podkiln.config.variant import LoadedVariant
    from podkiln.lock.schema import Lock
    from podkiln.oci.layout import Layout
    from podkiln.oci.reference import Reference
    from podkiln.oci.spec import Digest
    from podkiln.pipeline.request import BuildRequest
    from podkiln.plan.plan import Plan
    from podkiln.plan.substitutes import Substitute

log = logging.getLogger(__name__)
BOOTSTRAP = "bootstrap"


def build(request: BuildRequest) -> list[Report]:
    """Do the main job. Everything that can be refused is refused before the first byte moves."""
    plans, images = decide(request)
    for each in plans:
        each.require()
    preflight.check(plans, images, request, with_registry_state)
    builder = prepare_engine(request)
    with output_dir.exclusive_lock(request.out):
        reports = _build_all(plans, images, request, builder)
        for made in reports:
            way = route(request, made.plan.described)
            publish.deliver(made, way, push=bool(request.push), load_=request.load)
            report.write([made], request.out / made.plan.name / "report.json")
    if request.report:
        report.write(reports, request.report)
    return reports


def decide(request: BuildRequest) -> tuple[list[Plan], list[Reference]]:
    """Return the plans of a request and the names of the images. Refusals stand in the plans."""
    described = [variant.load(name) for name in request.variants]
    models = {*_shipped(), *(name for each in described for name in each.spec.define)}
    check(request, described, models if request.accepted else None)
    plans = [make_plan(each, request) for each in described]
    return plans, [image_name(each, request) for each in plans]


def make_plan(described: LoadedVariant, request: BuildRequest) -> Plan:
    """Read the lock, look at the substitutes, and decide."""
    offered = catalog.offered(described, _shipped())
    locked = schema.read(described, offered)
    where = request.destination(described)
    options = plan.Options(
        push=request.pushes(described),
        no_weights=request.no_weights,
        allow_substituted=request.allow_substituted,
        host=where.host if where else None,
        destination=where,
        accepted=frozenset(request.accepted),
        spool=request.spool is not None,
        jobs=request.jobs,
        rate=request.rate,
    )
    known = layers.read(layers.path_of(described))
    found = substitutes(request, locked)
    return plan.make(described, locked, offered, found, options, known, shipped=_shipped())


def with_registry_state(made: Plan, request: BuildRequest) -> Plan:
    """Find out which of a plan's weight layers need not move: ask the registry that a request names.

    Where it cannot be asked, that is said, and the plan stays as it is. Where none is named, the image is
    made on this disk, and what lies there already is what counts.
    """
    way = route(request, made.described)
    blobs = [
        spec.Descriptor(spec.LAYER, each.digest, each.size)
        for each in made.layers
        if each.digest and each.size
    ]
    if request.destination(made.described) is None:
        here = local_layers.found(made, request.out / made.name / "image")
        return replace(made, there=dict.fromkeys(here, "existing"))
    target = image_name(made, request)
    there: dict[Digest, plan.ReuseKind] = {}
    try:
        if blobs:
            there = layer_lookup.probe(target, blobs, publish.places_of(made, way), publish.settings(way))
    except RegistryError as failure:
        log.warning("%s What is there already is not known.", failure)
        return made
    return replace(made, there=there)


@cache
def _shipped() -> dict[str, catalog.Entry]:
    """Return the shipped models, read once a run: parsing them takes longest of all that planning does."""
    return catalog.load()


def substitutes(request: BuildRequest, locked: Lock) -> list[Substitute]:
    """Return the inputs that the command line puts in the place of locked ones."""
    found = [inputs.source(option, locked) for option in request.sources]
    names = [each.name for each in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(f"--source: {twice} is given twice.")
    if request.base == BOOTSTRAP and request.dry_run:
        found.append(inputs.unmade_base(locked))
    elif request.base == BOOTSTRAP:
        base = base_image.base_layout(cache_folder())
        found.append(inputs.layout_base(base.path, base.digest, locked))
    elif request.base:
        found.append(inputs.base(request.base, locked))
    return found


def cache_folder() -> Path:
    """Return where things are kept that can be made again (XDG base directory specification)."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "podkiln"


def prepare_engine(request: BuildRequest) -> str | None:
    """Make sure that an engine answers which can build; return the builder to use."""
    if request.builder is None:
        engine.ensure()
    return engine.require(request.builder).builder


def _build_all(
    plans: Sequence[Plan], images: Sequence[Reference], request: BuildRequest, builder: str | None
) -> list[Report]:
    """Render, lint and build all variants in one run of BuildKit, so that they share what they can."""
    begun = time.monotonic()
    for each in plans:
        files = build_context.render(each)
        lint.require(each.name, files, each.described.option)
        output_dir.write(files, request.out / each.name)
    sources = {each.name: each.context for each in plans[0].inputs}
    suite = plans[0].described.spec.runtime.base.suite
    environment = replace(request.environment, apt_suite=suite)
    text = bake_file.as_text(bake_file.bake_file(plans, environment, sources))
    atomic.write(request.out / bake_file.BAKE_FILE, text)
    argv = buildkit.command_line([each.name for each in plans], builder=builder, no_cache=request.no_cache)
    rendered = time.monotonic()
    by_hand = buildkit.by_hand(argv, request.out, environment)
    names = [each.name for each in plans]
    with KeptExport.hold(cache_folder() / "exports", builder) as kept, _partials(plans, request.out):
        kept.prepare(names)
        buildkit.run(argv, request.out, environment, kept.options(names), quiet=request.quiet)
        built = time.monotonic()
        seconds = {"render": rendered - begun, "build": built - rendered}
        known = LayerCache(cache_folder() / "layers")
        reports = []
        for each, image in zip(plans, images, strict=True):
            begun = time.monotonic()
            partial = request.out / each.name / bake_file.PARTIAL
            epoch = each.described.spec.runtime.epoch
            canonical_image.write(kept.exported(each.name), partial, epoch, known)
            made = _take(each, request.out, here=request.load or not request.push)
            took = {**seconds, "layers": time.monotonic() - begun}
            reports.append(Report(each, str(image), by_hand, made, took))
        kept.prune()
        known.prune()
    return reports


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


def _take(made: Plan, out: Path, *, here: bool) -> Layout:
    """Check what was made, and put it in its place; weights are to be baked `here`, into it, or not."""
    partial, place = out / made.name / bake_file.PARTIAL, out / made.name / "image"
    layout.read(partial)
    if here:
        local_layers.keep(made, place, partial)
    output_dir.replace_folder(partial, place)
    return layout.read(place)
