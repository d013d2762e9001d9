"""What bench/gpu.py says of a machine before it starts, lays out on it, and leaves running there: nothing."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import gpu as bench
import pytest
from gpu_kit import layout, machine, memory, models, smi

if TYPE_CHECKING:
    from collections.abc import Callable

FAKES = Path(__file__).resolve().parents[2] / "fakes"
BENCH = bench.HERE
GB = 10**9


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """A line on a machine that lacks nothing; /opt and /start.sh are below tmp_path."""
    monkeypatch.setenv("PATH", f"{FAKES}:/usr/bin:/bin")
    monkeypatch.setenv("FAKE_GPU", "24")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(machine, "_packages", lambda _: [])
    for name in ("COMFYUI", "PODKILN", "VENV", "STUBS", "BIN", "START"):
        monkeypatch.setattr(layout, name, tmp_path / "machine" / name)
    (tmp_path / "machine" / "BIN").mkdir(parents=True)
    monkeypatch.setattr(layout, "python", lambda: "/bin/false")
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    context, comfyui = tmp_path / "context", tmp_path / "comfyui"
    for path, text in (
        (context / "podkiln" / "pod" / "a.py", "a"),
        (context / "podkiln" / "flags.json", "{}"),
        (context / "bin" / "podkiln-comfy", "#!/bin/sh"),
        (context / "start.sh", "#!/bin/sh"),
        (comfyui / "main.py", "m"),
        (comfyui / "custom_nodes" / "n.py", "n"),
        (comfyui / "requirements.txt", "comfyui-frontend-package==1.2.3\n"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return argparse.Namespace(
        cpu=False,
        context=context,
        comfyui=comfyui,
        workspace=tmp_path / "workspace",
        out=tmp_path / "out" / "gpu.json",
        workflows=["sdxl"],
    )


def test_a_machine_that_lacks_nothing(options: argparse.Namespace) -> None:
    assert [*machine.missing(options)] == []


@pytest.mark.parametrize(
    ("workflows", "there", "free", "says"),
    [
        (["sdxl"], [], 9, None),
        (["sdxl"], [], 7, "has 7 GB free, and what it lacks of the models takes 8 GB"),
        (["sdxl", "wan14b-fp8", "wan14b-fp16"], [], 40, "takes 52 GB"),
        (["sdxl", "wan14b-fp8", "wan14b-fp16"], ["wan14b-fp16", "wan14b-fp8", "wan-vae"], 9, None),
        (["sdxl"], ["sdxl"], 2, None),
        (["sdxl"], ["sdxl"], 0, "takes 1 GB"),
    ],
)
def test_the_disk_needs_room_for_what_is_lacking(
    options: argparse.Namespace,
    monkeypatch: pytest.MonkeyPatch,
    workflows: list[str],
    there: list[str],
    free: int,
    says: str | None,
) -> None:
    for kind in there:
        models.path_of(kind, options.workspace).parent.mkdir(parents=True, exist_ok=True)
        models.path_of(kind, options.workspace).touch()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free * GB))
    options.workflows = workflows
    said = " ".join(machine.missing(options))
    assert says in said if says else said == ""


def test_only_what_is_asked_for_needs_room(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[set[str]] = []

    def missing(given: argparse.Namespace) -> list[str]:
        asked.append(given.workflows)
        return ["it lacks a card"]

    monkeypatch.setattr(machine, "missing", missing)
    bench.main(["--out", str(options.out), "--only", "wan14b-fp8, all"])
    done = {case.name: {"prompts_s": [1.0]} for case in bench.CASES if case.workflow != "sdxl"}
    options.out.parent.mkdir()
    here = {"gpu": "a", "comfyui": "b", "torch": "c"}
    options.out.write_text(json.dumps({"schema": 1, "machine": here, "cases": done}), encoding="utf-8")
    bench.main(["--out", str(options.out)])
    assert asked == [{"wan14b-fp8"}, {"sdxl"}]


@pytest.mark.parametrize(
    ("play", "says"),
    [
        ("none", "nvidia-smi failed (exit code 6): No devices were found."),
        ("failing", "nvidia-smi failed (exit code 18): Failed to initialize NVML"),
        ("hang", "nvidia-smi did not answer within 0.2 s."),
        ("garbage", "nvidia-smi's answer is not a list of cards: \ufffd\ufffd? <html>"),
        ("silent", "nvidia-smi's answer is not a list of cards: nothing."),
        ("unknown", "nvidia-smi does not tell the card's memory.total ([Unknown Error])."),
        ("sick", "nvidia-smi failed (exit code 15): 0, GPU-24aaaaaa"),
    ],
)
def test_an_odd_answer_of_nvidia_smi_is_one_sentence(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch, play: str, says: str
) -> None:
    monkeypatch.setenv("FAKE_GPU", play)
    monkeypatch.setattr(smi.card, "__defaults__", (smi.FIELDS, 0.2))
    monkeypatch.setattr(smi.mib, "__defaults__", (0.2,))
    (said,) = machine.missing(options)
    assert said.startswith(says)
    assert said.endswith("--cpu rehearses without a card.")
    monkeypatch.setattr(memory, "_USED_SECONDS", 0.2)
    assert memory.used() in ((0, None) if play == "unknown" else (None,)), "not told, and not nothing"


def test_the_card_that_cuda_uses_is_the_one_that_is_asked_about(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_GPU", "pair")
    assert smi.card()["name"] == "NVIDIA L40S"
    for asked in ("1", "1,0", "GPU-24bbbbbb"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", asked)
        assert (smi.card()["name"], smi.mib("memory.total")) == ("NVIDIA L4", 23034), asked
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert [*machine.missing(options)] == [
        "CUDA_VISIBLE_DEVICES names 7, and nvidia-smi shows no such card. --cpu rehearses without a card."
    ]


def edit(name: str) -> Callable[[argparse.Namespace], None]:
    return lambda options: (options.comfyui.parent / name).write_text("other", encoding="utf-8") and None


def without(name: str) -> Callable[[argparse.Namespace], None]:
    return lambda options: setattr(options, name, None)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda _: None, ""),
        (edit("comfyui/custom_nodes/n.py"), "COMFYUI is, which is there already (custom_nodes/n.py)"),
        (edit("context/start.sh"), "START and "),
        (edit("context/podkiln/pod/a.py"), "PODKILN are, which are there already"),
        (lambda _: (layout.COMFYUI / "main.py").unlink(), "COMFYUI is there without a main.py"),
    ],
)
def test_another_source_than_what_is_laid_out_is_not_passed_over(
    options: argparse.Namespace, change: Callable[[argparse.Namespace], None], says: str
) -> None:
    layout.lay_out(options.context, options.comfyui)
    change(options)
    said = [*machine.missing(options)]
    assert (says in said[0]) if says else said == []
    options.context = options.comfyui = None
    assert [*machine.missing(options)] == (said if "without a main.py" in says else [])


def laid_out(options: argparse.Namespace) -> dict[str, Any]:
    top = options.comfyui.parent / "machine"
    return {
        str(path.relative_to(top)): (path.read_bytes(), os.access(path, os.X_OK))
        for path in top.rglob("*")
        if path.is_file()
    }


def test_a_layout_that_was_interrupted_is_made_whole_by_the_next_run(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended at each file in turn; in the end all is as if nothing had come between."""
    real = shutil.copyfile
    left = 0

    def copyfile(*arguments: Any, **more: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return real(*arguments, **more)

    monkeypatch.setattr(shutil, "copyfile", copyfile)
    ended = 0
    for files in range(20):
        left = files
        try:
            layout.lay_out(options.context, options.comfyui)
            break
        except KeyboardInterrupt:
            ended += 1
            assert [*machine.missing(options)] == [], files
            complete = (layout.BIN / "podkiln-comfy").is_file() and (
                layout.PODKILN / "pod" / "a.py"
            ).is_file()
            assert complete or not layout.START.exists(), "it comes last"
    assert ended >= 2
    whole = laid_out(options)
    for name in ("COMFYUI/main.py", "PODKILN/pod/a.py", "BIN/podkiln-comfy", "START"):
        assert name in whole
    assert whole["START"][1], "it can be run"
    assert not [name for name in whole if ".part" in name]


def test_a_model_that_cannot_be_made_is_one_sentence_and_costs_no_other(
    options: argparse.Namespace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    program = tmp_path / "python"
    program.write_text(
        '#!/bin/sh\necho x > "$4.part"\n'
        'case $3 in sdxl) echo "OSError: No space left on device" >&2; exit 1 ;; esac\nmv "$4.part" "$4"\n',
        encoding="utf-8",
    )
    program.chmod(0o755)
    monkeypatch.setattr(models, "python", lambda: str(program))
    monkeypatch.setattr(machine, "missing", lambda _: [])
    monkeypatch.setattr(layout, "lay_out", lambda *_: None)
    here = {"gpu": "a", "vram_mib": "81559", "comfyui": "b", "torch": "c"}
    monkeypatch.setattr(machine, "describe", lambda **_: here)
    monkeypatch.setattr(bench, "measure", lambda *_: {"prompts_s": [1.0]})
    for folder in ("checkpoints", "vae", "diffusion_models"):
        (options.workspace / "models" / folder).mkdir(parents=True)
    line = ["--out", str(options.out), "--workspace", str(options.workspace), "--only", "all free, --e"]
    assert bench.main([*line, "--budget", "1000"]) == 1
    said = capsys.readouterr().err
    assert "sdxl, all free, --enable-dynamic-vram is left out: the model sdxl could not be made at " in said
    assert said.count("OSError: No space left on device") == 1
    assert len(json.loads(options.out.read_text(encoding="utf-8"))["cases"]) == 2
    assert not [*options.workspace.rglob("*.part")]


def test_a_folder_that_cannot_be_written_is_said_before_anything_starts(
    options: argparse.Namespace, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    options.workspace = tmp_path / "file" / "workspace"
    assert any(
        f"{options.workspace} cannot be written: {tmp_path}/file is no" in each
        for each in machine.missing(options)
    )


@pytest.mark.parametrize("program", ["bench/gpu.py", "tests/gpu/run.py"])
def test_a_python_that_is_too_old_is_said_at_once(program: str) -> None:
    path = BENCH.parent / program
    old = "import runpy, sys; sys.version_info = (3, 10, 9); "
    script = f"{old}runpy.run_path({str(path)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{program}: Python 3.11 or newer is needed")


def test_the_systems_python_is_looked_at_too(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "python3").write_text("#!/bin/sh\necho Python 3.10\nexit 1\n", encoding="utf-8")
    (tmp_path / "python3").chmod(0o755)
    monkeypatch.setattr(machine, "SYSTEM_PYTHON", str(tmp_path / "python3"))
    said = "".join(machine.missing(options))
    assert "python3 is Python 3.10, and start.sh needs Python 3.11 or newer there." in said


TORCH = """
class cuda:
    mem_get_info = staticmethod(lambda: (80 << 30, 80 << 30))
uint8 = None
empty = lambda size, **_: 1 / (size == 72 << 30)
"""
DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, {bench!r})
import gpu as bench
from gpu_kit import boot, layout, machine, memory, models, paths
here = Path({here!r})
machine.missing = lambda _: []
layout.lay_out = lambda *_: None
models.make = lambda *_: 5
machine.describe = lambda **_: dict(gpu="a", vram_mib="81559", comfyui="b", torch="c")
boot.START, boot.STOP_SECONDS = here / "start.sh", 0.3
boot.port = lambda: 9
memory.python = lambda: str(here / "python")
line = ["--out", str(here / "gpu.json"), "--only", "8 GiB free, --enable", "--workspace", str(here)]
sys.exit(bench.main(line))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_what_ends_it_ends_what_it_started(tmp_path: Path, number: signal.Signals) -> None:
    """start.sh with a ComfyUI that heeds no signal, in a group of its own, and what holds VRAM."""
    pids = tmp_path / "pids"
    comfyui = "trap '' TERM HUP; echo \\$\\$ >> {pids}; while :; do sleep 0.1; done"
    start = f"""#!/bin/bash
set -m
bash -c "{comfyui}" main.py &
echo $$ >> {{pids}}
trap 'exit 0' TERM
wait
"""
    if number == signal.SIGKILL:  # nobody is there to end what does not end by itself
        start = start.replace("trap '' TERM HUP; ", "").replace("'exit 0'", "'kill 0 %1; exit 0'")
    holder = f'#!/bin/sh\necho $$ >> {{pids}}\nexec {sys.executable} "$@"\n'
    (tmp_path / "torch.py").write_text(TORCH, encoding="utf-8")
    for name, text in (("start.sh", start), ("python", holder)):
        (tmp_path / name).write_text(text.replace("{pids}", str(pids)), encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    script = DRIVER.format(bench=str(BENCH), here=str(tmp_path))
    environ = {"PATH": f"{FAKES}:/usr/bin:/bin", "PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", script], env=environ, stderr=subprocess.PIPE, text=True)
    try:
        started = wait_for(lambda: len(read(pids)) == 3)
        assert started, read(pids)
        process.send_signal(number)
        said = process.communicate(timeout=10)[1]
        assert process.returncode == (-number if number == signal.SIGKILL else 128 + number), said
        assert "Traceback" not in said
        assert wait_for(lambda: not [pid for pid in read(pids) if alive(pid)])
    finally:
        for pid in read(pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.kill()


def read(pids: Path) -> list[int]:
    return [int(line) for line in pids.read_text().split()] if pids.exists() else []


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    return False


def wait_for(true: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()
