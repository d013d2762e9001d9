"""The documents of an image, key by key: config, manifest and index hold what podkiln writes, and no more.

Engines pass over keys that they do not know; but what they know grows, and Go's reader takes any case.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from pod.util.printable import printable
from podkiln.lock.apt import NOT_LOCKED
from podkiln.oci import spec
from podkiln.util.quoting import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from podkiln.oci.spec import ImageConfig
    from podkiln.plan.plan import Plan
    from podkiln.render.image_config import RenderedConfig as Rendered

_SUBSTITUTED: Final = "io.podkiln.substituted"
_APT: Final = "io.podkiln.apt"
_ADDED_APT: Final = "io.podkiln.added-apt"
_MOST_NAMED: Final = 10
_EMPTY: Final[dict[str, Any]] = {"annotations": {}, "variant": "", "os.version": "", "os.features": []}


def of_config(rendered: Rendered, config: ImageConfig) -> Iterator[str]:
    """Compare how the image runs, and what the config says besides, with what the Dockerfile makes of it."""
    document = config.document
    held, wanted = dict(document.get("config") or {}), rendered.config
    labels = dict(config.labels)
    if substituted(config) and not _named(rendered):
        del labels[_SUBSTITUTED]  # said one by one
    labels_wanted = dict(wanted["Labels"])
    for name in labels_wanted.keys() & {_APT, _ADDED_APT}:
        if labels.get(name) == NOT_LOCKED or _on_another_base(config):
            labels[name] = labels_wanted[name]  # said in a sentence of its own
    held.pop("Labels", None)
    yield from _mapping("label", labels, labels_wanted)
    variables = held.pop("Env", None)
    if variables != wanted["Env"]:
        yield from _environment(variables, rendered.environment)
    yield from _settings(held, {key: wanted[key] for key in wanted if key not in ("Env", "Labels")})
    if document.get("created") != rendered.created:
        yield f"It was created at {shown(document.get('created'))}; the lock gives {rendered.created}."
    yield from _strays(document, "architecture os created config rootfs history", "config")
    yield from _strays(document["rootfs"], "type diff_ids", "config's rootfs")
    if document["rootfs"].get("type") != "layers":
        yield f"Its config's rootfs is of type {shown(document['rootfs'].get('type'))}, not 'layers'."


def _settings(held: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    """Compare key by key. One beside the wanted ones is a finding, null too.

    Go takes `entrypoint` for `Entrypoint`, and null there deletes what was set.
    """
    for key in sorted(wanted):
        if spec.canonical_json(held.get(key)) != spec.canonical_json(wanted[key]):  # 3.0 is not 3
            yield f"Its config sets {key}: {shown(held.get(key))}; the lock gives {shown(wanted[key])}."
    for key in sorted(held.keys() - wanted.keys())[:_MOST_NAMED]:
        yield f"Its config sets {printable(key)}: {shown(held[key])}; the lock gives nothing of that name."


def _environment(held: Any, wanted: Mapping[str, str]) -> Iterator[str]:
    """Say how the variables differ; where none does, that they are written in another order or twice."""
    if not isinstance(held, list) or not all(isinstance(each, str) and "=" in each for each in held):
        yield "Its config's Env is not a list of NAME=VALUE."
        return
    pairs = [(name, text) for name, _, text in (each.partition("=") for each in held)]
    findings = list(_mapping("variable", dict(pairs), wanted))
    yield from findings or ["Its config's Env has variables twice, or in another order than the lock gives."]


def _mapping(what: str, held: Mapping[str, str], wanted: Mapping[str, str]) -> Iterator[str]:
    for name, text in wanted.items():
        if held.get(name) != text:
            has = "is missing" if name not in held else f"is {shown(held[name])}"
            yield f"Its {what} {name} {has}; the lock gives {shown(text)}."
    for name in sorted(held.keys() - wanted.keys())[:_MOST_NAMED]:
        yield f"Its {what} {printable(name)} is {shown(held[name])}; the lock gives none of that name."


def _strays(document: Mapping[str, Any], allowed: str, where: str, empty: str = "") -> Iterator[str]:
    """Name the keys of a document that podkiln does not write, some of them where there are many.

    `empty`: keys that say nothing while they are empty, and may be there then.
    """
    known = {*allowed.split(), *(key for key in empty.split() if document.get(key) in (None, _EMPTY[key]))}
    for key in sorted(document.keys() - known)[:_MOST_NAMED]:
        yield f"Its {where} has {shown(key)}: {shown(document[key])}; podkiln writes none."


def of_manifest(document: Mapping[str, Any]) -> Iterator[str]:
    """Name what an image's manifest says beyond its config and its layers."""
    yield from _typed(document, "manifest")
    yield from _strays(document, "schemaVersion mediaType config layers", "manifest", "annotations")
    yield from _strays(document["config"], "mediaType digest size", "manifest's config", "annotations")
    for number, layer in enumerate(document.get("layers") or ()):
        yield from _strays(layer, "mediaType digest size annotations", f"manifest's layer {number}")


