"""What the command made: layouts that other tools take, honest reports, and nothing in them that leaks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from containers import docker
from images import BASE, ROOT, SHIPPED, TINY, Built, Image, build, podkiln

from podkiln.build import source_image
from podkiln.build.base_image import platform_here
from podkiln.oci import spec
from podkiln.plan.substitutes import Substitute
from podkiln.util import git_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podkiln.build.base_image import BaseLayout

pytestmark = pytest.mark.engine
MOST_LAYER_BYTES = 1_500_000_000


def names_in(layer: Path) -> Iterator[str]:
    """Yield the names in a zstd layer."""
    with (
        subprocess.Popen(["zstd", "-dc", layer], stdout=subprocess.PIPE) as unpacked,
        tarfile.open(fileobj=unpacked.stdout, mode="r|") as tar,
    ):
        for member in tar:
            yield member.name


def holders(folder: Path, needle: bytes) -> list[str]:
    """Return which files of a folder hold a text, layers looked into; a blob of many images counts once."""
    found = []
    paths = {path.name if "sha256" in path.parts else path: path for path in folder.rglob("*")}
    for path in filter(Path.is_file, paths.values()):
        data = path.read_bytes()
        if data[:4] == b"\x28\xb5\x2f\xfd":
            data = subprocess.run(["zstd", "-dc", path], capture_output=True, check=True).stdout
        elif data[:2] == b"\x1f\x8b":
            data = subprocess.run(["gzip", "-dc", path], capture_output=True, check=True).stdout
        if needle in data:
            found.append(str(path))
    return found


def test_skopeo_takes_the_layout(shipped: Image) -> None:
    """Its digest is the one that the report names."""
    argv = ["skopeo", "inspect", f"oci:{shipped.layout}"]
    seen = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    assert seen["Digest"] == shipped.digest
    assert seen["Labels"]["io.podkiln.variant"] == shipped.variant
    assert seen["Architecture"] == "amd64"


def test_the_report_names_the_layers_that_are_there(shipped: Image) -> None:
    report, manifest, config = shipped.report, shipped.manifest(), shipped.config()
    told = [(layer["digest"], layer["size"], layer["media_type"]) for layer in report["layers"]]
    there = [(layer["digest"], layer["size"], layer["mediaType"]) for layer in manifest["layers"]]
    assert told == there
    assert [layer["diff_id"] for layer in report["layers"]] == config["rootfs"]["diff_ids"]
    assert report["schema"] == 1
    assert report["pushed"] is True
    assert set(report["seconds"]) == {"render", "build", "layers", "load", "push"}
    assert all(shipped.blob(layer["digest"]).stat().st_size == layer["size"] for layer in report["layers"])


def test_the_report_lies_beside_the_image_too(shipped: Image) -> None:
    assert json.loads((shipped.layout.parent / "report.json").read_text()) == shipped.report


def test_the_manifest_is_plain_oci(shipped: Image) -> None:
    """One manifest, no provenance beside it; zstd layers."""
    index = json.loads((shipped.layout / "index.json").read_text())
    assert [entry["mediaType"] for entry in index["manifests"]] == [spec.MANIFEST]
    assert {layer["mediaType"] for layer in shipped.manifest()["layers"]} == {spec.LAYER_ZSTD}


def test_every_layer_has_its_history_entry(shipped: Image) -> None:
    config = shipped.config()
    made = [entry for entry in config["history"] if not entry.get("empty_layer")]
    assert len(made) == len(config["rootfs"]["diff_ids"]) == len(shipped.manifest()["layers"])


def test_no_layer_is_above_the_limit(shipped: Image) -> None:
    assert max(layer["size"] for layer in shipped.manifest()["layers"]) < MOST_LAYER_BYTES


def test_no_runtime_layer_touches_the_weights_place(built: Built) -> None:
    """A file or whiteout there would hide or drag along the weights that lie below."""
    layers = {
        layer["digest"]: image for image in built.images.values() for layer in image.manifest()["layers"]
    }
    for digest, image in layers.items():
        inside = [name for name in names_in(image.blob(digest)) if name.strip("./").startswith("opt/models")]
        assert not inside, f"{image.variant}, {digest}"


def test_variants_share_all_but_the_last_layers(built: Built) -> None:
    """A host that has one variant pulls only kilobytes for another."""
    layers = [
        [(layer["digest"], layer["size"]) for layer in built.images[name].manifest()["layers"]]
        for name in SHIPPED
    ]
    shared = set(layers[0]).intersection(*layers[1:])
    for own in layers:
        assert sum(size for digest, size in own if (digest, size) not in shared) < 1_000_000


def test_labels_say_what_was_substituted(shipped: Image) -> None:
    labels = shipped.config()["config"]["Labels"]
    actual = {name: each["actual"] for name, each in shipped.report["substituted"].items()}
    assert set(actual) == {"base", "comfyui", "requirements"}
    assert labels["io.podkiln.substituted"] == " ".join(
        f"{name}={actual[name]}" for name in shipped.report["substituted"]
    )
    assert labels["org.opencontainers.image.base.digest"].startswith("sha256:")


def test_what_baked_leaves_out_is_said(built: Built) -> None:
    report = built.images["baked"].report
    assert "sdxl-base" in report["left_out"]
    assert any("--no-weights leaves out" in note for note in report["notes"])
    assert "--no-weights leaves out" in built.log


@pytest.mark.smoke
def test_no_secret_is_left_anywhere(built: Built, canary: str) -> None:
    """The CA bundle was a build secret, and the tokens in the environment were nobody's business."""
    assert canary not in built.log
    assert holders(built.out, canary.encode()) == []


