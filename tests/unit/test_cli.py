"""The command line: one sentence and an exit code for all that a user can cause; results on stdout alone."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from podkiln import errors
from podkiln.cli import COMMANDS, main
from podkiln.config import variant
from podkiln.pipeline import build as job
from podkiln.render import golden

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podkiln.options import BuildRequest

FAILURES: list[type[errors.PodkilnError]] = [
    each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.PodkilnError)
]
ROOT = Path(__file__).resolve().parents[2]
PLAN = {"layers", "total_bytes", "fetch_bytes", "upload_bytes", "container_disk_gb", "refusals"}
ASKS = ROOT / "tests/fixtures/variants/asks.yaml"
READING = ["flags", "lint", "models", "plan", "render", "variants"]


def run(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(arguments)
    shown = capsys.readouterr()
    return code, shown.out, shown.err


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("--varant lazy", 2, r"No such option '--varant'. Did you mean '--variant'\?"),
        ("vriants", 2, r"No such command 'vriants'. Did you mean 'variants'\?"),
        ("qqq", 2, r"No such command 'qqq'\."),
        ("--variant lasy", 3, r"There is no variant 'lasy'"),
        ("plan --variant lasy", 3, r"Did you mean lazy\?"),
        ("--push", 2, r"--variant is missing"),
        ("--variant ,", 2, r"--variant is missing"),
        ("plan", 2, r"--variant is missing"),
        ("--variant lazy plan", 2, r"--variant must come after plan"),
        ("--no-cache models", 2, r"--no-cache must come after models"),
        ("--variant", 2, r"requires an argument"),
        ("--variant lazy --ca-bundle /no/such", 2, r"does not exist"),
        ("--variant lazy --push", 2, r"--push needs a registry"),
        ("plan --variant lazy --source comfy=x", 2, r"there is no input 'comfy'"),
        ("plan --variant lazy --source comfyui=/no/such", 11, r"there is no folder"),
        (f"plan --variant {ASKS} --registry quay.io/me", 5, r"add --accept-licence svd-xt\."),
        (f"--variant {ASKS} --push --registry quay.io/me --dry-run", 5, r"^podkiln: asks: svd-xt is under "),
        ("flags", 2, r"--gpu or --vram-mib is missing"),
        ("flags --gpu 4090 --vram-mib 8000", 2, r"--gpu and --vram-mib both say which card is meant"),
        ("flags --gpu 4099", 2, r"(?s)no card is known by the name '4099'\..*Did you mean 4090\?"),
        ("flags --gpu P40 --json", 2, r"sm_61 .*: rent a newer card\.\n.* with exit code 69"),
        ("flags --gpu V100 --json", 2, r"sm_70 .* take the image with cuda-12\.8 in its tag"),
        ("flags --vram-mib 8000 --free-vram-mib 9000", 2, r"9000 MiB cannot be free on a card of 8000"),
        ("flags --vram-mib -1", 2, r"Invalid value for '--vram-mib'"),
        ("flags --vram-mib x", 2, r"Invalid value for '--vram-mib'"),
        ("flags --vram-mib 8000 --args --no-such-flag", 2, r"--no-such-flag"),
        ("flags --vram-mib 8000 --tier huge", 2, r"huge"),
        ("render --variant lazy --out /dev/null", 2, r"/dev/null"),
        ("render --variant lazy --out /proc/none", 2, r"--out: /proc/none cannot be written"),
    ],
)
def test_a_mistake_is_one_sentence_and_a_code(
    line: str, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    got, _, err = run(line.split(), capsys)
    assert got == code, err
    first, *hint = err.splitlines()
    assert first.startswith("podkiln: ")
    assert re.search(says, err)
    assert len(hint) <= 1


@pytest.mark.parametrize("error", FAILURES)
def test_every_failure_ends_with_its_code(
    error: type[errors.PodkilnError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise error("It failed.", hint="Do this.")

    monkeypatch.setattr(job, "build", fail)
    code, out, err = run(["--variant", "lazy"], capsys)
    assert (code, out, err) == (error.exit_code, "", "podkiln: It failed.\n    Do this.\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--push", "--registry", "me:s3cret@ghcr.io/you"],
        ["--push", "--registry", "https://me:s3cret@ghcr.io/you"],
        ["--base", "me:s3cret@ghcr.io/you/base"],
        ["--source", "comfyui=https://me:s3cret@h/r#main"],
        ["--source", "comfyui=HTTPS://me:s3cret@h/r#" + "a" * 40],
        ["--source", "comfyui=ssh://me:s3cret@h/r#" + "a" * 40],
        ["--source", "comfyui=https:/me:s3cret@h"],
        ["--copy-from", "me:s3cret@h/x"],
        ["--ca-bundle", "https://me:s3cret@h/ca.pem"],
        ["https://me:s3cret@h/ca.pem"],
    ],
)
def test_no_login_on_the_command_line_is_repeated(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(["--variant", "lazy", "--dry-run", *arguments], capsys)
    assert code in {2, 11}
    assert "s3cret" not in out + err
    assert err.startswith("podkiln: ")


def test_codes_differ() -> None:
    codes = [each.exit_code for each in FAILURES]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (KeyboardInterrupt(), 130, "Interrupted; nothing half-made was left behind."),
        (PermissionError(13, "Permission denied"), 1, "Permission denied."),
    ],
)
def test_what_the_machine_does_is_one_sentence_too(
    raised: BaseException,
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_: object) -> None:
        raise raised

    monkeypatch.setattr(job, "build", fail)
    assert run(["--variant", "lazy"], capsys) == (code, "", f"podkiln: {says}\n")


@pytest.mark.usefixtures("no_engine")
def test_each_problem_of_lock_stands_on_its_own_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from podkiln.lock.resolve import relock

    result = relock.RelockResult((), 0, 0, (), ("a.yaml:1: x: no.", "b.yaml:2: y: no."))
    monkeypatch.setattr(relock, "relock", lambda *_: result)
    code, _, err = run(["lock"], capsys)
    assert code == 4
    lines = err.splitlines()
    assert "b.yaml:2: y: no." in lines
    assert "podkiln: a.yaml:1: x: no." in lines


def test_a_dry_run_has_no_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    code, _, err = run(["--variant", "lazy", "--dry-run", "--report", str(report)], capsys)
    assert code == 2
    assert "--dry-run builds nothing, so it has no --report." in err
    assert not report.exists()


def test_a_dry_run_moves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(job, "build", lambda _: pytest.fail("built"))
    code, out, _ = run(["--variant", "lazy", "--dry-run", "--base", "bootstrap"], capsys)
    assert code == 0
    assert out.startswith("lazy: ")
    assert "substituted: base is sha256:" in out  # as the lock of its packages has it
    assert list(tmp_path.iterdir()) == []


def test_all_stands_for_every_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[BuildRequest] = []

    def build(request: BuildRequest) -> list[object]:
        asked.append(request)
        return []

    monkeypatch.setattr(job, "build", build)
    assert main(["--variant", "all", "--no-weights"]) == 0
    assert main(["--variant", "lazy, consumer"]) == 0
    assert [request.variants for request in asked] == [tuple(variant.names()), ("lazy", "consumer")]
    assert asked[0].weights.no_weights
    assert not asked[1].weights.no_weights


@pytest.mark.parametrize(
    ("line", "keys"),
    [
        ("variants --json", {"variants"}),
        ("models --json", {"models"}),
        ("models --variant consumer --json", {"models"}),
        ("plan --variant lazy --json", PLAN),
        ("plan --variant lazy,consumer --json", {"plans"}),
        ("flags --gpu h100 --models sdxl-base --json", {"args", "memory_mode", "reasons", "gpu"}),
        ("flags --vram-mib 24000 --json", {"args", "memory_mode", "reasons", "gpu"}),
        ("flags --vram-mib 0 --json", {"args", "memory_mode", "reasons", "gpu"}),
    ],
)  # fmt: skip
def test_scripts_find_what_they_rely_on(
    line: str, keys: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(line.split(), capsys)
    data = json.loads(out)
    assert code == 0
    assert data["schema"] == (2 if line.startswith(("plan", "flags")) else 1)
    assert data.keys() >= keys
    rows = data.get("variants", []) + data.get("models", [])
    assert all(row["id"] for row in rows)


def test_without_arguments_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run([], capsys)
    assert code == 0
    assert all(name in out for name in COMMANDS)


@pytest.mark.parametrize("name", READING)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run([name, "--help"], capsys)
    assert code == 0
    assert out.startswith(f"Usage: ./build.py {name} ")


def test_drift_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["render", "--check"], capsys)[0] == 0
    monkeypatch.setattr(golden.drift, "__defaults__", (tmp_path,))
    code, _, err = run(["render", "--check", "--variant", "lazy"], capsys)
    assert code == errors.RenderError.exit_code
    assert "is not what is rendered now" in err
    assert "./build.py render --update-golden" in err


OPTIONS = """
--variant --push --registry --tag --json --dry-run --source --base --ca-bundle --vram-mib --args --check
--memory-mode --update-golden= --help --version --report --profile --no-weights --builder -v -q -- - =
"""
VALUES = """
lazy all ../x.yaml /etc/passwd tests ghcr.io/a comfyui=. comfyui= bootstrap a@b README 24000 -1 auto /
dynamic --lowvram none '
"""
WORDS = [*READING, *OPTIONS.split(), *VALUES.split(), "", "x y", "\n", "9" * 40, "ä\udcff"]


def test_no_line_gives_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Some hundred lines drawn at random; whatever they are, main() returns a code."""
    monkeypatch.chdir(tmp_path)

    def none(*_: object, **__: object) -> None:
        raise errors.EngineError("There is none.")

    monkeypatch.setattr(job, "prepare_engine", none)
    monkeypatch.setattr("podkiln.pipeline.preflight.registry.Repository", none)
    monkeypatch.setattr("podkiln.plan.substitutes.tree_id", lambda *_: "1")
    monkeypatch.setattr("podkiln.render.golden.update", lambda _: None)
    monkeypatch.setattr("podkiln.render.lint.check", lambda _: [])
    drawn = random.Random(2026)
    for _ in range(300):
        line = drawn.choices(WORDS, k=drawn.randint(1, 5))
        code = main(line)
        assert 0 <= code <= 14, line
        assert "Traceback" not in capfd.readouterr().err, line


