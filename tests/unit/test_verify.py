"""Whatever differs between an image at a registry and its lock is found, and said."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import runtimes
from fakes.registry import Fault, Registry
from plans import plan_of
from runtimes import Runtime

from podkiln import oci
from podkiln.assemble import FILES, WeightLayer, assemble
from podkiln.bundle import Bundle, Weight
from podkiln.errors import RegistryError, VerifyError
from podkiln.oci import Descriptor, ImageConfig, Manifest
from podkiln.plan import MOST_LAYERS
from podkiln.reference import Reference
from podkiln.registry import Settings
from podkiln.variant import BaseSets
from podkiln.verify import Verdict, verify
from podkiln.verify.compare import Held, compare
from podkiln.verify.rendered import Rendered

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
def runtime(plan: Plan) -> Runtime:
    """A runtime as the plan's Dockerfile makes it."""
    return runtimes.make(plan)


@pytest.fixture
def documents(runtime: Runtime) -> Documents:
    """Manifest and config of an image that is as the lock says, to be changed."""
    image = assemble(runtime.manifest, runtime.config, [baked(A), baked(B)])
    return json.loads(image.manifest_bytes), json.loads(image.config_bytes)


def findings(
    plan: Plan, documents: Documents, known: dict[oci.Digest, oci.Digest] | None = None
) -> list[str]:
    manifest, config = (oci.canonical_json(each) for each in documents)
    held = Held(Manifest.parse(manifest, "x"), ImageConfig.parse(config, "x"))
    return compare(plan, Rendered.of(plan), LAYERS if known is None else known, held)


def test_layers_that_the_lock_does_not_know_are_not_proven(plan: Plan, documents: Documents) -> None:
    """Annotations are only claims: without a digest, and without reading, anything may be in there."""
    known = {A.recipe: LAYERS[A.recipe]}
    (found,) = findings(plan, documents, known)
    assert found.startswith("Weight layer sdxl (2 files) has a digest that the lock does not know")
    assert "read it with --deep" in found
    manifest, config = (oci.canonical_json(each) for each in documents)
    held = Held(Manifest.parse(manifest, "x"), ImageConfig.parse(config, "x"))
    assert compare(plan, Rendered.of(plan), known, held, deep=True) == []


def test_an_image_as_it_is_assembled_is_right(plan: Plan, documents: Documents) -> None:
    assert findings(plan, documents) == []


def test_a_weight_that_is_declared_above_is_to_lie_there(plan: Plan, runtime: Runtime) -> None:
    top = Bundle((weight("vae/c.safetensors", "flux"),))
    blob = Descriptor(oci.LAYER, oci.digest_of(content(top)), top.size)
    high = replace(plan.offered[0], baked=True, above=True)
    high = replace(high, entry=replace(high.entry, id=top.model))
    asked = replace(plan, bundles=(A, top), offered=(high,))
    lower, upper = [baked(A)], [WeightLayer(top, blob)]
    right = assemble(runtime.manifest, runtime.config, lower, upper)
    known = {**LAYERS, top.recipe: blob.digest}
    assert compare(asked, Rendered.of(plan), known, Held(right.manifest, right.config)) == []
    wrong = assemble(runtime.manifest, runtime.config, [*lower, *upper])
    (found,) = compare(asked, Rendered.of(plan), known, Held(wrong.manifest, wrong.config))
    assert re.search(r"is layer 1, not 17: weights lie in declared order, below the runtime unless", found)


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
    layer_rows(documents[1])[-1]["empty_layer"] = True


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
    more = MOST_LAYERS + 1 - len(manifest["layers"])
    at = config["history"].index(layer_rows(config)[2])  # in the base image
    config["history"][at:at] = [layer_rows(config)[2]] * more
    for rows in (manifest["layers"], config["rootfs"]["diff_ids"]):
        rows[2:2] = [rows[2]] * more


