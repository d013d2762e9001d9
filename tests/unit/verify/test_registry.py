"""What `verify` asks a registry for, and what it says of what the registry answers."""

from __future__ import annotations

import gzip
import io
import json
import re
import sys
import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import runtimes
from apt_locks import with_apt
from layouts import layer_of
from plans import plan_of
from runtimes import Runtime
from servers.registry import Fault, Registry
from small_weights import BUNDLES, LAYERS, A, B, baked, content

from podkiln.errors import IntegrityError, RegistryError, VerifyError
from podkiln.lock.runtimes import OwnLayers, PushedLayers, RememberedRuntime, RuntimeLayer
from podkiln.oci import spec
from podkiln.oci.reference import Reference
from podkiln.oci.spec import Descriptor, Manifest
from podkiln.registry import RegistryOptions
from podkiln.verify.image import VerifyResult, verify
from podkiln.verify.rebuilt import Difference
from podkiln.weights.assemble import assemble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podkiln.plan.plan import Plan
    from podkiln.plan.weight_layers import WeightLayerSpec

Documents = tuple[dict[str, Any], dict[str, Any]]
WRONG = "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def plan() -> Plan:
    """The plan of a shipped variant, with two weight layers of a few bytes."""
    return replace(with_apt(plan_of("lazy")), bundles=BUNDLES)


@pytest.fixture(scope="module")
def runtime(plan: Plan) -> Runtime:
    """A runtime as the plan's Dockerfile makes it."""
    return runtimes.make(plan)


@pytest.fixture
def registry(runtime: Runtime) -> Iterator[Registry]:
    """A registry that holds an image as the lock says, under tag v1."""
    image = assemble(runtime.manifest, runtime.config, [baked(A), baked(B)])
    with Registry() as started:
        for blob in runtime.layers:
            started.blobs["you/app", spec.digest_of(blob.data)] = blob.data
        for bundle in BUNDLES:
            started.blobs["you/app", LAYERS[bundle.recipe]] = content(bundle)
        started.blobs["you/app", image.manifest.config.digest] = image.config_bytes
        for name in ("v1", image.descriptor.digest):
            started.manifests["you/app", name] = (spec.MANIFEST, image.manifest_bytes)
        yield started


def ask(registry: Registry, plan: Plan, *, deep: bool = False, tag: str = "v1") -> VerifyResult:
    settings = RegistryOptions(attempts=3, backoff=0.01, timeout=0.5, login=lambda _: None)
    reference = Reference.parse(f"{registry.host()}/you/app:{tag}")
    return verify(plan, LAYERS, reference, settings, deep=deep, on_progress=lambda *_: None)


def test_what_is_right_is_said_to_be_and_nothing_is_pulled(registry: Registry, plan: Plan) -> None:
    verdict = ask(registry, plan)
    verdict.require()
    assert verdict.as_json() == {
        "schema": 1,
        "image": f"{registry.host()}/you/app:v1",
        "digest": spec.digest_of(registry.manifests["you/app", "v1"][1]),
        "ok": True,
        "complete": False,
        "deep": False,
        "compared": (
            "Compared with the lock: all of manifest, config and labels, in the history the steps that made "
            "layers and the kinds of all others, and the digests of weight layers; what is in the layers was "
            "not read (--deep reads it); not compared: the base image's own history, and the digests of the "
            "runtime's layers, which the lock does not hold before they are pushed once. The result holds "
            f"for {registry.host()}/you/app@{verdict.digest}: pull that, as a tag can move."
        ),
        "findings": [],
    }
    config = Manifest.parse(registry.manifests["you/app", "v1"][1], "x").config
    assert [hit.path for hit in registry.asked("GET", "/blobs/")] == [f"/v2/you/app/blobs/{config.digest}"]
    assert len(registry.asked("HEAD", "/blobs/")) == 19


_LAYER = RuntimeLayer(digest=spec.digest_of(b"1"), size=1, diff_id=spec.digest_of(b"2"))
_OWN = OwnLayers(name="lazy", layers=(_LAYER,))
_BOTH = PushedLayers(RememberedRuntime(name="lazy", layers=(_LAYER,), base=1, settings={}, history=()), _OWN)


