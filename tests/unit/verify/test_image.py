"""Whatever differs between an image at a registry and its lock is found, and said."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import runtimes
from apt_locks import with_apt
from plans import plan_of
from runtimes import Runtime
from small_weights import BUNDLES, LAYERS, A, B, baked, content, weight

from podkiln.config.runtime import BaseSets
from podkiln.errors import IntegrityError
from podkiln.lock.runtimes import OwnLayers, PushedLayers, RememberedRuntime, RuntimeLayer
from podkiln.oci import spec as oci
from podkiln.oci.spec import Descriptor, ImageConfig, Manifest
from podkiln.plan.plan import MAX_LAYERS
from podkiln.plan.weight_layers import WeightLayerSpec
from podkiln.render.image_config import RenderedConfig
from podkiln.verify.compare import RemoteImage, compare
from podkiln.weights.assemble import FILES, WeightLayer, assemble

if TYPE_CHECKING:
    from collections.abc import Callable

    from podkiln.plan.plan import Plan

Documents = tuple[dict[str, Any], dict[str, Any]]
WRONG = "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def plan() -> Plan:
    """The plan of a shipped variant, with two weight layers of a few bytes."""
    return replace(with_apt(plan_of("lazy", nodes=False)), bundles=BUNDLES)


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
    held = RemoteImage(Manifest.parse(manifest, "x"), ImageConfig.parse(config, "x"))
    return compare(plan, RenderedConfig.of(plan), LAYERS if known is None else known, held)


def test_layers_that_the_lock_does_not_know_are_not_proven(plan: Plan, documents: Documents) -> None:
    """Annotations are only claims: without a digest, and without reading, anything may be in there."""
    known = {A.recipe: LAYERS[A.recipe]}
    (found,) = findings(plan, documents, known)
    assert found.startswith("Weight layer sdxl (2 files) has a digest that the lock does not know")
    assert "read it with --deep" in found
    manifest, config = (oci.canonical_json(each) for each in documents)
    held = RemoteImage(Manifest.parse(manifest, "x"), ImageConfig.parse(config, "x"))
    assert compare(plan, RenderedConfig.of(plan), known, held, deep=True) == []


def test_layers_without_weights_are_those_that_the_lock_remembers(plan: Plan, runtime: Runtime) -> None:
    """Those of the runtime, podkiln's own above them, and what the history tells of the base."""
    plan, rendered = replace(plan, bundles=()), RenderedConfig.of(plan)
    layers = [replace(each, media_type=oci.LAYER_ZSTD) for each in runtime.manifest.layers]
    image = RemoteImage(replace(runtime.manifest, layers=tuple(layers)), runtime.config)
    known = [
        RuntimeLayer(digest=each.digest, size=each.size, diff_id=diff_id)
        for each, diff_id in zip(layers, runtime.config.diff_ids, strict=True)
    ]
    below = len(known) - rendered.layers_above
    base = tuple(dict(row) for row in runtime.config.history[: -len(rendered.steps)])
    other = oci.digest_of(b"another layer")

    def found(wanted: list[RuntimeLayer], held: RemoteImage = image, **more: Any) -> list[str]:
        values = {"layers": tuple(wanted[:below]), "base": 1, "settings": {}, "history": base, **more}
        remembered = PushedLayers(
            RememberedRuntime(name="lazy", **values), OwnLayers(name="lazy", layers=tuple(wanted[below:]))
        )
        return compare(plan, rendered, {}, held, remembered=remembered)

    assert found(known) == []
    for number in (below - 1, below, len(known) - 1):

        def changed(number: int = number, **values: Any) -> list[str]:
            one = known[number].model_copy(update=values)
            return found([*known[:number], one, *known[number + 1 :]])

        assert changed(digest=other) == [
            f"Its layer {number} is {layers[number].digest}; the lock remembers {other} of the last push."
        ]
        assert "is listed with" in changed(size=1)[0]
        assert f"it unpacks to {other}." in changed(diff_id=other)[0]
    plain = replace(image, manifest=replace(image.manifest, layers=runtime.manifest.layers))
    assert len(found(known, plain)) == len(known)
    assert "the lock remembers 1 of the last push" in found(known, layers=tuple(known[:1]))[0]
    (found_of_base,) = found(known, history=(*base, {"created_by": "more", "empty_layer": True}))
    assert found_of_base.startswith("What its history tells of the base image, in ")


