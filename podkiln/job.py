"""The main job: from the names of variants to images, built, loaded and pushed."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import ssl
import time
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from podkiln import (
    bake,
    bootstrap,
    catalogue,
    context,
    delivery,
    engine,
    inputs,
    layout,
    limits,
    lint,
    lock,
    oci,
    places,
    plan,
    registry,
    remembered,
    render,
    report,
    variant,
    weights,
)
from podkiln.delivery import Route
from podkiln.errors import RegistryError, UsageError
from podkiln.reference import Reference
from podkiln.report import Report
from podkiln.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from podkiln.inputs import Input
    from podkiln.layout import Layout
    from podkiln.lock import Lock
    from podkiln.oci import Digest
    from podkiln.plan import Plan
    from podkiln.variant import Described

log = logging.getLogger(__name__)
BOOTSTRAP = "bootstrap"


@dataclass(frozen=True)
class Request:
    """What the command line asked for, all of it."""

    variants: tuple[str, ...]
    out: Path = Path("dist")
    push: bool = False
    load: bool = False
    registry: str | None = None
    tag: str | None = None
    base: str | None = None
    sources: tuple[str, ...] = ()
    allow_substituted: bool = False
    accepted: tuple[str, ...] = ()
    no_weights: bool = False
    no_cache: bool = False
    builder: str | None = None
    mount_from: tuple[str, ...] = ()
    copy_from: tuple[str, ...] = ()
    spool: Path | None = None
    report: Path | None = None
    quiet: bool = False
    dry_run: bool = False
    rate: int = limits.UPLOAD_RATE
    environment: bake.Environment = field(default_factory=bake.Environment)


def build(request: Request) -> list[Report]:
    """Do the main job. Everything that can be refused is refused before the first byte moves."""
    plans, images = decide(request)
    route = _route(request)
    for each in plans:
        each.require()
    _check_report(request)
    _check_pushing(images, request)
    _check_spool(plans, request)
    builder = prepare_engine(request)
    with context.alone(request.out):
        reports = _build_all(plans, images, request, builder)
        for made in reports:
            delivery.deliver(made, route, push=request.push, load_=request.load)
            report.write([made], request.out / made.plan.name / "report.json")
    if request.report:
        report.write(reports, request.report)
    return reports


def decide(request: Request) -> tuple[list[Plan], list[Reference]]:
    """Return the plans of a request and the names of the images. Refusals stand in the plans."""
    described = [variant.load(name) for name in request.variants]
    _check(request, described)
    plans = [make_plan(each, request) for each in described]
    return plans, [image_name(each, request) for each in plans]


def make_plan(described: Described, request: Request) -> Plan:
    """Read the lock, look at the substitutes, and decide."""
    offered = catalogue.offered(described, _shipped())
    locked = lock.read(described, offered)
    options = plan.Options(
        push=request.push,
        no_weights=request.no_weights,
        allow_substituted=request.allow_substituted,
        host=request.registry.split("/")[0] if request.registry else None,
        accepted=frozenset(request.accepted),
        spool=request.spool is not None,
        rate=request.rate,
    )
    known = remembered.read(remembered.path_of(described))
    found = substitutes(request, locked)
    return plan.make(described, locked, offered, found, options, known, shipped=_shipped())


def foresee(made: Plan, request: Request) -> Plan:
    """Ask the registry of a request, if it names one, which of a plan's weight layers need not move.

    Where it cannot be asked, that is said, and the plan stays as it is.
    """
    route = _route(request)
    blobs = [
        oci.Descriptor(oci.LAYER, each.digest, each.size) for each in made.layers if each.digest and each.size
    ]
    if not request.registry:
        return made
    target = image_name(made, request)
    there: dict[Digest, plan.Nearby] = {}
    try:
        if blobs:
            there = places.look(target, blobs, delivery.places_of(made, route), delivery.settings(route))
    except RegistryError as failure:
        log.warning("%s What is there already is not known.", failure)
        return made
    return replace(made, there=there)


@cache
def _shipped() -> dict[str, catalogue.Entry]:
    """Return the shipped models, read once a run: parsing them takes longest of all that planning does."""
    return catalogue.load()


def substitutes(request: Request, locked: Lock) -> list[Input]:
    """Return the inputs that the command line puts in the place of locked ones."""
    found = [inputs.source(option, locked) for option in request.sources]
    names = [each.name for each in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(f"--source: {twice} is given twice.")
    if request.base == BOOTSTRAP and request.dry_run:
        found.append(inputs.unmade_base(locked))
    elif request.base == BOOTSTRAP:
        base = bootstrap.base_layout(cache_folder())
        found.append(inputs.layout_base(base.path, base.digest, locked))
    elif request.base:
        found.append(inputs.base(request.base, locked))
    return found


def cache_folder() -> Path:
    """Return where things are kept that can be made again (XDG base directory specification)."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "podkiln"


def image_name(made: Plan, request: Request) -> Reference:
    """Return the image's name. CUDA stands in the tag because vast.ai picks tags by it."""
    spec = made.described.spec
    default = f"{made.name}-{spec.runtime.comfyui.version}-cuda-{spec.runtime.cuda}"
    tag = default if request.tag is None else request.tag.replace("{variant}", made.name)
    if not re.fullmatch(r"\w[\w.-]{0,127}", tag, re.ASCII):
        raise UsageError(
            f"--tag: {tag!r} is not 1 to 128 of letters, digits and _ . -, the last two not in front."
        )
    prefix = f"{request.registry}/" if request.registry else "localhost/"
    return Reference.parse(f"{prefix}{spec.image.repository}:{tag}")


