"""From a request to plans: variants, locks and substitutes are read, and registries asked what is there."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from podkiln import registry
from podkiln.build import base_image
from podkiln.config import catalog, presets, variant
from podkiln.config import nodes as node_config
from podkiln.errors import IntegrityError, RegistryError, SourceError, UsageError
from podkiln.lock import apt, kept_image, layers, locations, reader
from podkiln.oci import spec
from podkiln.pipeline import publish
from podkiln.pipeline.request import check, image_name
from podkiln.plan import node_layers, plan
from podkiln.plan import substitutes as inputs
from podkiln.util import cache_folder
from podkiln.weights import layer_lookup, local_layers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from podkiln.build.base_image import BaseLayout
    from podkiln.config.variant import LoadedVariant
    from podkiln.lock.apt import BaseLock
    from podkiln.lock.schema import Lock
    from podkiln.oci.spec import Digest
    from podkiln.options import BuildRequest
    from podkiln.plan.plan import Plan, ReuseKind
    from podkiln.plan.substitutes import Substitute
    from podkiln.registry import RegistryOptions

log = logging.getLogger(__name__)
BOOTSTRAP = "bootstrap"


def decide(request: BuildRequest) -> list[Plan]:
    """Return the plans of a request. Refusals stand in the plans. Raises UsageError."""
    described = [variant.load(name, request.runtime.cuda) for name in request.variants]
    check(request, described, models_of(described) if request.weights.accept_licence else None)
    inputs_of_nodes = frozenset(name for each in described for name in node_config.inputs(each.nodes))
    plans = [make_plan(each, request, inputs_of_nodes) for each in described]
    for each in plans:
        image_name(each)
    return plans


def models_of(described: Iterable[LoadedVariant]) -> set[str]:
    """Return the ids of the shipped models, and of those that variants define."""
    return {*_shipped(), *(name for each in described for name in each.spec.define)}


def make_plan(
    described: LoadedVariant, request: BuildRequest, elsewhere: Collection[str] = (), *, nodes: bool = True
) -> Plan:
    """Read the lock, look at the substitutes, and decide.

    Args:
        described: The variant.
        request: What the command line asks for.
        elsewhere: Inputs of custom nodes that may be named although only other variants have them.
        nodes: False: for an image without the variant's custom nodes.
    """
    _check_bootstrap(described, request)
    offered = catalog.offered(described, _shipped())
    presets.check(described, offered)
    locked = reader.read(described, offered)
    known = layers.read(layers.path_of(described))
    found = substitutes(request, locked, elsewhere)
    if not described.spec.has_comfyui:  # named for the other variants of the same command
        found = [each for each in found if each.name != inputs.COMFYUI]
    if not nodes or any(each.name == inputs.NODES for each in found):
        described, locked = described.without_nodes(), replace(locked, nodes=None)
        offered = catalog.offered(described, _shipped())
    made = plan.make(described, locked, offered, found, request, known, _shipped())
    if kept := kept_image.find(described):
        return replace(made, kept=kept, notes=(*made.notes, f"Packages are taken first from {kept}."))
    return made


def _check_bootstrap(described: LoadedVariant, request: BuildRequest) -> None:
    """Refuse a base made here for another machine. Raises UsageError."""
    made = base_image.platform_here()
    if request.substitutes.base == BOOTSTRAP and described.platform != made:
        raise UsageError(
            f"--base bootstrap makes a base for {made}, and {described.name} is for {described.platform}.",
            hint=f"Build it on a machine of {described.platform}, or name a base: --base REF.",
        )


def with_registry_state(made: Plan, settings: RegistryOptions) -> Plan:
    """Find out which of a plan's weight layers need not move: ask the registry that it goes to.

    Where it cannot be asked, that is said, and the plan stays as it is. Where none is named, the image is
    made on this disk, and what lies there already is what counts.
    """
    sources = publish.sources_of(made)
    blobs = [
        spec.Descriptor(spec.LAYER, each.digest, each.size)
        for each in made.layers
        if each.digest and each.size
    ]
    if made.destination is None:
        here = local_layers.found(made.layers, made.request.output.out / made.name / "image")
        return replace(made, there=dict.fromkeys(here, "existing"))
    there: dict[Digest, ReuseKind] = {}
    try:
        if blobs:
            there = layer_lookup.probe(image_name(made), blobs, sources, settings)
    except RegistryError as failure:
        log.warning("%s What is there already is not known.", failure)
        return made
    return replace(made, there=there)


def with_kept_packages(made: Plan, settings: RegistryOptions) -> Plan:
    """See that the image with the kept packages is there. Where not, that is said, and it is not used."""
    if made.kept is None:
        return made
    try:
        registry.pull_manifest(made.kept.reference, settings)
    except (RegistryError, IntegrityError) as gone:
        again = f"`./build.py lock{made.described.option} --keep {made.kept.repository}`"
        log.warning(
            "The kept image %s cannot be had, so packages come from their mirrors: %s Keep them again (%s), "
            "or take it out of %s.",
            *(made.kept, gone, again, kept_image.path_of(made.described)),
        )
        return replace(made, kept=None)
    return made


@cache
def _shipped() -> dict[str, catalog.Entry]:
    """Return the shipped models, read once a run: parsing them takes longest of all that planning does."""
    return catalog.load()


def substitutes(request: BuildRequest, locked: Lock, elsewhere: Collection[str] = ()) -> list[Substitute]:
    """Return the inputs that the command line puts in the place of locked ones.

    `elsewhere`: inputs that may be named although this variant has none of that name.
    """
    options = request.substitutes.source
    foreign = set(elsewhere) - inputs.replaceable(locked).keys()
    found = [inputs.source(each, locked) for each in options if each.partition("=")[0] not in foreign]
    nodes = next((each for each in found if each.name == inputs.NODES), None)
    one = next((each for each in found if each.name.startswith(node_layers.INPUT)), None)
    if nodes and one:
        raise UsageError(f"--source: {one.name} is given, and {inputs.WITHOUT_NODES} leaves all nodes out.")
    names = [each.name for each in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(f"--source: {twice} is given twice.")
    if request.substitutes.base == BOOTSTRAP and request.output.dry_run:
        found.append(inputs.unmade_base(locked, _locked_base()))
    elif request.substitutes.base == BOOTSTRAP:
        base = bootstrapped_base(request.network.apt_mirror)
        found.append(inputs.layout_base(base.path, base.digest, locked))
    elif request.substitutes.base:
        found.append(inputs.base(request.substitutes.base, locked))
    return found


def bootstrapped_base(mirror: str | None = None) -> BaseLayout:
    """Return the base made from Debian packages: the locked ones, as long as they can be had.

    `mirror`: where from; None is the mirror that this host uses.
    """
    locked = _locked_base()
    if locked is None:
        return base_image.base_layout(cache_folder.path(), mirror=mirror)
    try:
        return base_image.base_layout(cache_folder.path(), locked, mirror)
    except SourceError as lost:
        log.warning(
            "%s So it is made of the packages of today, and is another base than the locked one.", lost
        )
        return base_image.base_layout(cache_folder.path(), mirror=mirror)


def _locked_base() -> BaseLock | None:
    """Return the lock of the base that is made here, where it is for this machine."""
    locked = apt.read_base(locations.LOCKS / BOOTSTRAP)
    return locked if locked and locked.index.architecture == base_image.architecture() else None
