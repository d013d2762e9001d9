"""What stands in a lock is checked once, where it is read: by `lock --check`, a plan and a bake alike."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from descriptions import SHA, VARIANT, write
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from podkiln import cli
from podkiln.config import variant as variants
from podkiln.errors import LockError
from podkiln.lock import locations, validation
from podkiln.lock.layers import LayersLock
from podkiln.lock.nodes import NodesLock
from podkiln.lock.schema import RuntimeLock, WeightsLock
from podkiln.lock.validation import UnreadableLockError

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.lock.validation import Locked

HEX = "0123456789abcdef"
DIGEST = f"sha256:{SHA}"
RUNTIME: dict[str, Any] = {
    "schema_version": 1,
    "inputs": DIGEST,
    "epoch": 1786579200,
    "base_image": "debian:trixie-slim",
    "base_digest": DIGEST,
    "comfyui_repo": "https://github.com/Comfy-Org/ComfyUI",
    "comfyui_commit": SHA[:40],
    "comfyui_tree": SHA[:40],
    "python": "3.13",
    "python_layers": [
        {"name": "torch", "file": "python/torch.txt", "sha256": SHA, "packages": 4, "wheel_bytes": 5}
    ],
    "jupyter": None,
    "uv": {"name": "uv", "file": "uv.txt", "sha256": SHA, "packages": 1, "wheel_bytes": None},
}
NODES: dict[str, Any] = {
    "schema_version": 1,
    "onto": DIGEST,
    "nodes": [
        {
            "id": "x",
            "repo": "https://github.com/x/x",
            "commit": SHA[:40],
            "tree": None,
            "parts": {"p": {"repo": "https://github.com/x/p", "commit": SHA[:40], "tree": SHA[:40]}},
            "submodules": {"sub/p": SHA[:40]},
            "asked": ["emoji>=2"],
            "packages": {"file": "node-x.txt", "sha256": SHA, "packages": 1, "wheel_bytes": 5},
        }
    ],
}
FILE = {
    "destination": "vae/m.bin",
    "source": "huggingface:o/r/m.bin",
    "revision": SHA[:40],
    "size": 5,
    "sha256": SHA,
}
WEIGHTS: dict[str, Any] = {"schema_version": 1, "models": {"mine": [FILE]}}
LAYERS: dict[str, Any] = {
    "schema_version": 1,
    "layers": {DIGEST: {"name": "m", "digest": DIGEST, "size": 5, "places": ["ghcr.io/you/app"]}},
}
SHAPES: list[tuple[dict[str, Any], type[Locked]]] = [
    (RUNTIME, RuntimeLock),
    (WEIGHTS, WeightsLock),
    (LAYERS, LayersLock),
    (NODES, NodesLock),
]


def changed(data: dict[str, Any], place: str, value: Any) -> str:
    """Return the JSON with another value at a dotted place."""
    copy = json.loads(json.dumps(data))
    inside, *steps = copy, *place.split("/")
    for step in steps[:-1]:
        inside = inside[int(step) if step.isdigit() else step]
    inside[steps[-1]] = value
    return json.dumps(copy)


def refused(path: Path, shape: type[Locked]) -> UnreadableLockError:
    with pytest.raises(UnreadableLockError) as raised:
        validation.read(path, shape, hint="Restore it.")
    assert raised.value.exit_code == 4
    assert str(raised.value).startswith(f"The lock {path} cannot be read: ")
    assert str(raised.value)[-1] in ".?"
    assert "\n" not in str(raised.value)
    return raised.value


@pytest.mark.parametrize(("data", "shape"), SHAPES)
def test_a_lock_that_is_right_is_read(data: dict[str, Any], shape: type[Locked], tmp_path: Path) -> None:
    assert (
        validation.read(write(tmp_path / "a.json", json.dumps(data)), shape, hint="").model_dump(mode="json")
        == data
    )


NO_SHA256 = ["abc", "", SHA.upper(), SHA[:-1], SHA + "0", f"{SHA}\n", DIGEST, "unresolved", 5, True, [], {}]
NO_DIGEST = [SHA, f"sha256:{SHA.upper()}", "sha256:0", f"sha512:{SHA}{SHA}", f"{DIGEST}\n", None, 1, ""]
NO_COMMIT = ["main", "abc", SHA, SHA[:40].upper(), f"{SHA[:40]}\n", 7, True]
NO_SIZE = [0, -1, True, False, 5.0, 5.5, "5", 1 << 44, 1 << 62, 10**60, [5]]
WRONG: list[tuple[dict[str, Any], type[Locked], str, list[Any]]] = [
    (WEIGHTS, WeightsLock, "models/mine/0/sha256", NO_SHA256),
    (WEIGHTS, WeightsLock, "models/mine/0/size", NO_SIZE),
    (WEIGHTS, WeightsLock, "models/mine/0/revision", NO_COMMIT),
    (
        WEIGHTS,
        WeightsLock,
        "models/mine/0/destination",
        ["../x", "/etc/passwd", "a/../../b", "a\nb", "", None],
    ),
    (WEIGHTS, WeightsLock, "models/mine/0/source", ["", "a\x1b[2Jb", None, 5]),
    (RUNTIME, RuntimeLock, "inputs", NO_DIGEST),
    (RUNTIME, RuntimeLock, "base_digest", NO_DIGEST),
    (RUNTIME, RuntimeLock, "comfyui_commit", [*NO_COMMIT, None]),
    (RUNTIME, RuntimeLock, "comfyui_tree", [*NO_COMMIT, None]),
    (RUNTIME, RuntimeLock, "epoch", [*NO_SIZE[:7], "x"]),
    (NODES, NodesLock, "onto", NO_DIGEST),
    (NODES, NodesLock, "nodes/0/commit", NO_COMMIT),
    (NODES, NodesLock, "nodes/0/tree", NO_COMMIT),
    (NODES, NodesLock, "nodes/0/parts/p/commit", [*NO_COMMIT, None]),
    (NODES, NodesLock, "nodes/0/packages/sha256", [*NO_SHA256, None]),
    (NODES, NodesLock, "nodes/0/packages/packages", [0, -1, True, 1.0, "4"]),
    (NODES, NodesLock, "nodes/0/packages/file", ["../../x", "/etc/passwd"]),
    (RUNTIME, RuntimeLock, "python_layers/0/sha256", [*NO_SHA256, None]),
    (RUNTIME, RuntimeLock, "python_layers/0/packages", [-1, True, 1.0, "4", 10**9]),
    (RUNTIME, RuntimeLock, "uv/file", ["../../x", "/etc/passwd"]),
    (LAYERS, LayersLock, f"layers/{DIGEST}/digest", NO_DIGEST),
    (LAYERS, LayersLock, f"layers/{DIGEST}/size", NO_SIZE),
    (LAYERS, LayersLock, f"layers/{DIGEST}/places", [["UPPER"], "ghcr.io/a/b", [5], 5]),
]


@pytest.mark.parametrize(
    ("data", "shape", "place", "value"),
    [(data, shape, place, value) for data, shape, place, values in WRONG for value in values],
)
def test_a_value_that_cannot_be_is_refused_with_its_key(
    data: dict[str, Any], shape: type[Locked], place: str, value: Any, tmp_path: Path
) -> None:
    said = str(refused(write(tmp_path / "a.json", changed(data, place, value)), shape))
    assert place.replace("/0", "[0]").replace("/", ".") in said


@pytest.mark.parametrize(("data", "shape"), SHAPES)
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: text[: len(text) // 2], "is not JSON"),
        (lambda _: "", "line 1 is not JSON"),
        (lambda _: "[]", "it is not a JSON object"),
        (lambda _: "null", "it is not a JSON object"),
        (
            lambda text: f"<<<<<<< HEAD\n{text}\n=======\n{text}\n>>>>>>> theirs\n",
            "line 1 is the mark of a merge",
        ),
        (lambda text: f"{text}\n=======\r\n{text}", "line 2 is the mark of a merge conflict"),
        (lambda text: text[:-1] + ',"schema_version": 1}', "the key 'schema_version' is duplicated"),
        (lambda text: text[:-1] + ',"more": NaN}', "NaN is not a number"),
        (lambda text: text[:-1] + ',"more": -Infinity}', "-Infinity is not a number"),
        (lambda text: text[:-1] + f',"more": {"9" * 5000}}}', "a number of more than 100 digits"),
        (lambda text: text[:-1] + ',"more": 1}', "more: unknown key"),
        (lambda text: text.replace('"schema_version": 1', '"schema_version": true'), "schema_version: "),
        (lambda text: text.replace('"schema_version": 1', '"schema_version": "1"'), "schema_version: "),
        (lambda text: text.replace('"schema_version": 1', '"schema_version": 0'), "schema_version: "),
        (lambda _: "[" * 100_000, "nested too deeply"),
        (lambda _: "{" + '"a":{' * 100_000, "nested too deeply"),
        (lambda text: text[:-1] + ',"\ud800": 1}', ""),
        (lambda _: "\udcff", "not UTF-8 text"),
        (lambda text: text + " " * validation.MOST_BYTES, "larger than 4 MiB"),
    ],
)
def test_damage_is_one_sentence(
    damage: Any, says: str, data: dict[str, Any], shape: type[Locked], tmp_path: Path
) -> None:
    path = tmp_path / "a.json"
    path.write_text(damage(json.dumps(data)), errors="surrogateescape" if "UTF" in says else "surrogatepass")
    assert says in str(refused(path, shape))


@pytest.mark.parametrize(("data", "shape"), SHAPES)
def test_a_newer_lock_is_said_to_be_newer(data: dict[str, Any], shape: type[Locked], tmp_path: Path) -> None:
    error = refused(write(tmp_path / "a.json", changed(data, "schema_version", 2)), shape)
    assert "it has schema_version 2, and this podkiln knows 1" in str(error)
    assert error.newer
    assert "Update podkiln" in str(error.hint)


def test_what_is_no_file_is_no_lock(tmp_path: Path) -> None:
    """A FIFO would be waited for, and a folder is damage, not absence."""
    os.mkfifo(tmp_path / "fifo")
    for name in (".", "fifo"):
        assert "it is not a file" in str(refused(tmp_path / name, WeightsLock))
    (tmp_path / "nowhere").symlink_to("none")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("nowhere", "loop"):
        assert "it is a link that leads nowhere" in str(refused(tmp_path / name, WeightsLock))
    with pytest.raises(FileNotFoundError):
        validation.read(tmp_path / "none.json", WeightsLock, hint="")


def test_a_lock_says_of_which_format_it_is(tmp_path: Path) -> None:
    text = json.dumps({"models": {}})
    assert "schema_version is missing; it is 1." in str(
        refused(write(tmp_path / "a.json", text), WeightsLock)
    )


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", "\ufeff" + json.dumps(WEIGHTS))
    assert validation.read(path, WeightsLock, hint="").models["mine"]


def test_two_entries_of_one_file_are_refused(tmp_path: Path) -> None:
    """A merge can leave both, and the last one would win silently."""
    two = json.dumps({**WEIGHTS, "models": {"mine": [FILE, {**FILE, "sha256": "f" * 64}]}})
    assert "mine has two entries for 'vae/m.bin'" in str(
        refused(write(tmp_path / "a.json", two), WeightsLock)
    )


# --- wherever locks are read


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A variant that bakes a model, with locks of its own beside it."""
    bakes = VARIANT.replace("{offer: [sdxl-base]}", "{offer: [sdxl-base], bake: [sdxl-base]}")
    path = write(tmp_path / "mine.yaml", bakes)
    name = variants.load(str(path)).spec.runtime.name
    shutil.copytree(locations.LOCKS / name, tmp_path / "mine.locks" / name)
    shutil.copy(locations.LOCKS / "weights.json", tmp_path / "mine.locks")
    write(tmp_path / "mine.locks/layers.json", json.dumps(LAYERS))
    weights = json.loads((tmp_path / "mine.locks/weights.json").read_text())
    weights["models"] = {"sdxl-base": weights["models"]["sdxl-base"]}
    write(tmp_path / "mine.locks/weights.json", json.dumps(weights))
    return path


