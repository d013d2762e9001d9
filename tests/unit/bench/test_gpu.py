"""bench/gpu.py without a GPU: what comes first, what it resumes, merges, leaves out, reads off a log."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import gpu as bench
import pytest
from gpu_kit import boot, check_run, give_back, layout, machine, memory, models, paths, results

if TYPE_CHECKING:
    from pathlib import Path

HERE = {"gpu": "NVIDIA L4", "vram_mib": "23034", "driver": "580.1", "comfyui": "0.33.0", "torch": "2.11.0"}


def measured(path: Path, *cases: str, **other: str) -> Path:
    found = {
        "schema": 1,
        "machine": HERE | other,
        "files": {"sdxl": 5},
        "cases": {name: {"prompts_s": [1.0]} for name in cases},
    }
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


def result(here: dict[str, Any], case: Any = None, files: dict[str, Any] | None = None) -> str:
    cases = {"b": {"prompts_s": [1.0]} if case is None else case}
    return json.dumps({"schema": 1, "machine": here, "files": files or {}, "cases": cases})


def test_the_most_useful_comes_first() -> None:
    names = [case.name for case in bench.CASES]
    assert len(set(names)) == len(names)
    rooms = [(case.workflow, case.free_gib) for case in bench.CASES[1:] if case.arguments == bench.CLASSIC]
    assert rooms[:5] == [("sdxl", None), ("sdxl", 8), ("sdxl", 24), ("wan14b-fp8", None), ("wan14b-fp8", 24)]
    assert {case.workflow for case in bench.CASES} <= set(models.WORKFLOW_FILES)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which cases were run, none of them really."""
    seen: list[str] = []

    def measure(case: boot.Case, _workspace: Path, _logs: Path) -> dict[str, Any]:
        seen.append(case.name)
        return {"prompts_s": [2.0]}

    monkeypatch.setattr(bench, "measure", measure)
    monkeypatch.setattr(models, "make", lambda *_: 5)
    monkeypatch.setattr(machine, "missing", lambda _: [])
    monkeypatch.setattr(layout, "lay_out", lambda *_: None)
    monkeypatch.setattr(machine, "describe", lambda **_: dict(HERE))
    return seen


def test_a_run_goes_on_where_the_last_one_ended(ran: list[str], tmp_path: Path) -> None:
    there = bench.CASES[1].name
    out = measured(tmp_path / "gpu.json", there)
    assert bench.main(["--out", str(out), "--only", "sdxl, all", "--budget", "1000"]) == 0
    assert there not in ran
    assert ran[0] == bench.CASES[0].name
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["cases"][there] == {"prompts_s": [1.0]}, "never run again"
    assert {*ran, there} == set(found["cases"])
    assert found["files"] == {"sdxl": 5}


FAILED: dict[str, Any] = {"prompts_s": [9.0], "failed": ["no answer within 150 s"], "out_of_memory": False}
RAN_OUT: dict[str, Any] = {"prompts_s": [9.0], "failed": ["KSampler: CUDA out of memory"]}


@pytest.mark.parametrize(
    ("before", "again"),
    [
        (FAILED, True),
        ({"exit": 1, "log": "a.log"}, True),
        ({"exit": None, "log": "a.log", "out_of_memory": True}, True),
        (RAN_OUT, False),
        ({"prompts_s": [9.0], "out_of_memory": True}, False),  # ComfyUI met it, and went on
    ],
)
def test_what_failed_is_measured_again_and_never_in_the_way(
    ran: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    before: dict[str, Any],
    again: bool,
) -> None:
    name = bench.CASES[1].name
    out = measured(tmp_path / "gpu.json", name)
    other = measured(tmp_path / "other.json", name)
    found = json.loads(out.read_text(encoding="utf-8"))
    found["cases"][name] = before
    out.write_text(json.dumps(found), encoding="utf-8")
    merged = tmp_path / "merged.json"
    merged.write_bytes(out.read_bytes())
    assert bench.main(["--out", str(merged), "--merge", str(other)]) == 0
    assert (json.loads(merged.read_text())["cases"][name] == {"prompts_s": [1.0]}) is again
    capsys.readouterr()
    line = ["--out", str(out), "--only", name, "--budget", "1000"]
    assert bench.main(line) == 0
    assert ran == [name] * again
    if again:
        assert f"{name}: not measured, " not in capsys.readouterr().out
    assert f"{name}: not measured, " in results.table(found) or not again
    monkeypatch.setattr(bench, "measure", lambda *_: before)
    out.unlink()
    assert bench.main(line) == int(again)
    assert json.loads(out.read_text(encoding="utf-8"))["cases"] == {name: before}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (["--only", "ZZZ"], "no case's name holds 'ZZZ'; they are like 'sdxl, all free"),
        (["--budget", "nan"], "'nan' is no number of seconds"),
        (["--budget", "-1"], "'-1' is no number of seconds"),
        (["--image", "i", "--comfyui", "c"], "an image has its own ComfyUI and variant"),
    ],
)
def test_a_line_that_means_nothing_is_refused(
    ran: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], line: list[str], says: str
) -> None:
    code: object
    try:
        code = bench.main(["--out", str(tmp_path / "gpu.json"), *line])
    except SystemExit as end:  # argparse's own way
        code = end.code
    assert (code, ran) == (2, [])
    assert says in capsys.readouterr().err