def of_index(document: Mapping[str, Any]) -> Iterator[str]:
    """Name what an index says beyond the one image that podkiln makes."""
    yield from _typed(document, "index")
    yield from _strays(document, "schemaVersion mediaType manifests", "index", "annotations")
    manifests = document["manifests"] or ()
    for number, each in enumerate(manifests[:_MOST_NAMED]):
        allowed = "mediaType digest size platform"
        yield from _strays(each, allowed, f"index's manifest {number}", "annotations")
        if isinstance(each.get("platform"), dict):
            platform = f"index's platform {number}"
            yield from _strays(
                each["platform"], "os architecture", platform, "variant os.version os.features"
            )
    if len(manifests) > 1:
        yield f"It is an index of {len(manifests)} manifests; podkiln makes one image."


def _typed(document: Mapping[str, Any], where: str) -> Iterator[str]:
    """See that a document says itself what it is: otherwise engines go by what the registry says of it."""
    if "mediaType" not in document:
        yield f"Its {where} does not say of which type it is."


def of_apt(plan: Plan, config: ImageConfig) -> Iterator[str]:
    """Say so where nothing names the Debian packages: the base has no apt lock, or the image says so."""
    if config.labels.get(_APT) == NOT_LOCKED:
        yield f"Its apt packages are {NOT_LOCKED}: it was built on a base for which the lock had no index."
    elif plan.apt is None and not _on_another_base(config):
        base = plan.base_digest
        yield f"apt is {NOT_LOCKED} for {base}, so nothing says which Debian packages it should hold."
    elif config.labels.get(_ADDED_APT) == NOT_LOCKED:
        yield f"What it adds to its apt packages is {NOT_LOCKED}."


def substituted(config: ImageConfig) -> list[str]:
    """Return what an image says of itself that was put in the place of a locked input: NAME=ACTUAL."""
    return config.labels.get(_SUBSTITUTED, "").split()


def _on_another_base(config: ImageConfig) -> bool:
    return any(each.startswith("base=") for each in substituted(config))


def of_substitutes(rendered: Rendered, config: ImageConfig) -> Iterator[str]:
    """Name what the image itself says was put in the place of a locked input, and was not asked for here."""
    for each in islice(_others(rendered, config), _MOST_NAMED):
        name, _, actual = each.partition("=")
        yield (
            f"It was built with a substitute for {printable(name)}: {printable(actual)}, "
            "which is not what the lock names; --rebuild with the same substitute compares the rest."
        )


def has_other_substitutes(rendered: Rendered, config: ImageConfig) -> bool:
    """Tell whether the image says that it has substitutes which were not asked for here."""
    return bool(_others(rendered, config))


def _others(rendered: Rendered, config: ImageConfig) -> list[str]:
    named = _named(rendered)
    return [each for each in substituted(config) if each not in named]


def _named(rendered: Rendered) -> list[str]:
    """Return the substitutes that the image is to have: those that `verify --rebuild` was given."""
    return str(rendered.config["Labels"].get(_SUBSTITUTED, "")).split()
