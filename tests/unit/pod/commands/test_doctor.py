"""`doctor` as it is called: beside ComfyUI at the start, and by hand."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from registries import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[4]
FAKES = ROOT / "tests" / "fakes"
MODEL: dict[str, Any] = {
    "id": "portrait",
    "env": "ENABLE_PORTRAIT",
    "default": False,
    "baked": False,
    "vram_gb": 10,
    "ram_gb": 32,
    "memory_modes": [{"mode": "sequential_cpu_offload", "vram_gb": 10, "ram_gb": 64}],
    "unmet": [],
    "task": None,
    "requires": [],
    "files": [
        {
            "folder": "loras",
            "name": "a",
            "size": 5,
            "size_approx": None,
            "precision": None,
            "sha256": None,
            "pickle": False,
            "optional": False,
            "source": {"kind": "https"},
        }
    ],
}


@pytest.fixture
def call(tmp_path: Path, flags_json: dict[str, Any]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Lay out /opt/podkiln as in an image, and run one of its commands."""
    opt = tmp_path / "opt"
    shutil.copytree(ROOT / "scripts" / "pod", opt / "pod")
    shutil.copy(ROOT / "scripts" / "__main__.py", opt)
    (opt / "flags.json").write_text(json.dumps(flags_json), encoding="utf-8")
    url = f"http://127.0.0.1:{free_port()}/a"
    files = [{**MODEL["files"][0], "source": {"kind": "https", "url": url}}]
    (opt / "models.json").write_text(json.dumps({"schema": 1, "models": [{**MODEL, "files": files}]}))
    (tmp_path / "meminfo").write_text("MemTotal: 33554432 kB\n", encoding="utf-8")
    places = {
        "PATH": f"{FAKES}:/usr/bin:/bin",
        "PODKILN_ROOT": str(opt),
        "PODKILN_RUN": str(tmp_path / "run"),
        "PODKILN_LOCAL": str(tmp_path / "local"),
        "PODKILN_CGROUP_ROOT": str(tmp_path / "cgroup"),
        "PODKILN_MEMINFO": str(tmp_path / "meminfo"),
        "WORKSPACE": str(tmp_path / "workspace"),
        "COMFYUI_PORT": str(free_port()),
    }

    def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", "-S", str(opt), *arguments],
            env=places | environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    return run


def findings(text: str) -> list[tuple[str, str]]:
    return [(finding["level"], finding["check"]) for finding in json.loads(text)["findings"]]


def test_nothing_is_wrong(call: Callable[..., Any], tmp_path: Path) -> None:
    done = call("doctor", FAKE_GPU="24")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "podkiln: nothing is wrong.\n")
    assert not (tmp_path / "workspace").exists(), "it changes nothing"


def test_all_is_said_the_worst_first(call: Callable[..., Any]) -> None:
    asked = {"FAKE_GPU": "32", "FAKE_GPU_DRIVER": "570.86.15", "ENABLE_PORTRAIT": "true"}
    done = call("doctor", "--json", **asked)
    assert done.returncode == 1
    assert findings(done.stdout) == [("fatal", "driver"), ("warning", "memory")]
    lines = call("doctor", **asked).stderr.splitlines()
    assert lines[0].startswith(
        "podkiln: the NVIDIA driver here is 570.86.15, and this image's CUDA needs 580.65.06"
    )
    assert lines[1].startswith(
        "podkiln: warning: model portrait: sequential_cpu_offload needs 10 GB of VRAM and 64 GB"
    )
    assert "32.0 GB too little RAM" in lines[1]


def test_a_start_that_cannot_work_is_refused(call: Callable[..., Any], tmp_path: Path) -> None:
    old = {"FAKE_GPU": "32", "FAKE_GPU_DRIVER": "570.86.15"}
    done = call("decide", **old)
    assert done.returncode == 69
    assert done.stderr.splitlines()[-1] == (
        "podkiln: ComfyUI cannot work here: the NVIDIA driver here is 570.86.15, and this image's CUDA needs "
        "580.65.06 or newer: rent a machine with a newer driver (PODKILN_DOCTOR=warn starts it all the same)."
    )
    assert not (tmp_path / "run" / "comfyui.args").exists()
    assert call("decide", **old, COMFYUI_ARGS="--cpu").returncode == 0
    insisted = call("decide", **old, PODKILN_DOCTOR="warn")
    assert insisted.returncode == 0
    assert "podkiln: warning: the NVIDIA driver here is 570.86.15" in insisted.stderr


def test_a_5090_is_fine(call: Callable[..., Any]) -> None:
    assert call("decide", FAKE_GPU="32").returncode == 0