@pytest.mark.parametrize(
    ("known", "says", "complete"),
    [
        ({}, "Incomplete: .* is what the lock says as far as it was compared", False),
        ({"remembered": PushedLayers(own=_OWN)}, "Incomplete: ", False),
        ({"remembered": PushedLayers(_BOTH.runtime)}, "Incomplete: ", False),
        ({"remembered": _BOTH}, "Sound: .* is what the lock says, in each of its layers", True),
        ({"rebuild": ()}, "Sound: .* is what a build gives now, in each of its layers", True),
        ({"remembered": _BOTH, "proven": False}, "Incomplete: ", False),
        ({"remembered": _BOTH, "findings": ("x",)}, "Spoiled: in .*, one thing differs from what", True),
        ({"rebuild": (Difference("x"), Difference("y"))}, "Spoiled: in .*, 2 things differ", True),
        ({"remembered": _BOTH, "held": None, "findings": ("x",)}, "Spoiled: ", False),
    ],
)
def test_the_first_line_says_what_to_think_of_an_image(
    known: dict[str, Any], says: str, complete: bool, registry: Registry, plan: Plan
) -> None:
    verdict = replace(ask(registry, plan), **known)
    assert re.match(says, verdict.headline)
    assert verdict.as_json()["complete"] is complete
    assert verdict.digest in verdict.headline


def test_a_weight_layer_of_which_nobody_knows_the_digest_is_not_compared_unless_it_is_read(
    registry: Registry, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "LAYERS", {})
    assert [ask(registry, plan, deep=deep).proven for deep in (False, True)] == [False, True]


def test_a_finding_is_a_failure_of_its_own(registry: Registry, plan: Plan) -> None:
    verdict = ask(registry, replace(plan, bundles=(A,)))
    assert (verdict.ok, len(verdict.findings)) == (False, 1)
    with pytest.raises(VerifyError, match="layer 1 holds weights of sdxl") as raised:
        verdict.require()
    assert raised.value.exit_code == 13


def test_a_blob_that_is_gone_or_cut_short_is_found(registry: Registry, plan: Plan) -> None:
    first, second = (LAYERS[bundle.recipe] for bundle in BUNDLES)
    del registry.blobs["you/app", first]
    registry.blobs["you/app", second] = content(B)[:-1]
    gone, short = ask(registry, plan, deep=True).findings
    assert f"{first} ({A.size} bytes) is not in you/app" in gone
    assert f"{B.size - 1} bytes, but it has {B.size}" in short


def test_a_config_that_is_not_what_it_is_said_to_be_is_found(registry: Registry, plan: Plan) -> None:
    config = Manifest.parse(registry.manifests["you/app", "v1"][1], "x").config
    damaged = registry.blobs["you/app", config.digest].replace(b"linux", b"linus")
    registry.blobs["you/app", config.digest] = damaged
    (finding,) = ask(registry, plan).findings
    assert f"hashes to {spec.digest_of(damaged)}, not {config.digest}" in finding


@pytest.mark.parametrize(("architecture", "ok"), [("amd64", True), ("arm64", False)])
def test_of_an_index_the_image_for_gpu_pods_counts(
    registry: Registry, plan: Plan, architecture: str, ok: bool
) -> None:
    data = registry.manifests["you/app", "v1"][1]
    entry = Descriptor(
        spec.MANIFEST, spec.digest_of(data), len(data), platform=spec.Platform("linux", architecture)
    )
    index = {"schemaVersion": 2, "mediaType": spec.INDEX, "manifests": [entry.to_json()]}
    registry.manifests["you/app", "v1"] = (spec.INDEX, spec.canonical_json(index))
    verdict = ask(registry, plan)
    assert verdict.ok is ok
    assert (verdict.digest == entry.digest) is ok


STRAYS = {
    "annotations": {"a": "b"},
    "subject": {"x": 1},
    "data": "eA==",
    "urls": ["x"],
    "artifactType": "x/y",
}