def test_two_builds_give_one_digest(
    built: Built, private_index: str, ca_bundle: Path, canary: str, tmp_path: Path
) -> None:
    """Without cache, from another clone, into another folder, under another umask, from another index."""
    clone = tmp_path / "elsewhere" / "clone"
    for name in _tracked():
        target = clone / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    (clone / ".venv").symlink_to(ROOT / ".venv")
    old = os.umask(0o077)
    try:
        again = build(
            ["lazy"],
            tmp_path / "out",
            *("--no-cache", "--python-index", private_index, "--ca-bundle", ca_bundle),
            root=clone,
            cwd=tmp_path,
        )
    finally:
        os.umask(old)
    assert again.images["lazy"].digest == built.images["lazy"].digest
    assert canary not in again.log
    assert holders(again.out, canary.encode()) == []


def _tracked() -> list[str]:
    """Return the files of the working tree: the committed ones, and those that soon will be."""
    argv = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in listed if (ROOT / name).is_file()]


def test_only_keys_that_bake_knows_are_rendered(built: Built) -> None:
    """Bake drops a key that it does not know without a word."""
    argv = ["docker", "buildx", "bake", "--file", "docker-bake.json", "--print", *SHIPPED]
    done = subprocess.run(argv, cwd=built.out, capture_output=True, text=True, check=True)
    echoed = json.loads(done.stdout)["target"]
    rendered = json.loads((built.out / "docker-bake.json").read_text())["target"]
    for name in SHIPPED:
        assert keys(rendered[name]) <= keys(echoed[name])


def keys(value: Any, above: str = "") -> set[str]:
    """Return the paths of all keys."""
    if not isinstance(value, dict):
        return {above}
    return {path for key, below in value.items() for path in keys(below, f"{above}/{key}")}


def test_a_context_builds_without_podkiln(built: Built, bootstrap_base: BaseLayout) -> None:
    """The Dockerfile stands alone; only what CI cannot reach is named beside it."""
    contexts = json.loads((built.out / "docker-bake.json").read_text())["target"]["lazy"]["contexts"]
    assert contexts["base"] == f"oci-layout://{bootstrap_base.path}@{bootstrap_base.digest}"
    options = [f"--build-context={name}={where}" for name, where in contexts.items()]
    argv = ["buildx", "build", "--output=type=cacheonly", *options, str(built.out / "lazy")]
    docker(*argv)


def test_buildkit_takes_of_a_source_tree_what_was_hashed(docker_engine: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("main.py", "hidden.py", "sub/x.py", "sub/.git/config", "sub/node/.git", "empty/.git/x"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    (tree / ".dockerignore").write_text("hidden.py\n")
    (tree / "sub/x.py").chmod(0o700)
    actual = git_tree.tree_id(tree)
    where = source_image.context(Substitute("comfyui", str(tree), actual, actual, tree), platform_here())
    (tmp_path / "Dockerfile").write_text("FROM scratch AS comfyui\nFROM scratch\nCOPY --from=comfyui / /\n")
    argv = ["buildx", "build", f"--build-context=comfyui={where}", f"--file={tmp_path / 'Dockerfile'}"]
    (tmp_path / "none").mkdir()
    docker(*argv, f"--output=type=local,dest={tmp_path / 'taken'}", str(tmp_path / "none"))
    taken = sorted(str(path.relative_to(tmp_path / "taken")) for path in (tmp_path / "taken").rglob("*"))
    assert taken == [".dockerignore", "hidden.py", "main.py", "sub", "sub/x.py"]
    assert git_tree.tree_id(tmp_path / "taken") == actual


def test_a_push_of_substitutes_needs_a_yes(tmp_path: Path) -> None:
    done = podkiln(
        *("--variant", "lazy", *BASE, "--push", "--registry", "127.0.0.1:1/x", "--out", tmp_path / "dist")
    )
    assert done.returncode == 5
    assert "--allow-substituted" in done.stderr
    assert not (tmp_path / "dist").exists()


@pytest.mark.smoke
def test_a_users_own_variant_builds_from_its_path(built: Built) -> None:
    models = json.loads((built.out / "tiny/podkiln/models.json").read_text())
    assert built.images["tiny"].report["variant"] == TINY.stem
    assert [model["id"] for model in models["models"]] == ["present", "missing", "gated", "wrong"]


def test_an_image_is_as_old_as_its_pins_not_as_its_base(shipped: Image) -> None:
    assert shipped.config()["created"] == "2026-08-13T00:00:00Z"