def test_the_budget_ends_a_run_between_two_cases(
    ran: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main(["--out", str(tmp_path / "gpu.json"), "--budget", "10"]) == 0
    assert ran == []
    assert f"the budget ends before: {bench.CASES[0].name}" in capsys.readouterr().err


def test_what_a_card_has_no_room_for_is_left_out(
    ran: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main(["--out", str(tmp_path / "gpu.json"), "--only", "48 GiB", "--budget", "1000"]) == 0
    assert ran == []
    assert "the card has no 48 GiB to leave free: sdxl, 48 GiB free" in capsys.readouterr().err


def test_a_case_whose_vram_cannot_be_held_costs_no_other(
    ran: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory, "python", lambda: "/bin/false")
    monkeypatch.setattr(memory, "used", lambda: 0)

    def measure(case: boot.Case, _workspace: Path, _logs: Path) -> dict[str, Any]:
        with memory.held(case.free_gib):
            ran.append(case.name)
            return {"prompts_s": [2.0]}

    monkeypatch.setattr(bench, "measure", measure)
    line = ["--out", str(tmp_path / "gpu.json"), "--only", "sdxl, ", "--budget", "1000"]
    assert bench.main(line) == 1
    said = capsys.readouterr().err
    assert "sdxl, 8 GiB free, --enable-dynamic-vram is left out: VRAM could not be held" in said
    assert ran[0] == bench.CASES[0].name
    assert all("all free" in name for name in ran)


@pytest.mark.parametrize(
    ("key", "value"), [("gpu", "NVIDIA H200"), ("driver", "590.1"), ("comfyui", "0.38.1")]
)
def test_figures_of_another_machine_are_not_gone_on_with(
    ran: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, value: str
) -> None:
    out = measured(tmp_path / "gpu.json", "a", **{key: value})
    before = out.read_bytes()
    assert bench.main(["--out", str(out)]) == 1
    assert (
        f"it was measured elsewhere: {key} {value} against {HERE[key]}; give another"
        in capsys.readouterr().err
    )
    assert (ran, out.read_bytes()) == ([], before)


def test_results_are_merged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, more = measured(tmp_path / "out.json", "a"), measured(tmp_path / "more.json", "a", "b")
    found = json.loads(more.read_text(encoding="utf-8"))
    found["cases"]["a"] = {"prompts_s": [9.0]}
    more.write_text(json.dumps(found), encoding="utf-8")
    assert bench.main(["--out", str(out), "--merge", str(more)]) == 0
    merged = json.loads(out.read_text(encoding="utf-8"))
    assert merged["cases"] == {"a": {"prompts_s": [1.0]}, "b": {"prompts_s": [1.0]}}
    assert "| b | 1.0 | - |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "it is not there"),
        ("[]", "it is no result of bench/gpu.py: its schema is not 1"),
        ('{"schema": true, "machine": {}, "cases": {}}', "its schema is not 1"),
        ('{"schema": 1, "cases": {}}', "it has no machine"),
        ('{"schema": 1, "machine": {}, "cases": []}', "it has no cases"),
        ("{", "Expecting property name"),
        ("[" * 100_000, "it is no JSON"),
        (result({}), "it has cases, and not which gpu they were measured with"),
        (result(HERE | {"gpu": 5}), "the machine's gpu is no text"),
        (result(HERE, files={"sdxl": "6"}), "the bytes of sdxl are no number above 0"),
        (result(HERE, files={"sdxl": 6}), "the files of sdxl have 5 bytes against 6"),
        (result(HERE, "x"), "the case 'b' is no object"),
        (result(HERE, {}), "the case 'b' has neither prompts nor how it failed"),
        (result(HERE, {"prompts_s": ["1"]}), "prompts_s of the case 'b' are no numbers"),
        (result(HERE, {"prompts_s": [10**400]}), "prompts_s of the case 'b' are no numbers"),
        (result(HERE, {"prompts_s": [1], "more": {"deep": float("nan")}}), "NaN is no number in it"),
        (result(HERE, {"prompts_s": [1], "out_of_memory": "no"}), "is neither true nor false"),
        (result(HERE, {"prompts_s": [1]}).replace('"b"', '"\\ud800"'), "has characters that are not shown"),
        (result(HERE, {"prompts_s": [1], "it_per_s": "fast"}), "it_per_s of the case 'b' is no number"),
        (result(HERE, {"failed": "memory"}), "what the case 'b' failed with is no text"),
        (json.dumps({"schema": 1, "machine": HERE | {"gpu": "T4"}, "cases": {}}), "gpu NVIDIA L4 against T4"),
    ],
)
def test_what_does_not_belong_is_not_merged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, sentence: str
) -> None:
    out, other = measured(tmp_path / "out.json", "a"), tmp_path / "other.json"
    if text is not None:
        other.write_text(text, encoding="utf-8")
    before = out.read_bytes()
    assert bench.main(["--out", str(out), "--merge", str(other)]) == 1
    assert sentence in capsys.readouterr().err
    assert out.read_bytes() == before


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a docker that does nothing writes its arguments, a line a call."""
    calls = tmp_path / "calls"
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    asked = f'[ "$1" = image ] && [ "$3" != nosuch ] && exit 0\necho "$@" >> {calls}\nexit 3\n'
    program.write_text(f"#!/bin/sh\n{asked}", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    return calls


def test_in_an_image_it_does_what_was_asked_for_here(
    docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getuid", lambda: 0)
    line = ["--image=an/image", "--out", "out/gpu.json", "--workspace=here", "--only=--disable"]
    assert bench.main([*line, "--budget", "60", "--cpu"]) == 3
    (call,) = docker.read_text(encoding="utf-8").splitlines()
    before, _, inside = call.partition(" an/image ")
    assert inside.split()[1:] == [
        *("--budget=60.0", f"--out={tmp_path}/out/gpu.json", f"--workspace={tmp_path}/here"),
        *("--only=--disable", "--cpu"),
    ]
    for folder in (bench.HERE.parent, tmp_path / "out", tmp_path / "here"):
        assert f"--volume {folder}:{folder}" in before
    assert "--gpus" not in before
    assert (tmp_path / "out").is_dir(), "or docker makes it, and root has it"


def test_an_image_that_is_not_here_is_said(docker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--image=nosuch"]) == 1
    assert "no image nosuch: pull it, or build it with" in capsys.readouterr().err
    assert docker.read_text(encoding="utf-8") == "image inspect nosuch\n"


def test_checks_in_an_image_are_those_that_were_asked_for(
    docker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getuid", lambda: 0)
    assert (
        check_run.main(["--image", "an/image", "--only", "cold_start", "memory_modes", "--out", "o.json"])
        == 3
    )
    (call,) = docker.read_text(encoding="utf-8").splitlines()
    assert call.endswith(" --only cold_start memory_modes")
    assert " --gpus all " in call


def test_what_root_wrote_there_is_given_back(
    docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getuid", lambda: 1001)
    monkeypatch.setattr("os.getgid", lambda: 1002)
    assert bench.main(["--image", "an/image", "--out", "gpu.json", "--workspace", "here"]) == 3
    said = " ".join(docker.read_text(encoding="utf-8").splitlines())
    assert said.endswith(f"/give_back.py 1001 1002 {tmp_path}/gpu.json {tmp_path}/gpu-logs {tmp_path}/here")


def test_all_below_a_folder_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[Path, int, int]] = []
    (tmp_path / "here" / "models").mkdir(parents=True)
    (tmp_path / "here" / "models" / "a").touch()
    mine = (tmp_path / "here").stat().st_uid
    monkeypatch.setattr("os.chown", lambda path, *owner, **_: given.append((path, *owner)))
    for of in (mine, mine + 1):
        give_back.main(1001, 1002, [f"{tmp_path}/gpu.json", f"{tmp_path}/here"], of)
    names = ("here", "here/models", "here/models/a")
    assert given == [(tmp_path / name, 1001, 1002) for name in names]


def test_without_docker_there_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert bench.main(["--image", "an/image", "--out", str(tmp_path / "gpu.json")]) == 1
    assert "bench/gpu.py: docker is not here, and --image needs it" in capsys.readouterr().err


def test_what_a_log_says() -> None:
    log = (
        "podkiln: Profile dynamic, 80 GB: nothing to pass.\n"
        "loaded completely; 9000.00 MB usable, 1560.51 MB loaded, full load: True\n"
        "loaded partially; 1.00 MB usable, 4000.40 MB loaded, 897.00 MB offloaded, 1 MB buffer reserved\n"
        "\r 50%|#####     | 1/2 [00:02<00:02,  2.00s/it]\r100%|##########| 2/2 [00:03<00:00,  1.25s/it]\n"
        "torch.OutOfMemoryError: Allocation on device\n"
    )
    assert boot.read_log(log) == {
        "out_of_memory": True,
        "it_per_s": 0.8,
        "loaded_mib": [["completely", 1561], ["partially", 4000]],
        "decided": ["Profile dynamic, 80 GB: nothing to pass."],
    }
    assert boot.read_log("") == {"out_of_memory": False, "loaded_mib": [], "decided": []}


def test_without_nginx_comfyui_answers_behind_where_the_door_would_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "NGINX", tmp_path / "nginx")
    assert paths.port() == 18188
    (tmp_path / "nginx").touch()
    assert paths.port() == 8188


def test_the_measured_files_can_be_gone_on_with() -> None:
    folder = bench.HERE.parent / "variants" / "flags" / "measured"
    for path in folder.glob("*.json"):
        found = results.load(path)
        assert set(found["files"]) <= set(models.WORKFLOW_FILES)
        assert all(name.partition(", ")[0] in models.WORKFLOW_FILES for name in found["cases"])