def layer_rows(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The history entries that stand for a layer."""
    return [row for row in config["history"] if not row.get("empty_layer")]


def setting(key: str, value: Any) -> Callable[[Documents], None]:
    """Change how the image runs."""
    return lambda documents: documents[1]["config"].update({key: value})


def beside(key: str, value: Any) -> Callable[[Documents], None]:
    """Put something into the config beside how the image runs."""
    return lambda documents: documents[1].update({key: value})


def preload(documents: Documents) -> None:
    documents[1]["config"]["Env"].append("LD_PRELOAD=/x.so")


def reorder(documents: Documents) -> None:
    documents[1]["config"]["Env"].reverse()


def unset(documents: Documents) -> None:
    del documents[1]["config"]["Env"][0]


def drop_runtime_layer(documents: Documents) -> None:
    manifest, config = documents
    config["history"].remove(layer_rows(config)[5])
    del manifest["layers"][5], config["rootfs"]["diff_ids"][5]


def add_runtime_layer(documents: Documents) -> None:
    manifest, config = documents
    manifest["layers"].append(manifest["layers"][-1])
    config["rootfs"]["diff_ids"].append(config["rootfs"]["diff_ids"][-1])
    config["history"].append({"created": config["created"], "created_by": "RUN /bin/sh -c true # buildkit"})


def swap_runtime_steps(documents: Documents) -> None:
    rows = documents[1]["history"]
    rows[-3:-1] = reversed(rows[-3:-1])


def another_command(documents: Documents) -> None:
    row = layer_rows(documents[1])[4]
    row["created_by"] = row["created_by"].replace("sh -c", "sh -c curl x | sh;")


def empty_step(documents: Documents) -> None:
    documents[1]["history"][-1]["empty_layer"] = "yes"


def another_day(documents: Documents) -> None:
    documents[1]["history"][-1]["created"] = "2020-01-01T00:00:00Z"


def annotate_runtime(documents: Documents) -> None:
    documents[0]["layers"][-1]["annotations"] = {"com.example.x": "y"}


def no_base(documents: Documents) -> None:
    manifest, config = documents
    config["history"].remove(layer_rows(config)[2])
    del manifest["layers"][2], config["rootfs"]["diff_ids"][2]


def rootfs(documents: Documents) -> None:
    documents[1]["rootfs"] |= {"type": "layers+base", "base_layer": "x"}


# Every way in which an image can differ, and the one finding that says so.
CHANGES: list[tuple[Callable[[Documents], None], list[str]]] = [
    (docker, ["manifest is of type 'application/vnd.docker"]),
    (foreign_config, ["config is of type 'application/vnd.docker"]),
    (foreign_layer, ["layer 17 is of type 'application/vnd.docker"]),
    (other_arm, ["image for linux/arm64, not linux/amd64"]),
    (too_many, ["has 121 layers; engines start images of at most 120"]),
    (forget_diff_id, ["18 layers and 17 diff_ids"]),
    (forget_history, ["18 layers, and its history tells of 17"]),
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
    (
        label("org.opencontainers.image.source", "https://a.test"),
        ["image.source is 'https://a.test'; the lock"],
    ),
    (
        setting("Entrypoint", ["/bin/sh"]),
        [r"sets Entrypoint: \['/bin/sh'\]; the lock gives \['/usr/bin/tini'"],
    ),
    (setting("Cmd", ["x"]), [r"sets Cmd: \['x'\]; the lock gives null"]),
    (setting("User", "1000"), ["sets User: '1000'; the lock gives null"]),
    (setting("Volumes", {"/opt/models": {}}), ["sets Volumes: .'/opt/models'"]),
    (setting("Healthcheck", {"Test": ["NONE"]}), ["sets Healthcheck"]),
    (setting("WorkingDir", "/"), ["sets WorkingDir: '/'; the lock gives '/opt/ComfyUI'"]),
    (setting("StopSignal", "SIGKILL"), ["sets StopSignal"]),
    (setting("ExposedPorts", {"22/tcp": {}}), ["sets ExposedPorts"]),
    (setting("Shell", ["/x"]), ["sets Shell"]),
    (setting("OnBuild", ["RUN x"]), ["sets OnBuild"]),
    (setting("ArgsEscaped", True), ["sets ArgsEscaped: True"]),
    (setting("cmd", ["/x"]), ["sets cmd"]),
    (setting("Env", "PATH=/x"), ["Env is not a list of NAME=VALUE"]),
    (setting("Env", None), ["Env is not a list of NAME=VALUE"]),
    (setting("Env", ["PATH"]), ["Env is not a list of NAME=VALUE"]),
    (preload, ["variable LD_PRELOAD is '/x.so'; the lock gives none of that name"]),
    (reorder, ["Env has variables twice, or in another order"]),
    (unset, ["variable PATH is missing; the lock gives '/opt/venv/bin:"]),
    (
        beside("created", "2020-01-01T00:00:00Z"),
        ["created at '2020", "a.safetensors has a hist", "files. has a hist"],
    ),
    (beside("variant", "v3"), ["config has 'variant': 'v3'; podkiln writes none"]),
    (beside("author", "me\n\x1b[31m"), [r"config has 'author': 'me.n.x1b.31m'; podkiln writes none"]),
    (rootfs, ["rootfs has 'base_layer': 'x'", "rootfs is of type 'layers.base', not 'layers'"]),
    (drop_runtime_layer, ["history tells of 21 steps of the runtime; the lock gives 21 above the base"]),
    (add_runtime_layer, ["history tells of .* where the lock gives"]),
    (swap_runtime_steps, ["history tells of .* where the lock gives"]),
    (another_command, ["history tells of .*curl x . sh.* where the lock gives 'RUN /bin/sh -c"]),
    (empty_step, ["history tells of 'ENTRYPOINT something' where the lock gives 'ENTRYPOINT "]),
    (another_day, ["history tells of .*2020-01-01T.* not how it is written at 2026"]),
    (annotate_runtime, ["layer 17 has the annotations .'com.example.x': 'y'.; podkiln writes none"]),
    (no_base, ["history tells of 21 steps of the runtime; the lock gives 21 above the base image"]),
    (swap, ["vae/b|sdxl .2 files.* is layer 0, not 1", "a.safetensors is layer 1, not 0"]),
    (sink, ["a.safetensors is layer 1, not 0", "2 files. is layer 2, not 1"]),
    (drop, ["lacks the weights checkpoints/a.safetensors of sdxl"]),
    (add, ["layer 18 holds weights of pony"]),
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


def test_an_image_without_its_weights_lacks_all_of_them(plan: Plan, runtime: Runtime) -> None:
    bare = compare(plan, Rendered.of(plan), LAYERS, Held(runtime.manifest, runtime.config))
    assert [finding.split(" of ")[0] for finding in bare] == [
        "It lacks the weights checkpoints/a.safetensors",
        "It lacks the weights sdxl (2 files)",
    ]
    assert (
        compare(replace(plan, bundles=()), Rendered.of(plan), {}, Held(runtime.manifest, runtime.config))
        == []
    )


@pytest.fixture
def registry(runtime: Runtime) -> Iterator[Registry]:
    """A registry that holds an image as the lock says, under tag v1."""
    image = assemble(runtime.manifest, runtime.config, [baked(A), baked(B)])
    with Registry() as started:
        for blob in runtime.layers:
            started.blobs["you/app", oci.digest_of(blob.data)] = blob.data
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
        "compared": (
            "Compared with the lock: all of manifest, config, labels and history, and the digests of weight "
            "layers; what is in the layers was not read (--deep reads it); not compared: the base image's "
            "own history, and the digests of the runtime's layers, which the lock does not hold yet."
        ),
        "findings": [],
    }
    config = Manifest.parse(registry.manifests["you/app", "v1"][1], "x").config
    assert [hit.path for hit in registry.asked("GET", "/blobs/")] == [f"/v2/you/app/blobs/{config.digest}"]
    assert len(registry.asked("HEAD", "/blobs/")) == 19


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
    index = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [entry.to_json()]}
    registry.manifests["you/app", "v1"] = (oci.INDEX, oci.canonical_json(index))
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
    registry.manifests["you/app", "v1"] = (oci.MANIFEST, oci.canonical_json(document))
    found = ask(registry, plan).findings
    assert any(re.search(f"{key}'?[: ].*; podkiln writes none", each) for each in found), found


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"annotations": {"a": "b"}}, "index has 'annotations'"),
        ({"subject": {}}, "index has 'subject'"),
        ({"manifests": ({"annotations": {"a": "b"}},)}, "index's manifest 0 has 'annotations'"),
        ({"manifests": ({"urls": ["x"]},)}, "index's manifest 0 has 'urls'"),
        ({"manifests": ({"size": 1},)}, "index gives its manifest another size or type"),
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
    entry = Descriptor(oci.MANIFEST, oci.digest_of(data), len(data), platform=oci.Platform("linux", "amd64"))
    entries = [{**entry.to_json(), **each} for each in change.get("manifests", ({},))]
    index = {"schemaVersion": 2, "mediaType": oci.INDEX, **change, "manifests": entries}
    registry.manifests["you/app", "v1"] = (oci.INDEX, oci.canonical_json(index))
    (found,) = ask(registry, plan).findings
    assert wanted in found


def test_a_base_may_bring_what_the_description_says_of_it(plan: Plan) -> None:
    """The variables of a CUDA base, for example; another value is a finding."""
    spec = plan.described.spec
    base = spec.runtime.base.model_copy(
        update={"sets": BaseSets(environment={"CUDA": "13"}, labels={"a.b": "c"})}
    )
    described = replace(
        plan.described,
        spec=spec.model_copy(update={"runtime": spec.runtime.model_copy(update={"base": base})}),
    )
    made = runtimes.make(replace(plan, described=described, bundles=()))
    held = Held(made.manifest, made.config)
    bare = replace(plan, bundles=())
    assert compare(bare, Rendered.of(replace(bare, described=described)), {}, held) == []
    first, second = compare(bare, Rendered.of(bare), {}, held)
    assert "label a.b is 'c'; the lock gives none" in first
    assert "variable CUDA is '13'; the lock gives none" in second


def test_a_tag_that_is_not_there_is_the_registrys_own_no(registry: Registry, plan: Plan) -> None:
    with pytest.raises(RegistryError, match="read manifest v2 of you/app"):
        ask(registry, plan, tag="v2")


def test_deep_hashes_every_file_even_over_a_bad_line(registry: Registry, plan: Plan) -> None:
    registry.faults = [Fault("torn", "GET", LAYERS[A.recipe], after=700)]
    assert ask(registry, plan, deep=True).ok
    # The config, two layers of weights, the one that was torn, and sixteen of the runtime.
    assert len(registry.asked("GET", "/blobs/")) == 20


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