def _route(request: Request) -> Route:
    """Read what the options say of the ways that bytes take. Raises UsageError."""
    given = {"--mount-from": request.mount_from, "--spool": request.spool}
    useless = next((option for option, value in given.items() if value and not request.push), None)
    if useless:
        raise UsageError(f"{useless} is of use with --push only.")
    host = Reference.parse(f"{request.registry}/x").host if request.registry else ""
    names = [f"{host}/{name.removeprefix(f'{host}/')}" for name in request.mount_from]
    return Route(
        ca_bundle=request.environment.ca_bundle,
        mount_from=tuple(Reference.parse(name).repository for name in names),
        copy_from=tuple(Reference.parse(name) for name in request.copy_from),
        spool=request.spool,
    )


def _check(request: Request, described: Sequence[Described]) -> None:
    names = [each.name for each in described]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(f"--variant: {twice} is named twice.")
    if request.push and not request.registry:
        raise UsageError("--push needs to know where to.", hint="Add --registry HOST/NAMESPACE.")
    if request.environment.ca_bundle:
        _check_certificates(request.environment.ca_bundle)
    suites = {each.spec.runtime.base.suite for each in described}
    if request.environment.apt_mirror and len(suites) > 1:
        raise UsageError(
            f"--apt-mirror: these variants stand on {' and '.join(sorted(suites))}.",
            hint="Build them one by one.",
        )
    if len(names) > 1 and request.tag and "{variant}" not in request.tag:
        raise UsageError(
            f"--tag {request.tag} would be one tag for {len(names)} images.",
            hint="Write {variant} in it: --tag '{variant}-2026.11'.",
        )


def _check_certificates(bundle: Path) -> None:
    try:
        ssl.create_default_context(cafile=bundle)
    except ssl.SSLError:
        raise UsageError(f"--ca-bundle: {bundle} holds no PEM certificate.") from None


def _check_report(request: Request) -> None:
    """See that the report can be written: after the build would be too late to say so."""
    if not request.report:
        return
    folder = request.report.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UsageError(f"--report: there is no folder {folder} that can be written to.")


def _check_pushing(images: Sequence[Reference], request: Request) -> None:
    """Begin an upload and drop it: a wrong login is to be said before the build, not after."""
    if not request.push:
        return
    settings = registry.Settings(ca_bundle=request.environment.ca_bundle, attempts=2)
    for image in {each.name: each for each in images}.values():
        with registry.Repository(image, settings, push=True) as repository:
            location, _ = repository.start_upload()
            repository.cancel_upload(location)


def _check_spool(plans: Sequence[Plan], request: Request) -> None:
    """See that the disk holds what has to be made: after the build would be too late to say so."""
    if request.spool is None:
        return
    for made in plans:
        Spool(request.spool).require(foresee(made, request).lacking, weights.JOBS)


def prepare_engine(request: Request) -> str | None:
    """Make sure that an engine answers which can build; return the builder to use."""
    if request.builder is None:
        engine.ensure()
    return engine.require(request.builder).builder


def _build_all(
    plans: Sequence[Plan], images: Sequence[Reference], request: Request, builder: str | None
) -> list[Report]:
    """Render, lint and build all variants in one run of BuildKit, so that they share what they can."""
    begun = time.monotonic()
    for each in plans:
        files = render.render(each)
        lint.require(each.name, files)
        context.write(files, request.out / each.name)
    sources = {each.name: each.context for each in plans[0].inputs}
    suite = plans[0].described.spec.runtime.base.suite
    environment = replace(request.environment, apt_suite=suite)
    text = bake.as_text(bake.bake_file(plans, environment, sources))
    context.write_file(request.out / bake.BAKE_FILE, text)
    argv = bake.command_line([each.name for each in plans], builder=builder, no_cache=request.no_cache)
    rendered = time.monotonic()
    with _partials(plans, request.out):
        bake.run(argv, request.out, environment, quiet=request.quiet)
        by_hand = bake.by_hand(argv, request.out, environment)
        built = time.monotonic()
        seconds = {"render": rendered - begun, "build": built - rendered}
        reports = []
        for each, image in zip(plans, images, strict=True):
            made = _take(each, request.out)
            reports.append(Report(each, str(image), by_hand, made, dict(seconds)))
    return reports


@contextlib.contextmanager
def _partials(plans: Sequence[Plan], out: Path) -> Iterator[None]:
    """Leave no half-made image behind, however the build ends."""
    folders = [out / each.name / bake.PARTIAL for each in plans]
    try:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        yield
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def _take(made: Plan, out: Path) -> Layout:
    """Check what BuildKit made, and put it in its place."""
    partial, place = out / made.name / bake.PARTIAL, out / made.name / "image"
    shutil.rmtree(partial / "ingest", ignore_errors=True)  # BuildKit's own scratch folder, empty by now
    layout.read(partial)
    context.replace_folder(partial, place)
    return layout.read(place)