@pytest.mark.parametrize("where", ["manifest", "config", "layers"])
@pytest.mark.parametrize("key", [*STRAYS, "platform", "Layers", "manifests"])
def test_what_a_manifest_says_beyond_its_layers_is_found(
    registry: Registry, plan: Plan, where: str, key: str
) -> None:
    document = json.loads(registry.manifests["you/app", "v1"][1])
    place = {"manifest": document, "config": document["config"], "layers": document["layers"][5]}[where]
    place[key] = STRAYS.get(key, {"os": "linux", "architecture": "amd64"})
    if (where, key) == ("manifest", "Layers"):
        del document["layers"]
    registry.manifests["you/app", "v1"] = (spec.MANIFEST, spec.canonical_json(document))
    found = ask(registry, plan).findings
    assert any(re.search(f"{key}'?[: ].*; podkiln writes none", each) for each in found), found


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"annotations": {"a": "b"}}, "index has 'annotations'"),
        ({"subject": {}}, "index has 'subject'"),
        ({"manifests": ({"annotations": {"a": "b"}},)}, "index's manifest 0 has 'annotations'"),
        ({"manifests": ({"urls": ["x"]},)}, "index's manifest 0 has 'urls'"),
        ({"manifests": ({"size": 1},)}, "index lists its manifest with another size or type"),
        (
            {"manifests": ({"platform": {"os": "linux", "architecture": "amd64", "variant": "v9"}},)},
            "'variant'",
        ),
        ({"manifests": ({}, {"digest": WRONG})}, "index of 2 manifests; podkiln makes one image"),
    ],
)
def test_what_an_index_says_beyond_one_image_is_found(
    registry: Registry, plan: Plan, change: dict[str, Any], wanted: str
) -> None:
    data = registry.manifests["you/app", "v1"][1]
    entry = Descriptor(
        spec.MANIFEST, spec.digest_of(data), len(data), platform=spec.Platform("linux", "amd64")
    )
    entries = [{**entry.to_json(), **each} for each in change.get("manifests", ({},))]
    index = {"schemaVersion": 2, "mediaType": spec.INDEX, **change, "manifests": entries}
    registry.manifests["you/app", "v1"] = (spec.INDEX, spec.canonical_json(index))
    (found,) = ask(registry, plan).findings
    assert wanted in found


SAYS_NOTHING: list[dict[str, Any]] = [
    {"annotations": {}},
    {"manifests": ({"annotations": {}},)},
    {"manifests": ({"annotations": None},)},
    {"manifests": ({"platform": None},)},
    {"manifests": ({"platform": {"os": "linux", "architecture": "amd64", "variant": ""}},)},
]


@pytest.mark.parametrize("change", SAYS_NOTHING)
def test_what_an_index_leaves_empty_is_right(registry: Registry, plan: Plan, change: dict[str, Any]) -> None:
    data = registry.manifests["you/app", "v1"][1]
    entry = Descriptor(
        spec.MANIFEST, spec.digest_of(data), len(data), platform=spec.Platform("linux", "amd64")
    )
    entries = [{**entry.to_json(), **each} for each in change.get("manifests", ({},))]
    index = {"schemaVersion": 2, "mediaType": spec.INDEX, **change, "manifests": entries}
    registry.manifests["you/app", "v1"] = (spec.INDEX, spec.canonical_json(index))
    assert ask(registry, plan).findings == ()


@pytest.mark.parametrize(
    ("key", "value"),
    [("Annotations", None), ("Platform", None), ("variant", None), ("annotations", {"a": "b"})],
)
def test_what_an_index_leaves_empty_under_another_key_is_found(
    registry: Registry, plan: Plan, key: str, value: Any
) -> None:
    data = registry.manifests["you/app", "v1"][1]
    entry = Descriptor(spec.MANIFEST, spec.digest_of(data), len(data))
    index = {"schemaVersion": 2, "mediaType": spec.INDEX, "manifests": [{**entry.to_json(), key: value}]}
    registry.manifests["you/app", "v1"] = (spec.INDEX, spec.canonical_json(index))
    (found,) = ask(registry, plan).findings
    assert f"index's manifest 0 has {key!r}" in found


