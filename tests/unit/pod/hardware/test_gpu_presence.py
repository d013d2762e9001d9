"""Who says that there is a GPU, besides nvidia-smi."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pod.hardware import gpu_presence
from pod.hardware.mounts import Mount

if TYPE_CHECKING:
    from pathlib import Path


def witness(tmp_path: Path, environ: dict[str, str], *entries: str) -> str | None:
    for entry in entries:
        path = tmp_path / entry
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return gpu_presence.witness(environ, str(tmp_path / "dev"), str(tmp_path / "proc"))


@pytest.mark.parametrize("node", ["nvidia0", "nvidia7", "nvidiactl", "nvidia-uvm", "nvidia-caps", "dxg"])
def test_a_device_node_is_a_witness(tmp_path: Path, node: str) -> None:
    assert witness(tmp_path, {}, f"dev/{node}", "dev/null") == f"{tmp_path}/dev/{node} is there"


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({"RUNPOD_GPU_COUNT": "1"}, "RUNPOD_GPU_COUNT=1 says"),
        ({"RUNPOD_GPU_COUNT": " 8 "}, "RUNPOD_GPU_COUNT=8 says"),
        ({"GPU_COUNT": "2", "VAST_CONTAINERLABEL": "C.1"}, "GPU_COUNT=2 says"),
        ({"NVIDIA_VISIBLE_DEVICES": "GPU-1234"}, "NVIDIA_VISIBLE_DEVICES names one"),
        ({"NVIDIA_VISIBLE_DEVICES": "0,1"}, "NVIDIA_VISIBLE_DEVICES names one"),
        (
            {"NVIDIA_VISIBLE_DEVICES": "all", "CUDA_VISIBLE_DEVICES": "MIG-1"},
            "CUDA_VISIBLE_DEVICES names one",
        ),
        ({"CUDA_VISIBLE_DEVICES": "0"}, "CUDA_VISIBLE_DEVICES names one"),
    ],
)
def test_the_platform_is_a_witness(tmp_path: Path, environ: dict[str, str], name: str) -> None:
    assert (witness(tmp_path, environ) or "").startswith(name)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NVIDIA_VISIBLE_DEVICES": "all"},  # the image sets it
        {"NVIDIA_VISIBLE_DEVICES": "void", "CUDA_VISIBLE_DEVICES": "0"},
        {
            "RUNPOD_GPU_COUNT": "0",
            "CUDA_VISIBLE_DEVICES": "0",
        },  # a CPU pod, from a template with a CUDA variable
        {"RUNPOD_GPU_COUNT": "many"},
        {"RUNPOD_GPU_COUNT": "9" * 5000},
        {"RUNPOD_GPU_COUNT": "²"},
        {"GPU_COUNT": "2"},  # anybody's variable
        {"CUDA_VISIBLE_DEVICES": ""},
        {"CUDA_VISIBLE_DEVICES": "-1"},
        {"CUDA_VISIBLE_DEVICES": "NoDevFiles"},
    ],
)
def test_a_machine_without_a_gpu_has_no_witness(tmp_path: Path, environ: dict[str, str]) -> None:
    assert witness(tmp_path, environ, "dev/null", "dev/nvram", "proc/version") is None


def test_a_card_of_the_machine_counts_unless_the_container_is_to_have_none(tmp_path: Path) -> None:
    said = witness(tmp_path, {}, "proc/gpus/0000:07:00.0")
    assert said is not None
    assert "with --gpus all?" in said
    assert witness(tmp_path, {"NVIDIA_VISIBLE_DEVICES": "none"}) is None


def test_a_device_node_counts_whatever_a_variable_says(tmp_path: Path) -> None:
    """CDI gives devices and sets NVIDIA_VISIBLE_DEVICES=void, so that no other hook gives them again."""
    assert witness(tmp_path, {"NVIDIA_VISIBLE_DEVICES": "void"}, "dev/nvidia0") is not None


def test_an_nvidia_smi_that_was_mounted_is_a_witness(tmp_path: Path) -> None:
    """The NVIDIA container toolkit mounts the driver's own; one of the image's is none."""
    mounted = [Mount("/usr/bin/nvidia-smi", "ext4", read_only=True)]
    dev, proc = str(tmp_path / "dev"), str(tmp_path / "proc")
    said = gpu_presence.witness({}, dev, proc, mounted)
    assert said == "/usr/bin/nvidia-smi was given to this container with a driver"
    assert gpu_presence.witness({}, dev, proc, []) is None
    assert gpu_presence.witness({"NVIDIA_VISIBLE_DEVICES": "void"}, dev, proc, mounted) is None