def test_an_image_as_it_is_assembled_is_right(plan: Plan, documents: Documents) -> None:
    assert findings(plan, documents) == []


def test_a_weight_that_is_declared_above_is_to_lie_there(plan: Plan, runtime: Runtime) -> None:
    top = WeightLayerSpec((weight("vae/c.safetensors", "flux"),))
    blob = Descriptor(oci.LAYER, oci.digest_of(content(top)), top.size)
    high = replace(plan.offered[0], baked=True, above=True)
    high = replace(high, entry=replace(high.entry, id=top.model))
    asked = replace(plan, bundles=(A, top), offered=(high,))
    lower, upper = [baked(A)], [WeightLayer(top, blob)]
    right = assemble(runtime.manifest, runtime.config, lower, upper)
    known = {**LAYERS, top.recipe: blob.digest}
    assert compare(asked, RenderedConfig.of(plan), known, RemoteImage(right.manifest, right.config)) == []
    wrong = assemble(runtime.manifest, runtime.config, [*lower, *upper])
    (found,) = compare(asked, RenderedConfig.of(plan), known, RemoteImage(wrong.manifest, wrong.config))
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
    stranger = WeightLayerSpec((weight("loras/c.safetensors", "pony"),))
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
    more = MAX_LAYERS + 1 - len(manifest["layers"])
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
    documents[1]["history"][-1]["empty_layer"] = False
    layer_rows(documents[1])[4]["empty_layer"] = True


def in_history(**values: Any) -> Callable[[Documents], None]:
    """Change the last entry of the history."""
    return lambda documents: documents[1]["history"][-1].update(values)


def weights_without_a_layer(documents: Documents) -> None:
    documents[1]["history"].insert(3, {"created_by": "podkiln bake pony: a file", "empty_layer": True})


def base_that_calls_itself_weights(documents: Documents) -> None:
    """As another layer of the base image, beside the one that is there."""
    manifest, config = documents
    for rows in (manifest["layers"], config["rootfs"]["diff_ids"]):
        rows.insert(3, rows[2])
    at = config["history"].index(layer_rows(config)[2])
    config["history"].insert(at + 1, {"created_by": "podkiln bake pony: a file"})


def another_algorithm(documents: Documents) -> None:
    documents[1]["rootfs"]["diff_ids"][2] = "sha512:" + "0" * 128


def another_day(documents: Documents) -> None:
    documents[1]["history"][-1]["created"] = "2020-01-01T00:00:00Z"


def other_case(documents: Documents) -> None:
    """Go's reader takes this for the key that it is not."""
    documents[1]["history"][2]["Empty_Layer"] = True


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
    (forget_history, ["18 layers, and its history lists 17"]),
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
    (setting("Cmd", ["x"]), [r"sets Cmd: \['x'\]; the lock gives nothing of that name"]),
    (setting("Cmd", None), ["sets Cmd: null; the lock gives nothing of that name"]),
    (setting("entrypoint", None), ["sets entrypoint: null; the lock gives nothing of that name"]),
    (setting("LABELS", None), ["sets LABELS: null; the lock gives nothing of that name"]),
    (setting("U\u017fer", None), ["sets U\u017fer: null; the lock gives nothing of that name"]),
    (beside("Config", None), ["config has 'Config': null; podkiln writes none"]),
    (setting("User", "1000"), ["sets User: '1000'; the lock gives nothing of that name"]),
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
    (drop_runtime_layer, ["history lists 21 steps of the runtime; the lock gives 21 above the base"]),
    (add_runtime_layer, ["history lists .* where the lock gives"]),
    (swap_runtime_steps, ["history lists .* where the lock gives"]),
    (another_command, ["history lists .*curl x . sh.* where the lock gives 'RUN /bin/sh -c"]),
    (empty_step, ["history gives 'RUN .* another end than the lock, or a layer, or none"]),
    (in_history(author="mallory"), ["history has 'ENTRYPOINT .* with an author or a comment: .*mallory"]),
    (in_history(comment="anything"), ["history has 'ENTRYPOINT .* with an author or a comment: .*anything"]),
    (weights_without_a_layer, ["history lists weights, 'podkiln bake pony: a file', that have no layer"]),
    (base_that_calls_itself_weights, ["history lists layer 3 as weights, 'podkiln bake pony"]),
    (another_algorithm, ["It names sha512:0000.*: engines unpack what is named by sha256 alone"]),
    (another_day, ["history lists .*2020-01-01T.* not how it is written at 2026"]),
    (other_case, ["history has an entry with more than is known of entries"]),
    (annotate_runtime, ["layer 17 has the annotations .'com.example.x': 'y'.; podkiln writes none"]),
    (no_base, ["history lists 21 steps of the runtime; the lock gives 21 above the base image"]),
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
    (
        layer(annotations={}),
        ["a.safetensors has no annotations. Its digest is that of the lock, so its files"],
    ),
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