def test_a_port_that_is_taken_stops_the_start(call: Callable[..., Any]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        done = call("decide", FAKE_GPU="24", COMFYUI_PORT=str(other.getsockname()[1]))
    assert done.returncode == 69
    assert "and ComfyUI is to listen there: set COMFYUI_PORT" in done.stderr.splitlines()[-1]


def test_explain_shows_what_needs_no_network(call: Callable[..., Any]) -> None:
    done = call("decide", "--explain", FAKE_GPU="32", FAKE_GPU_DRIVER="570.1", MODELS="all")
    assert done.returncode == 0
    assert findings(done.stdout) == [("fatal", "driver"), ("warning", "memory")]


def test_at_the_start_only_the_rest_is_said(call: Callable[..., Any], tmp_path: Path) -> None:
    asked = {"FAKE_GPU": "32", "ENABLE_PORTRAIT": "true"}
    assert "too little" not in call("decide", **asked).stderr
    done = call("doctor", "--boot", **asked)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert findings((tmp_path / "run" / "doctor.json").read_text()) == [("warning", "memory")]
    (tmp_path / "meminfo").write_text("MemTotal: 67108864 kB\n", encoding="utf-8")
    call("decide", **asked)
    assert call("doctor", "--boot", **asked).stderr == (
        "podkiln: model portrait: sequential_cpu_offload needs 10 GB of VRAM and 64 GB of RAM, and fits.\n"
    )


def test_a_start_that_was_never_decided_is_a_sentence(call: Callable[..., Any]) -> None:
    done = call("doctor", "--boot")
    assert done.returncode == 65
    assert "decision.json cannot be read (No such file or directory): start the pod again." in done.stderr


def test_what_it_does_not_know_is_refused(call: Callable[..., Any]) -> None:
    done = call("doctor", "--all")
    assert (done.returncode, done.stderr) == (
        64,
        "podkiln: doctor takes --boot and --json only, but got '--all'.\n",
    )


PRESENT = {"RUNPOD_GPU_COUNT": "1"}


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        (
            {"FAKE_GPU": "hang", **PRESENT},
            "nvidia-smi did not answer within 0.3 s and was ended, but RUNPOD_GPU",
        ),
        ({"FAKE_GPU": "failing", **PRESENT}, "nvidia-smi failed (exit code 18): Failed to initialize NVML"),
        ({"FAKE_GPU": "none", **PRESENT}, "nvidia-smi finds no GPU, but RUNPOD_GPU_COUNT=1 says"),
        ({"FAKE_GPU": "garbage", **PRESENT}, "nvidia-smi's answer is not a list of GPUs: "),
        (
            {"PATH": "/nonexistent", **PRESENT},
            "RUNPOD_GPU_COUNT=1 says that there is one, but there is no nvidia-smi",
        ),
        (
            {"FAKE_GPU": "24", "CUDA_VISIBLE_DEVICES": "7"},
            "CUDA_VISIBLE_DEVICES=7 names '7', which is not exactly one GPU here",
        ),
        (
            {"FAKE_GPU": "24", "COMFYUI_ARGS": "--cuda-device 3"},
            "--cuda-device 3 names '3', which is not exactly one GPU here",
        ),
        (
            {"FAKE_GPU": "24", "COMFYUI_ARGS": "--default-device 3"},
            "--default-device 3 names '3', which is not exactly one GPU",
        ),
        ({"FAKE_GPU": "mig-empty"}, "the GPU is in MIG mode, but no slice of it"),
        (
            {"FAKE_GPU": "24", "FAKE_GPU_LACKS": "compute_cap", "FAKE_GPU_DRIVER": "470.256.02"},
            "the NVIDIA driver here is 470.256.02, and this image's CUDA needs 580.65.06 or newer",
        ),
    ],
)
def test_a_paid_gpu_is_never_done_without_in_silence(
    call: Callable[..., Any], environ: dict[str, str], reason: str
) -> None:
    environ = {"PODKILN_NVIDIA_SMI_TIMEOUT": "0.3" if environ.get("FAKE_GPU") == "hang" else "5", **environ}
    done = call("decide", **environ)
    assert done.returncode == 69
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"podkiln: ComfyUI cannot work here: {reason}"), last
    assert last.endswith("(PODKILN_DOCTOR=warn starts it all the same).")
    explained = call("decide", "--explain", **environ)
    assert ("fatal", "gpu") in findings(explained.stdout) or ("fatal", "driver") in findings(explained.stdout)
    assert call("decide", **environ, PODKILN_DOCTOR="warn").returncode == 0
    without = {**environ, "COMFYUI_ARGS": "--cpu"}
    assert call("decide", **without).returncode == 0


@pytest.mark.parametrize(
    "environ",
    [
        {"FAKE_GPU": "none"},
        {"FAKE_GPU": "no-driver"},
        {"PATH": "/nonexistent"},
        {"PATH": "/nonexistent", "NVIDIA_VISIBLE_DEVICES": "void"},
        {"PATH": "/nonexistent", "RUNPOD_GPU_COUNT": "0", "CUDA_VISIBLE_DEVICES": "0"},
        {"FAKE_GPU": "24", "CUDA_VISIBLE_DEVICES": "-1"},
    ],
)
def test_a_machine_without_a_gpu_starts_on_the_cpu(
    call: Callable[..., Any], tmp_path: Path, environ: dict[str, str]
) -> None:
    done = call("decide", **environ)
    assert done.returncode == 0, done.stderr
    assert "--cpu" in (tmp_path / "run" / "comfyui.args").read_text().split("\0")
