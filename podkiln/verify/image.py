"""What a registry holds, against what the lock says: sentences about all that differs.

Manifest and config are read, every blob is asked for, and nothing is pulled; `deep` streams all layers
too: the files of weights are hashed, and the runtime must leave the weights alone. An image with substitutes
is never right, however well it is made.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from podkiln.errors import IntegrityError, VerifyError
from podkiln.lock.runtimes import NOTHING
from podkiln.oci import spec
from podkiln.oci.reference import DEFAULT_TAG, Reference
from podkiln.registry import Repository
from podkiln.render.image_config import RenderedConfig
from podkiln.util.quoting import shown
from podkiln.verify import documents, own_layers
from podkiln.verify.blobs import blob_findings, deep_findings, runtime_findings
from podkiln.verify.compare import (
    RemoteImage,
    compare,
    placed,
    too_many,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from typing import Self

    from podkiln.lock.runtimes import PushedLayers
    from podkiln.oci.spec import Descriptor, Digest, Manifest
    from podkiln.plan.plan import Plan
    from podkiln.registry import Progress, RegistryOptions
    from podkiln.verify.rebuilt import Difference

__all__ = ["VerifyResult", "verify"]

_DOCUMENTS: Final = (
    "Compared with the lock: all of manifest, config and labels, in the history the steps that made layers "
    "and the kinds of all others, and the digests of weight layers"
)
_INSIDE: Final = (
    "every file of the weights by its sha256, that the layers of the runtime leave the weights alone, and "
    "the files of podkiln's own layers, but for what is in their bytecode, with what is rendered"
)
_NOT_COMPARED: Final = "the base image's own history, and the digests of "
_REBUILT: Final = "and layers, config and manifest with those of a build made now, every step anew"
_OWN: Final = "podkiln's own layers, the uppermost"
_ALL: Final = "the runtime's layers, which the lock does not hold before they are pushed once"


@dataclass(frozen=True)
class VerifyResult:
    """What was found: nothing, or what differs. `digest` is that of the image's manifest.

    `remembered`: what the lock knew of the runtime's layers and podkiln's own. `held`: the image, where all
    of it is there. `rebuild`: what differs from a build made now; None where none was made.
    `substitutes`: of that build. `proven`: whether of each weight layer the digest is known, or it was read.
    """

    image: str
    digest: Digest
    findings: tuple[str, ...]
    deep: bool = False
    remembered: PushedLayers = NOTHING
    held: RemoteImage | None = field(default=None, compare=False, repr=False)
    rebuild: tuple[Difference, ...] | None = None
    substitutes: tuple[str, ...] = ()
    proven: bool = True

    @property
    def ok(self) -> bool:
        """Whether nothing differs from what the lock says."""
        return not (self.findings or self.rebuild)

    @property
    def complete(self) -> bool:
        """Whether each layer of the image was compared, by its digest or by all that is in it."""
        pushed = self.remembered.runtime is not None and self.remembered.own is not None
        return self.held is not None and self.proven and (pushed or self.rebuild is not None)

    @property
    def headline(self) -> str:
        """What to think of the image, before all else that there is to say."""
        count = len(self.finding_lines)
        if count:
            differ = "one thing differs" if count == 1 else f"{count} things differ"
            return f"Spoiled: in {self.image} ({self.digest}), {differ} from what is to be there."
        says = "the lock says" if self.rebuild is None else "a build gives now"
        if self.complete:
            return f"Sound: {self.image} ({self.digest}) is what {says}, in each of its layers."
        return (
            f"Incomplete: {self.image} ({self.digest}) is what {says} as far as it was compared, which not "
            "each of its layers was: commit the runtimes.json that its push wrote, or compare with --rebuild."
        )

    @property
    def finding_lines(self) -> list[str]:
        """What differs, one line each."""
        return [*self.findings, *(each.what for each in self.rebuild or ())]

    @property
    def lines(self) -> list[str]:
        """What differs, as people read it."""
        return [*self.findings, *(line for each in self.rebuild or () for line in each.lines())]

    def with_rebuild(self, found: Iterable[Difference], substitutes: Sequence[str]) -> Self:
        """Return the verdict with what differs from a build made now, and that build's substitutes."""
        return replace(self, rebuild=tuple(found), substitutes=tuple(substitutes))

    @property
    def compared(self) -> str:
        """What was compared, what was not, and what it holds for, in two sentences."""
        pinned = Reference.parse(self.image).with_tag(None).with_digest(self.digest)
        said = f"The result holds for {pinned}: pull that, as a tag can move."
        read = f", {_INSIDE}" if self.deep else "; what is in the layers was not read (--deep reads it)"
        digests, others = self._runtime_compared()
        if self.rebuild is not None:
            names = ", ".join(self.substitutes)
            less = f" with substitutes for {names}, which are not what the lock names" if names else ""
            read = f", {_INSIDE}" if self.deep else ""
            return f"{_DOCUMENTS}{digests}{read}, {_REBUILT}{less}. {said}"
        return f"{_DOCUMENTS}{digests}{read}{others}. {said}"

    def _runtime_compared(self) -> tuple[str, str]:
        """Say which digests of layers without weights were compared, and what was not, both as an end."""
        runtime, own = self.remembered.runtime, self.remembered.own
        if runtime and own:
            return ", the base image's own history, and the digests of all other layers", ""
        if runtime:
            own_too = f", the base image's own history, and the digests of the layers below {_OWN}"
            return own_too, f"; not compared: the digests of {_OWN}, which the lock holds after their push"
        below = f"; not compared: {_NOT_COMPARED}{_ALL}"
        return (f", and those of {_OWN}" if own else ""), below

    def as_json(self) -> dict[str, Any]:
        """Return the verdict for scripts."""
        found = {
            "ok": self.ok,
            "complete": self.complete,
            "deep": self.deep,
            "compared": self.compared,
            "findings": self.finding_lines,
        }
        if self.rebuild is not None:
            found["rebuild"] = [each.as_json() for each in self.rebuild]
        return {"schema": 1, "image": self.image, "digest": self.digest, **found}

    def require(self) -> None:
        """Raise VerifyError when there is a finding."""
        if self.findings:
            raise VerifyError(f"{self.image} is not what the lock says: {self.findings[0]}")
        if self.rebuild:
            first = self.rebuild[0].what.rstrip(":")
            raise VerifyError(f"{self.image} is not what a build gives now: {first}")