def test_a_registry_that_names_another_digest_to_engines_is_found(registry: Registry, plan: Plan) -> None:
    """They ask with HEAD, and pull the digest that they are told."""
    media_type, data = registry.manifests["you/app", "v1"]
    registry.before["you/app", "v1"] = (media_type, data + b" ")
    registry.faults = [Fault("stale", "HEAD", "/manifests/")]
    (found,) = ask(registry, plan).findings
    assert f"names the digest {spec.digest_of(data + b' ')} in answer to HEAD" in found


def test_a_registry_that_names_another_type_to_engines_is_found(registry: Registry, plan: Plan) -> None:
    registry.before["you/app", "v1"] = ("text/plain", registry.manifests["you/app", "v1"][1])
    registry.faults = [Fault("stale", "HEAD", "/manifests/")]
    (found,) = ask(registry, plan).findings
    assert "names the type 'text/plain' in answer to HEAD" in found


@pytest.mark.parametrize("kind", ["text/plain", spec.DOCKER_MANIFEST])
def test_a_manifest_of_another_type_than_its_header_says_is_damaged(
    registry: Registry, plan: Plan, kind: str
) -> None:
    registry.manifests["you/app", "v1"] = (kind, registry.manifests["you/app", "v1"][1])
    with pytest.raises(IntegrityError, match=re.escape(f"with the Content-Type '{kind}', but it says that")):
        ask(registry, plan)


def test_a_blob_with_two_sizes_is_found(registry: Registry, plan: Plan) -> None:
    """Whichever of them the registry has, and whichever comes first."""
    document = json.loads(registry.manifests["you/app", "v1"][1])
    twice = document["layers"][5]
    for at, size in ((5, twice["size"] + 1), (6, twice["size"])):
        document["layers"][at] = {**twice, "size": size}
    for layers in (document["layers"], document["layers"][:5] + document["layers"][:4:-1]):
        changed = spec.canonical_json({**document, "layers": layers})
        registry.manifests["you/app", "v1"] = (spec.MANIFEST, changed)
        found = ask(registry, plan).findings
        assert any(f"{twice['digest']} is listed with " in each for each in found), found


def test_a_tag_that_is_not_there_is_the_registrys_own_no(registry: Registry, plan: Plan) -> None:
    with pytest.raises(RegistryError, match="read manifest v2 of you/app"):
        ask(registry, plan, tag="v2")


def test_deep_hashes_every_file_even_over_a_bad_line(registry: Registry, plan: Plan) -> None:
    registry.faults = [Fault("torn", "GET", LAYERS[A.recipe], after=700)]
    assert ask(registry, plan, deep=True).ok
    # The config, two layers of weights, the torn one, sixteen of the runtime, podkiln's own once more.
    assert len(registry.asked("GET", "/blobs/")) == 25


def place_of(bundle: WeightLayerSpec, number: int) -> int:
    """Return where the content of a file begins in its layer."""
    return [segment.start for segment in bundle.layout.segments if segment.entry][number]


@pytest.mark.parametrize(
    ("at", "wanted"),
    [
        (place_of(B, 1), "opt/models/vae/b.json has the sha256"),
        (place_of(B, 0) - 1, r"sdxl \(2 files\) differs from what is packed here"),
        (B.size - 1, r"sdxl \(2 files\) differs from what is packed here"),
    ],
)
def test_deep_finds_a_byte_that_storage_has_changed(
    registry: Registry, plan: Plan, at: int, wanted: str
) -> None:
    data = content(B)
    data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    registry.blobs["you/app", LAYERS[B.recipe]] = data
    assert ask(registry, plan).ok
    layer_, inside = ask(registry, plan, deep=True).findings
    assert f"hashes to {spec.digest_of(data)}, not {LAYERS[B.recipe]}" in layer_
    assert re.search(wanted, inside)


def replace_layer(registry: Registry, number: int, tar: bytes) -> None:
    """Put another tar in the place of a layer, counted from the top; all documents agree with it."""
    manifest = Manifest.parse(registry.manifests["you/app", "v1"][1], "x")
    blob = runtimes.Blob.gzip(tar)
    config = json.loads(registry.blobs["you/app", manifest.config.digest])
    config["rootfs"]["diff_ids"][-number] = blob.diff_id
    layers = list(manifest.layers)
    layers[-number] = Descriptor(blob.media_type, spec.digest_of(blob.data), len(blob.data))
    data = spec.canonical_json(config)
    named = Descriptor(spec.CONFIG, spec.digest_of(data), len(data))
    registry.blobs["you/app", named.digest] = data
    registry.blobs["you/app", layers[-number].digest] = blob.data
    made = replace(manifest, config=named, layers=tuple(layers)).encode()
    for name in ("v1", spec.digest_of(made)):
        registry.manifests["you/app", name] = (spec.MANIFEST, made)


