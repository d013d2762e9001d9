"""Whatever differs between an image at a registry and its lock is found, and said."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from fakes.registry import Fault, Registry
from layouts import layer_of, make_layout
from plans import plan_of

from podkiln import layout, oci, render
from podkiln.assemble import FILES, WeightLayer, assemble
from podkiln.bundle import Bundle, Weight
from podkiln.errors import RegistryError, VerifyError
from podkiln.oci import Descriptor, ImageConfig, Manifest
from podkiln.plan import MOST_LAYERS
from podkiln.reference import Reference
from podkiln.registry import Settings
from podkiln.verify import Verdict, verify
from podkiln.verify.compare import Held, compare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podkiln.plan import Plan
    from podkiln.tarlayer import Entry

Documents = tuple[dict[str, Any], dict[str, Any]]
WRONG = "sha256:" + "0" * 64
REVISION = "c" * 40


def weight(name: str, model: str) -> Weight:
    """A file whose content is its own path."""
    path = f"opt/models/{name}".encode()
    return Weight(model, name, len(path), oci.digest_of(path)[7:], f"huggingface:o/r/{name}", REVISION, {})


def content(bundle: Bundle) -> bytes:
    """The layer of a bundle of such files."""

    def opened(entry: Entry, offset: int) -> Iterator[bytes]:
        yield entry.path.encode()[offset:]

    return b"".join(bundle.layout.chunks(opened))


A = Bundle((weight("checkpoints/a.safetensors", "sdxl"),))
B = Bundle((weight("vae/b.safetensors", "sdxl"), weight("vae/b.json", "sdxl")))
BUNDLES = (A, B)
LAYERS = {bundle.recipe: oci.digest_of(content(bundle)) for bundle in BUNDLES}


def baked(bundle: Bundle) -> WeightLayer:
    return WeightLayer(bundle, Descriptor(oci.LAYER, LAYERS[bundle.recipe], bundle.size))


@pytest.fixture(scope="module")
def plan() -> Plan:
    """The plan of a shipped variant, with two weight layers of a few bytes."""
    return replace(plan_of("lazy"), bundles=BUNDLES)


@pytest.fixture(scope="module")
def runtime(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> layout.Layout:
    """A runtime with the labels that the lock gives."""
    found = layout.read(make_layout(tmp_path_factory.mktemp("runtime"), layer_of(a="1"), layer_of(b="2")))
    document = {
        **found.config.document,
        "created": "2026-08-24T00:00:00Z",
        "config": {"Labels": render.labels(plan)},
    }
    return replace(found, config=ImageConfig.parse(oci.canonical_json(document), "x"))


@pytest.fixture
def documents(runtime: layout.Layout) -> Documents:
    """Manifest and config of an image that is as the lock says, to be changed."""
    image = assemble(runtime.manifest, runtime.config, [baked(A), baked(B)])
    return json.loads(image.manifest_bytes), json.loads(image.config_bytes)


def findings(
    plan: Plan, documents: Documents, known: dict[oci.Digest, oci.Digest] | None = None
) -> list[str]:
    manifest, config = (oci.canonical_json(each) for each in documents)
    held = Held(Manifest.parse(manifest, "x"), ImageConfig.parse(config, "x"))
    return compare(plan, LAYERS if known is None else known, held)


def test_layers_that_the_lock_does_not_know_are_not_proven(plan: Plan, documents: Documents) -> None:
    """Annotations are only claims: without a digest, and without reading, anything may be in there."""
    known = {A.recipe: LAYERS[A.recipe]}
    (found,) = findings(plan, documents, known)
    assert found.startswith("Weight layer sdxl (2 files) has a digest that the lock does not know")
    assert "read it with --deep" in found
    manifest, config = (oci.canonical_json(each) for each in documents)
    held = Held(Manifest.parse(manifest, "x"), ImageConfig.parse(config, "x"))
    assert compare(plan, known, held, deep=True) == []


def test_an_image_as_it_is_assembled_is_right(plan: Plan, documents: Documents) -> None:
    assert findings(plan, documents) == []


def test_a_weight_that_is_declared_above_is_to_lie_there(plan: Plan, runtime: layout.Layout) -> None:
    top = Bundle((weight("vae/c.safetensors", "flux"),))
    blob = Descriptor(oci.LAYER, oci.digest_of(content(top)), top.size)
    high = replace(plan.offered[0], baked=True, above=True)
    high = replace(high, entry=replace(high.entry, id=top.model))
    asked = replace(plan, bundles=(A, top), offered=(high,))
    lower, upper = [baked(A)], [WeightLayer(top, blob)]
    right = assemble(runtime.manifest, runtime.config, lower, upper)
    known = {**LAYERS, top.recipe: blob.digest}
    assert compare(asked, known, Held(right.manifest, right.config)) == []
    wrong = assemble(runtime.manifest, runtime.config, [*lower, *upper])
    (found,) = compare(asked, known, Held(wrong.manifest, wrong.config))
    assert re.search(r"is layer 1, not 3: weights lie in declared order, below the runtime unless", found)


def layer(**changes: Any) -> Callable[[Documents], None]:
    """Change the descriptor of the first weight layer."""
    return lambda documents: documents[0]["layers"][0].update(changes)


def label(name: str, value: str | None) -> Callable[[Documents], None]:
    """Change a label, or take it away."""

    def change(documents: Documents) -> None:
        labels = documents[1]["config"]["Labels"]
        labels.pop(name, None)
        if value is not None:
            labels[name] = value

    return change


def swap(documents: Documents) -> None:
    """Change the order of the weight layers."""
    _move(documents, 0, 1)


def sink(documents: Documents) -> None:
    """Put a layer of the runtime below the weights."""
    _move(documents, 2, 0)


def _move(documents: Documents, start: int, end: int) -> None:
    manifest, config = documents
    for rows in (manifest["layers"], config["rootfs"]["diff_ids"], config["history"]):
        rows.insert(end, rows.pop(start))


def drop(documents: Documents) -> None:
    """Leave the first weight layer out."""
    manifest, config = documents
    for rows in (manifest["layers"], config["rootfs"]["diff_ids"], config["history"]):
        del rows[0]


def add(documents: Documents) -> None:
    """Put a weight layer on top that nobody asked for."""
    manifest, config = documents
    stranger = Bundle((weight("loras/c.safetensors", "pony"),))
    blob = Descriptor(oci.LAYER, oci.digest_of(b"c"), stranger.size)
    manifest["layers"].append(WeightLayer(stranger, blob).descriptor.to_json())
    config["rootfs"]["diff_ids"].append(blob.digest)
    config["history"].append(WeightLayer(stranger, blob).history(config["created"]))


def diff_id(documents: Documents) -> None:
    documents[1]["rootfs"]["diff_ids"][1] = WRONG


def forget_diff_id(documents: Documents) -> None:
    del documents[1]["rootfs"]["diff_ids"][-1]


def forget_history(documents: Documents) -> None:
    documents[1]["history"][-1]["empty_layer"] = True


def retell(documents: Documents) -> None:
    documents[1]["history"][0]["created_by"] = "COPY weights"


def redate(documents: Documents) -> None:
    documents[1]["history"][0]["created"] = "2020-01-01T00:00:00Z"


def reannotate(documents: Documents) -> None:
    files = documents[0]["layers"][0]["annotations"]
    files[FILES] = files[FILES].replace(A.weights[0].sha256, "0" * 64)


def other_arm(documents: Documents) -> None:
    documents[1]["architecture"] = "arm64"


def docker(documents: Documents) -> None:
    documents[0]["mediaType"] = oci.DOCKER_MANIFEST


def foreign_config(documents: Documents) -> None:
    documents[0]["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"


def foreign_layer(documents: Documents) -> None:
    documents[0]["layers"][-1]["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def too_many(documents: Documents) -> None:
    manifest, config = documents
    for rows in (manifest["layers"], config["rootfs"]["diff_ids"], config["history"]):
        rows.extend([rows[-1]] * (MOST_LAYERS + 1 - len(rows)))


# Every way in which an image can differ, and the one finding that says so.
CHANGES: list[tuple[Callable[[Documents], None], list[str]]] = [
    (docker, ["manifest is of type application/vnd.docker"]),
    (foreign_config, ["config is of type application/vnd.docker"]),
    (foreign_layer, ["layer 3 is of type application/vnd.docker"]),
    (other_arm, ["image for linux/arm64, not linux/amd64"]),
    (too_many, ["has 121 layers; engines start images of at most 120"]),
    (forget_diff_id, ["4 layers and 3 diff_ids"]),
    (forget_history, ["4 layers, and its history tells of 3"]),
    (label("io.podkiln.variant", "baked"), ["label io.podkiln.variant is 'baked'; the lock gives 'lazy'"]),
    (label("io.podkiln.lock", WRONG), ["label io.podkiln.lock is 'sha256:0000"]),
    (label("io.podkiln.comfyui", None), ["label io.podkiln.comfyui is missing"]),
    (label("io.podkiln.cuda", "12.8"), ["label io.podkiln.cuda is '12.8'; the lock gives '13.0'"]),
    (label("org.opencontainers.image.base.digest", WRONG), ["base.digest is 'sha256:0000"]),
    (label("org.opencontainers.image.title", "x"), ["label org.opencontainers.image.title is 'x'"]),
    (label("org.opencontainers.image.version", None), ["image.version is missing"]),
    (
        label("io.podkiln.substituted", f"base={WRONG} comfyui=tree:1"),
        [f"substitute for base: {WRONG}", "substitute for comfyui: tree:1"],
    ),
    (label("io.podkiln.substituted", ""), ["io.podkiln.substituted is ''; the lock gives none of that name"]),
    (label("io.podkiln.more", "x"), ["label io.podkiln.more is 'x'; the lock gives none of that name"]),
    (label("org.opencontainers.image.source", "https://a.test"), []),  # whose it is, is nobody's concern
    (swap, ["vae/b|sdxl .2 files.* is layer 0, not 1", "a.safetensors is layer 1, not 0"]),
    (sink, ["a.safetensors is layer 1, not 0", "2 files. is layer 2, not 1"]),
    (drop, ["lacks the weights checkpoints/a.safetensors of sdxl"]),
    (add, ["layer 4 holds weights of pony"]),
    (layer(size=A.size + 512), ["a.safetensors has 10752 bytes; the lock gives 10240"]),
    (
        layer(digest=WRONG),
        ["a.safetensors has the digest sha256:0000", "digest sha256:0000.*another diff_id"],
    ),
    (layer(mediaType=oci.LAYER_ZSTD), ["weights are not compressed"]),
    (layer(annotations={}), ["a.safetensors has annotations"]),
    (reannotate, ["a.safetensors has annotations"]),
    (diff_id, [r"sdxl \(2 files\) has the digest .* another diff_id: sha256:0000"]),
    (retell, ["a.safetensors has a history .*'COPY weights'"]),
    (redate, ["a.safetensors has a history"]),
]


@pytest.mark.parametrize(("change", "wanted"), CHANGES)
def test_each_difference_is_found_and_nothing_else(
    plan: Plan, documents: Documents, change: Callable[[Documents], None], wanted: list[str]
) -> None:
    change(documents)
    found = findings(plan, documents)
    assert len(found) == len(wanted), found
    for pattern in wanted:
        assert any(re.search(pattern, each) for each in found), found


def test_an_image_without_its_weights_lacks_all_of_them(plan: Plan, runtime: layout.Layout) -> None:
    bare = compare(plan, LAYERS, Held(runtime.manifest, runtime.config))
    assert [finding.split(" of ")[0] for finding in bare] == [
        "It lacks the weights checkpoints/a.safetensors",
        "It lacks the weights sdxl (2 files)",
    ]
    assert compare(replace(plan, bundles=()), {}, Held(runtime.manifest, runtime.config)) == []


@pytest.fixture
def registry(runtime: layout.Layout) -> Iterator[Registry]:
    """A registry that holds an image as the lock says, under tag v1."""
    image = assemble(runtime.manifest, runtime.config, [baked(A), baked(B)])
    with Registry() as started:
        for blob in runtime.manifest.layers:
            started.blobs["you/app", blob.digest] = b"".join(runtime.chunks(blob))
        for bundle in BUNDLES:
            started.blobs["you/app", LAYERS[bundle.recipe]] = content(bundle)
        started.blobs["you/app", image.manifest.config.digest] = image.config_bytes
        for name in ("v1", image.descriptor.digest):
            started.manifests["you/app", name] = (oci.MANIFEST, image.manifest_bytes)
        yield started


def ask(registry: Registry, plan: Plan, *, deep: bool = False, tag: str = "v1") -> Verdict:
    settings = Settings(attempts=3, backoff=0.01, timeout=0.5, login=lambda _: None)
    reference = Reference.parse(f"{registry.host()}/you/app:{tag}")
    return verify(plan, LAYERS, reference, settings, deep=deep, on_progress=lambda *_: None)


def test_what_is_right_is_said_to_be_and_nothing_is_pulled(registry: Registry, plan: Plan) -> None:
    verdict = ask(registry, plan)
    verdict.require()
    assert verdict.as_json() == {
        "schema": 1,
        "image": f"{registry.host()}/you/app:v1",
        "digest": oci.digest_of(registry.manifests["you/app", "v1"][1]),
        "ok": True,
        "deep": False,
        "findings": [],
    }
    config = Manifest.parse(registry.manifests["you/app", "v1"][1], "x").config
    assert [hit.path for hit in registry.asked("GET", "/blobs/")] == [f"/v2/you/app/blobs/{config.digest}"]
    assert len(registry.asked("HEAD", "/blobs/")) == 5


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
    assert f"hashes to {oci.digest_of(damaged)}, not {config.digest}" in finding


@pytest.mark.parametrize(("architecture", "ok"), [("amd64", True), ("arm64", False)])
def test_of_an_index_the_image_for_gpu_pods_counts(
    registry: Registry, plan: Plan, architecture: str, ok: bool
) -> None:
    data = registry.manifests["you/app", "v1"][1]
    entry = Descriptor(
        oci.MANIFEST, oci.digest_of(data), len(data), platform=oci.Platform("linux", architecture)
    )
    unknown = replace(entry, digest=oci.Digest(WRONG), platform=oci.Platform("unknown", "unknown"))
    index = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [unknown.to_json(), entry.to_json()]}
    registry.manifests["you/app", "v1"] = (oci.INDEX, oci.canonical_json(index))
    verdict = ask(registry, plan)
    assert verdict.ok is ok
    assert (verdict.digest == entry.digest) is ok


def test_a_tag_that_is_not_there_is_the_registrys_own_no(registry: Registry, plan: Plan) -> None:
    with pytest.raises(RegistryError, match="read manifest v2 of you/app"):
        ask(registry, plan, tag="v2")


def test_deep_hashes_every_file_even_over_a_bad_line(registry: Registry, plan: Plan) -> None:
    registry.faults = [Fault("torn", "GET", LAYERS[A.recipe], after=700)]
    assert ask(registry, plan, deep=True).ok
    # The config, two layers of weights, the one that was torn, and two of the runtime.
    assert len(registry.asked("GET", "/blobs/")) == 6


def place_of(bundle: Bundle, number: int) -> int:
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
    assert f"hashes to {oci.digest_of(data)}, not {LAYERS[B.recipe]}" in layer_
    assert re.search(wanted, inside)
