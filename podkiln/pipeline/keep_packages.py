"""`lock --keep`: the locked Debian packages and wheels as an ordinary image in a registry of the user's own.

One layer an archive of a base, and one a Python layer, streamed from where they come from to the registry
with their hashes checked on the way; no layer is made that is there. The base images go into the same
repository.
"""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from podkiln import registry
from podkiln.build import apt_servers
from podkiln.config import variant
from podkiln.errors import IntegrityError, RegistryError, UsageError
from podkiln.lock import additions, apt, kept_image, locations, nodes, reader, schema, serving
from podkiln.lock.kept_image import KeptImage, KeptLayer
from podkiln.lock.resolve import python, relock
from podkiln.lock.resolve.http import Web
from podkiln.lock.schema import Lock
from podkiln.oci import layout, spec, tar_layer
from podkiln.oci.reference import DEFAULT_TAG, Reference
from podkiln.oci.spec import Descriptor, Digest, Platform
from podkiln.pipeline import planning, publish
from podkiln.registry.blob_copy import RemoteBlob
from podkiln.registry.parallel import at_once
from podkiln.registry.upload import Upload, ignore_progress
from podkiln.util import console
from podkiln.weights import bake, package_layers
from podkiln.weights.package_layers import PackageSources
from podkiln.weights.sink import RegistrySink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from podkiln.config.variant import LoadedVariant
    from podkiln.lock.apt import AptLock, LockedArchive
    from podkiln.lock.schema import LockedLayer
    from podkiln.options import BuildRequest
    from podkiln.registry import RegistryOptions, Repository
    from podkiln.weights.package_layers import PackageLayer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeepResult:
    """What was kept, the files that say so, and what could not be kept: one sentence each."""

    images: tuple[KeptImage, ...]
    changed: tuple[Path, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Part:
    """A layer to be: what is locked of it, and how to find out what is in it."""

    name: str
    recipe: Digest
    contents: Callable[[], PackageLayer]


@dataclass
class _Runtime:
    """The variants of one runtime, whose packages go into one image; `path` is the lock that will name it."""

    path: Path
    name: str
    variants: list[LoadedVariant] = field(default_factory=list)

    @property
    def platform(self) -> Platform:
        """What they are built for."""
        return Platform.parse(self.variants[0].platform)

    def parts(self, request: BuildRequest) -> list[_Part]:
        """Return its layers. Raises LockError."""
        locks = {base: each for one in self.variants for base, each in reader.apt_locks(one).items()}
        for each in self.variants:
            base = schema.read_runtime(locations.folders(each)[0]).base_digest
            if base not in reader.apt_locks(each):
                log.warning(
                    "%s: apt is %s for its base %s, so none of its .debs is kept.",
                    each.name,
                    apt.NOT_LOCKED,
                    base,
                )
        added = [each for one in self.variants for each in additions.apt_locks(one, locks).values()]
        debs = [
            part
            for each in (*(locks[base] for base in sorted(locks)), *added)
            for part in _debs(each, request)
        ]
        wheels = {part.recipe: part for each in self.variants for part in _wheels(each)}
        return [*debs, *wheels.values()]


def keep(names: Sequence[str], request: BuildRequest, target: str) -> KeepResult:
    """Keep the locked packages of variants.

    Args:
        names: Variants; the shipped ones with their own CUDA for none.
        request: The CUDA release, another base to keep, and the network.
        target: Where to: HOST/NAME[:TAG].

    Raises UsageError, LockError, SourceError (a package cannot be had), IntegrityError (it is another
    one than the locked), RegistryError.
    """
    reference = _target(target)
    runtimes: dict[tuple[Path, str], _Runtime] = {}
    for each in relock.load_variants(names or [variant.ALL], request.runtime.cuda):
        key = kept_image.path_of(each), each.spec.runtime.name
        runtimes.setdefault(key, _Runtime(*key)).variants.append(each)
    if len(runtimes) > 1:
        raise UsageError(
            f"--keep: these variants have {len(runtimes)} locks, and {target} is one image.",
            hint="Keep them one by one, each under a name of its own: --variant V.",
        )
    (runtime,) = runtimes.values()
    settings = publish.registry_options(request)
    before = kept_image.read(runtime.path).get(runtime.name)
    bases, warnings = _keep_bases(runtime, request, reference, settings)
    kept = _keep(runtime, request, reference, before, settings)
    kept = kept.model_copy(update={"bases": (*_bases_there(reference, before, bases, settings), *bases)})
    changed = kept_image.write(runtime.path, runtime.name, kept)
    return KeepResult((kept,), (runtime.path,) if changed else (), tuple(warnings))


def _target(text: str) -> Reference:
    try:
        reference = Reference.parse(text)
    except UsageError as wrong:
        raise UsageError(f"--keep: {wrong}", hint=wrong.hint) from None
    if reference.digest:
        raise UsageError(
            f"--keep: {text} names a digest, which what is pushed makes.", hint="Write HOST/NAME[:TAG]."
        )
    return reference


def _debs(locked: AptLock, request: BuildRequest) -> Iterator[_Part]:
    base = apt.folder_name(locked.index.base_digest)
    for archive in locked.index.archives:
        name = f"{archive.name} for {base}"
        servers = apt_servers.of(archive.name, locked.index.snapshot_at, request.network.apt_mirror)
        if not servers:
            raise UsageError(
                "--keep: this machine's apt has no Debian mirror to fetch the packages from.",
                hint="Name one: --apt-mirror URL, such as http://mirror.example.com/debian",
            )

        def contents(
            archive: LockedArchive = archive, name: str = name, servers: Sequence[str] = servers
        ) -> PackageLayer:
            return package_layers.of_debs(name, archive.name, locked.packages[archive.name], servers)

        yield _Part(name, _recipe("debs", archive.name, archive.sha256), contents)


def _wheels(described: LoadedVariant) -> Iterator[_Part]:
    folder, own = locations.folders(described)[0], locations.python_additions_folder(described)
    runtime = schema.read_runtime(folder)
    layers = [(folder, layer) for layer in (*runtime.installed, runtime.uv)]
    of_nodes, _ = nodes.read(described, runtime, Lock(folder, runtime, {}).pins())
    if of_nodes:
        layers += [
            (of_nodes.folder, each.layer.model_copy(update={"name": f"node {each.id}"}))
            for each in of_nodes.document.nodes
            if each.layer
        ]
    if described.additions.requirements and (added := additions.read_python(own)):
        layers.append((own, added.layer))
    if (of_serving := serving.read(described, runtime)[0]) is not None:
        layers.append((of_serving.folder, of_serving.document.layer))
    for place, layer in layers:

        def contents(place: Path = place, layer: LockedLayer = layer) -> PackageLayer:
            found = python.locate(place / layer.file, described.spec.runtime.python)
            web = Web()
            sized = [(each, each.size or web.size(each.url).size or 0) for each in found]
            return package_layers.of_wheels(f"Python: {layer.name}", sized)

        yield _Part(f"Python: {layer.name}", _recipe("wheels", "", layer.sha256), contents)


def _recipe(kind: str, name: str, sha256: str) -> Digest:
    return spec.digest_of(spec.canonical_json([tar_layer.PACKING, kind, name, sha256]))


def _keep(
    runtime: _Runtime,
    request: BuildRequest,
    reference: Reference,
    before: KeptImage | None,
    settings: RegistryOptions,
) -> KeptImage:
    """Push one image."""
    near = [before.reference.repository] if before and before.reference.host == reference.host else []
    known = {each.recipe: each for each in before.layers} if before else {}
    parts = runtime.parts(request)
    with registry.Repository(reference, settings, push=True, mount_from=near) as repository:
        repository.ping()
        sink = RegistrySink(repository, near)
        there = {part.recipe: known[part.recipe] for part in parts if _found(sink, known.get(part.recipe))}
        lacking = [part for part in parts if part.recipe not in there]
        if lacking:
            log.info("%d of %d layers of packages are not there yet.", len(lacking), len(parts))
            contents = [part.contents() for part in lacking]
            access = PackageSources.from_environment(os.environ, request.network.ca_bundle)
            with console.Bytes(f"keeping {runtime.name}") as bar:
                baked = bake.bake(contents, sink, access, jobs=request.transfer.jobs, on_progress=bar)
            for part, each in zip(lacking, baked, strict=True):
                there[part.recipe] = KeptLayer(
                    name=part.name, recipe=part.recipe, digest=each.blob.digest, size=each.blob.size
                )
        layers = list({there[part.recipe].digest: there[part.recipe] for part in parts}.values())
        digest = _put_image(repository, reference.tag or DEFAULT_TAG, layers, runtime.platform)
    return KeptImage(repository=reference.name, digest=digest, bases=(), layers=tuple(layers))


def _found(sink: RegistrySink, known: KeptLayer | None) -> bool:
    return known is not None and sink.find(known.blob) is not None


class _Bytes:
    """A small blob as `registry.upload.BlobSource`."""

    def __init__(self, data: bytes, media_type: str) -> None:
        self._data = data
        self.blob = Descriptor(media_type, spec.digest_of(data), len(data))
        self.name, self.size = spec.short(self.blob.digest), len(data)

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        yield self._data[offset:]


def _put_image(repository: Repository, tag: str, layers: Sequence[KeptLayer], platform: Platform) -> Digest:
    """Push config and manifest. The same layers make the same digest."""
    diff_ids = [each.digest for each in layers]  # they are not compressed
    history = [{"created_by": f"podkiln lock --keep: {each.name}"} for each in layers]
    document = {
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {},
        "history": history,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    config = _Bytes(spec.canonical_json(document), spec.CONFIG)
    if not repository.blob_exists(config.blob):
        Upload(repository, config, ignore_progress).run()
    manifest = spec.Manifest(spec.MANIFEST, config.blob, tuple(each.blob for each in layers)).encode()
    digest = spec.digest_of(manifest)
    for name in (digest, tag):
        repository.put_manifest(name, manifest, spec.MANIFEST)
    return digest


def _keep_bases(
    runtime: _Runtime, request: BuildRequest, reference: Reference, settings: RegistryOptions
) -> tuple[tuple[str, ...], list[str]]:
    """Copy the base images beside the packages, under own tags. Returns their digests, and warnings."""
    kept, warnings = [], []
    for described in runtime.variants[:1]:  # one runtime has one base
        folder = locations.folders(described)[0]
        locked = Lock(folder, schema.read_runtime(folder), {})
        own = Reference.parse(f"{locked.runtime.base_image}@{locked.runtime.base_digest}")
        try:
            _copy_image(own, reference, settings)
            kept.append(locked.runtime.base_digest)
        except (RegistryError, IntegrityError) as away:
            warnings.append(f"The base {own.familiar} is not kept: {away}")
        if request.substitutes.base == planning.BOOTSTRAP:
            made = planning.bootstrapped_base(request.network.apt_mirror)
            registry.push(
                layout.read(made.path), reference.with_tag(_base_tag(made.digest)), settings=settings
            )
            kept.append(made.digest)
        elif request.substitutes.base:
            (other,) = planning.substitutes(request, locked)
            named = Reference.parse(request.substitutes.base).with_digest(Digest(other.actual))
            _copy_image(named, reference, settings)
            kept.append(other.actual)
    return tuple(dict.fromkeys(kept)), warnings


def _bases_there(
    reference: Reference, before: KeptImage | None, now: Sequence[str], settings: RegistryOptions
) -> list[str]:
    """Return the bases that were kept earlier, and are there still."""
    if before is None or before.repository != reference.name:
        return []
    found = []
    for digest in before.bases:
        with contextlib.suppress(RegistryError, IntegrityError):
            if digest not in now:
                registry.pull_manifest(reference.with_digest(Digest(digest)), settings)
                found.append(digest)
    return found


def _base_tag(digest: str) -> str:
    """Return the tag that keeps a base from being collected as garbage."""
    return f"base-{apt.folder_name(digest)}"


def _copy_image(source: Reference, target: Reference, settings: RegistryOptions) -> None:
    """Copy an image, of an index all platforms, so that its digest stays.

    Raises RegistryError, IntegrityError.
    """
    assert source.digest  # noqa: S101 - both callers name one
    with (
        registry.Repository(source, settings) as origin,
        registry.Repository(target, settings, push=True) as repository,
    ):
        _copy_manifest(origin, repository, source.digest)
        found, data = origin.manifest(source.digest)
        repository.put_manifest(_base_tag(source.digest), data, found.media_type)


def _copy_manifest(origin: Repository, repository: Repository, digest: Digest) -> None:
    found, data = origin.manifest(digest)
    if found.media_type in spec.INDEXES:
        for each in spec.Index.parse(data, f"The index {digest}").manifests:
            _copy_manifest(origin, repository, each.digest)
    else:
        manifest = spec.Manifest.parse(data, f"The manifest {digest}")

        def bring(blob: Descriptor) -> None:
            if not repository.blob_exists(blob):
                Upload(repository, RemoteBlob(origin, blob, spec.short(blob.digest)), ignore_progress).run()

        at_once(
            repository.transport,
            {each.digest: each for each in (*manifest.layers, manifest.config)}.values(),
            bring,
        )
    repository.put_manifest(digest, data, found.media_type)