def altered(tar: bytes, change: Callable[[tarfile.TarInfo, bytes], bytes | None]) -> bytes:
    """Return a tar with each member changed: other content, or None for one that goes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(tar)) as before, tarfile.open(fileobj=out, mode="w") as after:
        for member in before:
            file = before.extractfile(member)
            content = change(member, file.read() if file else b"")
            if content is not None:
                member.size = len(content)
                after.addfile(member, io.BytesIO(content))
    return out.getvalue()


def edited(name: str, /, **values: Any) -> Callable[[tarfile.TarInfo, bytes], bytes]:
    """Change one file: its content, or what its header says."""

    def change(member: tarfile.TarInfo, content: bytes) -> bytes:
        if member.name == name:
            for key, value in values.items():
                setattr(member, key, value)
            return content if values else content + b"# more"
        return content

    return change


# podkiln's own layers from the top: the WORKDIR, bytecode, start.sh, commands, code.
@pytest.mark.parametrize(
    ("number", "change", "says"),
    [
        (5, edited("opt/podkiln/__main__.py"), r"/opt/podkiln/__main__\.py: size \d+ -> \d+ bytes, content"),
        (5, edited("opt/podkiln/flags.json"), r"/opt/podkiln/flags\.json: size"),
        (5, edited("opt/podkiln/extra_model_paths.yaml"), r"/opt/podkiln/extra_model_paths\.yaml: size"),
        (5, edited("opt/podkiln/manifest.json"), r"/opt/podkiln/manifest\.json: size"),
        (5, edited("opt/podkiln", mode=0o777), r"/opt/podkiln: mode 0777 -> 0755"),
        (5, edited("opt/podkiln/__main__.py", uid=1), r"__main__\.py: owner 1:0 -> 0:0"),
        (4, edited("usr/local/bin/podkiln-fetch"), r"/usr/local/bin/podkiln-fetch: size"),
        (
            4,
            edited("usr/local/bin/podkiln-fetch", name="usr/local/bin/python3"),
            "python3: only in the registry",
        ),
        (3, edited("start.sh"), r"/start\.sh: size"),
        (3, edited("start.sh", mode=0o700), r"/start\.sh: mode 0700 -> 0755"),
        (3, lambda *_: None, r"/start\.sh: only in what is rendered"),
        (
            2,
            edited("opt/podkiln/__pycache__/__main__.cpython-313.pyc", name="opt/x.pyc"),
            "only in the registry",
        ),
        (1, "start.sh", r"/start\.sh: only in the registry"),
        (2, "opt/podkiln/__main__.py", r"/opt/podkiln/__main__\.py: only in the registry"),
    ],
)
def test_deep_names_the_file_of_podkilns_own_layers_that_is_not_what_is_rendered(
    number: int, change: Any, says: str, registry: Registry, plan: Plan, runtime: Runtime
) -> None:
    """Without a memory of any push: what stands there is known from variant and lock."""
    tar = gzip.decompress(runtime.layers[-number].data)
    replace_layer(
        registry, number, layer_of(**{change: "x"}) if isinstance(change, str) else altered(tar, change)
    )
    assert ask(registry, plan).ok
    (found,) = ask(registry, plan, deep=True).findings
    assert re.search(rf"^Its layer \d+ .* is not what is rendered; .*{says}", found), found


def test_two_layers_of_podkilns_own_that_changed_places_are_found(
    registry: Registry, plan: Plan, runtime: Runtime
) -> None:
    for number, other in ((3, 4), (4, 3)):
        replace_layer(registry, number, gzip.decompress(runtime.layers[-other].data))
    first, second = ask(registry, plan, deep=True).findings
    assert "/start.sh: only in the registry" in first
    assert "/start.sh: only in what is rendered" in second
