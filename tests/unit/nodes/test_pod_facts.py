"""What podkiln's own nodes read off their pod, and the sentence for each thing that it lacks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nodes.mvinverse import pod_facts
from pod.commands import fetch

NODES = Path(__file__).resolve().parents[3] / "scripts/nodes"


def test_the_nodes_ask_the_same_way() -> None:
    """Each folder has the file, because ComfyUI loads each by itself."""
    texts = {path.parent.name: path.read_bytes() for path in NODES.glob("*/pod_facts.py")}
    assert set(texts) == {"mvinverse", "infcam"}
    assert len(set(texts.values())) == 1


@pytest.mark.parametrize(
    ("asked", "decided", "variable", "mode"),
    [
        ("auto", None, "", "model_full_load"),
        ("auto", None, "auto", "model_full_load"),
        ("auto", None, "full", "model_full_load"),
        ("auto", None, "Model_CPU_Offload", "model_cpu_offload"),
        ("auto", "sequential_cpu_offload", "", "sequential_cpu_offload"),
        ("model_full_load", "sequential_cpu_offload", "model_cpu_offload", "model_full_load"),
    ],
)
def test_the_node_beats_the_start_which_beats_the_variable(
    tmp_path: Path, asked: str, decided: str | None, variable: str, mode: str
) -> None:
    models = [{"id": "other", "memory_mode": "model_full_load"}, {"id": "mine", "memory_mode": decided}]
    (tmp_path / "decision.json").write_text(json.dumps({"models": models}))
    environ = {"PODKILN_RUN": str(tmp_path), "GPU_MEMORY_MODE": variable}
    assert pod_facts.memory_mode(asked, "mine", environ) == (mode, None)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"models": 3}', '{"models": [{}]}', '{"models": [{"id": "mine"}]}']
)
def test_a_damaged_decision_decides_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "decision.json").write_text(text)
    environ = {"PODKILN_RUN": str(tmp_path), "GPU_MEMORY_MODE": "model_cpu_offload"}
    assert pod_facts.memory_mode("auto", "mine", environ) == ("model_cpu_offload", None)


def test_fp8_is_left_out_and_said_to_be() -> None:
    environ = {"GPU_MEMORY_MODE": "model_cpu_offload_and_qfloat8", "PODKILN_RUN": "/nowhere"}
    mode, note = pod_facts.memory_mode("auto", "mine", environ)
    assert mode == "model_cpu_offload"
    assert note == "mine has no fp8 weights, so model_cpu_offload_and_qfloat8 is model_cpu_offload here"


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(
        pod_facts.NodeError, match=r"^'half' is no memory mode: it is one of auto, model_full"
    ):
        pod_facts.memory_mode("half", "mine", {})


def test_code_that_is_not_there_is_said_with_the_page_that_tells_how_to_put_it_there(tmp_path: Path) -> None:
    def folder(**environ: str) -> Path:
        return pod_facts.code_folder("Mine", "PODKILN_MINE", "mine.py", environ)

    page = "docs/how-to/own-nodes.md"
    assert (NODES.parents[1] / page).is_file()
    with pytest.raises(
        pod_facts.NodeError, match=rf"PODKILN_MINE is not set\): {page} of podkiln says how it comes there"
    ):
        folder()
    with pytest.raises(pod_facts.NodeError, match=rf"has no mine.py, so it is not the code of Mine: {page}"):
        folder(PODKILN_MINE=str(tmp_path))
    (tmp_path / "mine.py").touch()
    assert folder(PODKILN_MINE=str(tmp_path)) == tmp_path


def test_weights_come_from_the_volume_else_from_the_image(tmp_path: Path) -> None:
    environ = {
        "WORKSPACE": str(tmp_path / "volume"),
        "PODKILN_VOLUME": str(tmp_path / "worker"),
        "PODKILN_BAKED": str(tmp_path / "baked"),
    }
    volume, worker, baked = (
        tmp_path / f"{each}/mine" for each in ("volume/models", "worker/models", "baked")
    )
    for folder in (volume, worker, baked):
        folder.mkdir(parents=True)

    def found() -> dict[str, Path]:
        return pod_facts.weights("Mine", "mine", ("a.safetensors", "config.json"), "ENABLE_MINE", environ)

    (baked / "a.safetensors").touch()
    places = f"{volume.parent}, {worker.parent}, {baked.parent}"
    sentence = f"Mine needs mine/config.json, which is in none of {places}: start the pod with"
    with pytest.raises(pod_facts.NodeError, match=f"^{sentence} ENABLE_MINE=1, which fetches it.$"):
        found()
    (baked / "config.json").touch()
    assert found()["config.json"] == baked / "config.json"
    (worker / "config.json").touch()
    assert found()["config.json"] == worker / "config.json"
    (volume / "config.json").touch()
    assert found() == {"a.safetensors": baked / "a.safetensors", "config.json": volume / "config.json"}


def test_models_are_looked_for_where_podkiln_fetch_has_them() -> None:
    """It fetches nothing that is in one of these folders."""
    for environ in ({}, {"WORKSPACE": "/w", "PODKILN_VOLUME": "/v", "PODKILN_BAKED": "/b"}):
        place = fetch.store(environ, lambda _: None)
        assert pod_facts.model_roots(environ) == [place.target, place.volume, place.baked]
    assert pod_facts.model_roots({"WORKSPACE": "/runpod-volume"})[1:] == [Path("/opt/models")]