def build_py(line: str) -> subprocess.CompletedProcess[str]:
    own = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/scripts", "NO_COLOR": "1"}
    shell = line.replace("./build.py", f"{sys.executable} -P -m podkiln")
    argv = ["bash", "-o", "pipefail", "-c", shell]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=own)


@pytest.mark.parametrize("line", ["./build.py models | head -1", "./build.py variants --json | true"])
def test_a_closed_pipe_is_no_failure(line: str) -> None:
    done = build_py(line)
    assert (done.returncode, done.stderr) == (0, "")


def test_results_are_without_colour() -> None:
    done = build_py("./build.py variants; ./build.py plan --variant lazy; ./build.py --help")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr


def test_help_loads_nothing_heavy() -> None:
    """It must not wait for what only a build needs."""
    code = (
        "import sys; from podkiln.cli import main; main(['--help']); sys.stderr.write(repr([*sys.modules]))"
    )
    own = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/scripts"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=own)
    assert not {"pydantic", "jinja2", "rich"} & set(re.findall(r"'([a-z0-9]+)'", done.stderr))


def test_a_full_disk_is_one_sentence_with_its_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise OSError(28, "No space left on device", "/x/y")

    monkeypatch.setattr(job, "build", fail)
    monkeypatch.setattr("podkiln.util.disk_space.free", lambda _: 1500)
    code, out, err = run(["--variant", "lazy"], capsys)
    assert (code, out) == (1, "")
    assert err.startswith("podkiln: The disk of /x is full: 1.5 kB are free.\n    Make room there,")