def verify(
    plan: Plan,
    known: Mapping[Digest, Digest],
    reference: Reference,
    settings: RegistryOptions,
    *,
    remembered: PushedLayers = NOTHING,
    deep: bool = False,
    on_progress: Progress,
) -> VerifyResult:
    """Compare an image with its lock.

    Args:
        plan: The variant, as it would be built without substitutes.
        known: What the lock remembers: recipe of a bundle -> digest of its layer.
        reference: The image.
        settings: Options of registry connections.
        remembered: What the lock knows of the runtime's layers, and of podkiln's own above them.
        deep: Read all layers too: hash the files of the weights, look for what hides them.
        on_progress: Told what is read.

    Raises:
        RegistryError: The image is not there, or cannot be read.
        RenderError: The variant cannot be rendered.
        IntegrityError: Its manifest or index is damaged.
    """
    rendered = RenderedConfig.of(plan)
    with Repository(reference, settings) as repository:
        asked = reference.digest or reference.tag or DEFAULT_TAG
        found, data = repository.manifest(asked)
        findings = list(_head_findings(repository, asked, found))
        if found.media_type in spec.INDEXES:
            where = f"Index {reference}"
            platform = spec.Platform.parse(plan.described.platform)
            # Pulled by its digest, so no HEAD names another.
            fitting = _fitting(spec.Index.parse(data, where), platform)
            findings += documents.of_index(spec.parse_json(data, where))
            if fitting is None:
                why = f"It is an index without an image for {platform}."
                return VerifyResult(str(reference), found.digest, (why,), deep)
            found, data = repository.manifest(fitting.digest)
            if (found.size, found.media_type) != (fitting.size, fitting.media_type):
                findings.append("Its index lists its manifest with another size or type than it has.")
        where = f"Manifest {spec.short(found.digest)} of {reference}"
        manifest = spec.Manifest.parse(data, where)
        findings += documents.of_manifest(spec.parse_json(data, where))
        if too_many(manifest):  # do not ask for thousands of blobs
            return VerifyResult(str(reference), found.digest, (*findings, *too_many(manifest)), deep)
        bad = blob_findings(repository, manifest)
        findings += bad.values()
        held = None if manifest.config.digest in bad else _held(repository, manifest, findings)
        if held:
            findings += compare(plan, rendered, known, held, remembered=remembered, deep=deep)
            if deep:
                findings += _deep_findings(repository, plan, rendered, known, held, bad, on_progress)
    whole = held if held and not bad else None
    proven = deep or all(each.recipe in known for each in plan.bundles)
    return VerifyResult(str(reference), found.digest, tuple(findings), deep, remembered, whole, proven=proven)