@pytest.mark.parametrize("command", [["lock", "--check"], ["plan"], ["--dry-run"]])
@pytest.mark.parametrize(
    ("file", "place", "value", "says"),
    [
        (
            "weights.json",
            "models/sdxl-base/0/size",
            0,
            "models.sdxl-base[0].size: expected more than 0 (it is 0).",
        ),
        ("weights.json", "models/sdxl-base/0/size", -1, "models.sdxl-base[0].size"),
        (
            "weights.json",
            "models/sdxl-base/0/sha256",
            "abc",
            "models.sdxl-base[0].sha256: expected a sha256 of 64",
        ),
        ("layers.json", f"layers/{DIGEST}/digest", "sha256:xyz", f"layers.{DIGEST}.digest"),
        (
            "comfyui-0.33.0-cuda-13.0/runtime.json",
            "base_digest",
            "sha256:1",
            "base_digest: expected sha256: and 64",
        ),
    ],
)
def test_every_command_refuses_it(
    command: list[str],
    file: str,
    place: str,
    value: Any,
    says: str,
    mine: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main([*command, "--variant", str(mine)]) == 0
    path = mine.with_suffix(".locks") / file
    path.write_text(changed(json.loads(path.read_text()), place, value))
    capsys.readouterr()
    assert cli.main([*command, "--variant", str(mine)]) == 4
    said = capsys.readouterr().err
    assert str(path) in said
    assert says in said


# --- any bytes at all

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=70)
    | st.sampled_from([SHA, DIGEST, 0, -1, 2]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
PLACES = st.sampled_from([(data, shape, place) for data, shape, place, _ in WRONG])


def read_any(folder: Path, content: bytes, shape: type[Locked]) -> None:
    path = folder / "any.json"
    path.write_bytes(content)
    try:
        found = validation.read(path, shape, hint="")
    except LockError as error:
        said = str(error)
    else:
        assert shape.model_validate_json(found.model_dump_json()) == found
        return
    assert said.isprintable()
    assert len(said) < 800


COMMON = settings(
    max_examples=150,
    deadline=5000,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@given(content=st.binary(max_size=400), shape=st.sampled_from([shape for _, shape in SHAPES]))
@COMMON
@example(content=b"[" * 200_000, shape=WeightsLock)
@example(content=b'{"models":' * 50_000, shape=WeightsLock)
@example(content=b'{"models": {"a": [{"size": 1e999}]}}', shape=WeightsLock)
@example(content=b'{"models": {"a": [{"size": %s}]}}' % (b"9" * 10_000), shape=WeightsLock)
@example(content=b'{"models": {"\\ud800": []}}', shape=WeightsLock)
@example(content=b'{"models": {"a\\u001b[2J": []}}', shape=WeightsLock)
@example(content=b"\xff\xfe{}", shape=LayersLock)
def test_any_bytes_are_a_lock_or_one_sentence(content: bytes, shape: type[Locked], tmp_path: Path) -> None:
    read_any(tmp_path, content, shape)


@given(at=PLACES, value=VALUES)
@COMMON
def test_any_value_at_any_place_is_right_or_one_sentence(
    at: tuple[dict[str, Any], type[Locked], str], value: Any, tmp_path: Path
) -> None:
    data, shape, place = at
    read_any(tmp_path, changed(data, place, value).encode("utf-8", "surrogatepass"), shape)
