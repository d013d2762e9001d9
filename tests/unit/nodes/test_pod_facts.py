"""What podkiln's own nodes read off their pod, and the sentence for each thing that it lacks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nodes.mvinverse import pod_facts

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


def test_code_that_is_not_there_is_said_with_the_variable_that_fetches_it(tmp_path: Path) -> None:
    def folder(**environ: str) -> Path:
        return pod_facts.code_folder("Mine", "PODKILN_MINE", "ENABLE_MINE", "mine.py", environ)

    with pytest.raises(
        pod_facts.NodeError, match=r"PODKILN_MINE is not set\): start the pod with ENABLE_MINE=1"
    ):
        folder()
    with pytest.raises(
        pod_facts.NodeError, match=r"has no mine.py, so it is not the code of Mine: .*ENABLE_MINE=1"
    ):
        folder(PODKILN_MINE=str(tmp_path))
    (tmp_path / "mine.py").touch()
    assert folder(PODKILN_MINE=str(tmp_path)) == tmp_path


def test_weights_come_from_the_volume_else_from_the_image(tmp_path: Path) -> None:
    environ = {"WORKSPACE": str(tmp_path / "volume"), "PODKILN_BAKED": str(tmp_path / "baked")}
    volume, baked = tmp_path / "volume/models/mine", tmp_path / "baked/mine"
    for folder in (volume, baked):
        folder.mkdir(parents=True)

    def found() -> dict[str, Path]:
        return pod_facts.weights("Mine", "mine", ("a.safetensors", "config.json"), "ENABLE_MINE", environ)

    (baked / "a.safetensors").touch()
    sentence = f"Mine needs mine/config.json, which is neither in {volume} nor in {baked}: start the pod with"
    with pytest.raises(pod_facts.NodeError, match=f"^{sentence} ENABLE_MINE=1, which fetches it.$"):
        found()
    (baked / "config.json").touch()
    (volume / "config.json").touch()
    assert found() == {"a.safetensors": baked / "a.safetensors", "config.json": volume / "config.json"}