def _deep_findings(
    repository: Repository,
    plan: Plan,
    rendered: RenderedConfig,
    known: Mapping[Digest, Digest],
    held: RemoteImage,
    bad: Collection[Digest],
    on_progress: Progress,
) -> Iterator[str]:
    """Read all layers that can be read: those of weights, those of the runtime, and podkiln's own."""
    weights = placed(plan.bundles, known, held)
    yield from deep_findings(
        repository, [each for each in weights if each.blob.digest not in bad], on_progress
    )
    taken = {each.number for each in weights}
    layers = zip(held.manifest.layers, held.config.diff_ids, strict=False)  # a difference is said already
    runtime = [
        (number, blob, diff_id)
        for number, (blob, diff_id) in enumerate(layers)
        if number not in taken and blob.digest not in bad
    ]
    yield from runtime_findings(repository, runtime, on_progress)
    if not bad and len(held.config.layer_history) == len(held.manifest.layers):  # else that is said already
        substituted = documents.has_other_substitutes(rendered, held.config)
        yield from own_layers.findings(plan, rendered, held, taken, repository.read, substituted=substituted)


def _fitting(index: spec.Index, platform: spec.Platform) -> Descriptor | None:
    """Return the image for the platform, or the only one, of which the index does not say for which it is."""
    if len(index.manifests) == 1 and not index.manifests[0].platform:
        return index.manifests[0]
    fitting = (each for each in index.manifests if each.platform and each.platform.serves(platform))
    return next(fitting, None)


def _head_findings(repository: Repository, asked: str, found: Descriptor) -> Iterator[str]:
    """Ask for a manifest by HEAD, as engines do to learn its digest and type."""
    media_type, digest = repository.named(asked)
    if digest not in (None, found.digest):
        yield (
            f"Its registry names the digest {digest} in answer to HEAD, which engines send, "
            f"and sends {found.digest}."
        )
    if media_type != found.media_type:
        yield (
            f"Its registry names the type {shown(media_type)} in answer to HEAD, which engines send, "
            f"and sends {shown(found.media_type)}."
        )


def _held(repository: Repository, manifest: Manifest, findings: list[str]) -> RemoteImage | None:
    """Read the config; a damaged one is a finding, and then there is nothing to compare."""
    where = f"Config {spec.short(manifest.config.digest)} of {repository.name}"
    try:
        return RemoteImage(manifest, spec.ImageConfig.parse(repository.blob(manifest.config), where))
    except IntegrityError as damaged:
        findings.append(str(damaged))
        return None