def test_many_keys_that_say_nothing_hide_none_that_does(plan: Plan, documents: Documents) -> None:
    config = documents[1]["config"]
    config |= {f"A{number:02d}": None for number in range(40)}
    config |= {"Entrypoint": ["/bin/sh"], "WorkingDir": "/", "env": ["LD_PRELOAD=/x.so"], "User": "1"}
    found = findings(plan, documents)
    assert any("sets Entrypoint: ['/bin/sh']" in each for each in found)
    assert any("sets WorkingDir: '/'" in each for each in found)
    assert len(found) == 12


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("created", "yesterday"),
        ("created", {}),
        ("created", "2026-02-30T00:00:00Z"),
        ("created", "2026-02-03T00:00:00+24:00"),
        ("created_by", 7),
        ("author", ["x"]),
        ("comment", {}),
        ("empty_layer", "yes"),
        ("empty_layer", 1),
    ],
)
def test_a_history_that_engines_cannot_read_is_damaged(
    plan: Plan, documents: Documents, key: str, value: Any
) -> None:
    documents[1]["history"][2][key] = value
    with pytest.raises(IntegrityError, match=rf"x: history\[2\]: the field '{key}' is not"):
        findings(plan, documents)


@pytest.mark.parametrize("value", [None, "2026-02-03T04:05:06.123456789Z", "0001-01-01T00:00:00+01:30"])
def test_a_history_of_a_base_may_have_any_time(plan: Plan, documents: Documents, value: Any) -> None:
    layer_rows(documents[1])[2]["created"] = value
    assert findings(plan, documents) == []


def test_an_image_without_its_weights_lacks_all_of_them(plan: Plan, runtime: Runtime) -> None:
    bare = compare(plan, RenderedConfig.of(plan), LAYERS, RemoteImage(runtime.manifest, runtime.config))
    assert [finding.split(" of ")[0] for finding in bare] == [
        "It lacks the weights checkpoints/a.safetensors",
        "It lacks the weights sdxl (2 files)",
    ]
    assert (
        compare(
            replace(plan, bundles=()),
            RenderedConfig.of(plan),
            {},
            RemoteImage(runtime.manifest, runtime.config),
        )
        == []
    )


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
    held = RemoteImage(made.manifest, made.config)
    bare = replace(plan, bundles=())
    assert compare(bare, RenderedConfig.of(replace(bare, described=described)), {}, held) == []
    first, second = compare(bare, RenderedConfig.of(bare), {}, held)
    assert "label a.b is 'c'; the lock gives none" in first
    assert "variable CUDA is '13'; the lock gives none" in second


def test_an_image_whose_packages_nothing_names_is_not_right(plan: Plan) -> None:
    """It says so itself; or where it does not, the lock has none that it could be compared with."""
    bare = replace(plan_of("lazy", nodes=False), bundles=())
    runtime = runtimes.make(bare)
    held = RemoteImage(runtime.manifest, runtime.config)
    said = "Its apt packages are not locked: it was built on a base for which the lock had no index."
    assert compare(bare, RenderedConfig.of(bare), {}, held) == [said]
    locked = replace(plan, bundles=())
    assert compare(locked, RenderedConfig.of(locked), {}, held)[0].startswith("Its label io.podkiln.lock is ")
    assert said in compare(locked, RenderedConfig.of(locked), {}, held)
    claims = runtimes.make(locked)
    findings = compare(bare, RenderedConfig.of(bare), {}, RemoteImage(claims.manifest, claims.config))
    assert any(each.startswith("Its label io.podkiln.apt is 'sha256:") for each in findings)
    assert f"apt is not locked for {bare.base_digest}, so nothing says which" in findings[-1]
