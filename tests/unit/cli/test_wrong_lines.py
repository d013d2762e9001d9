"""Command lines that cannot be meant: exit 2, one sentence and a hint, from every command alike."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from podkiln.cli import COMMANDS, cli, main
from podkiln.errors import EngineError
from podkiln.pipeline import build

ROOT = Path(__file__).resolve().parents[3]
STUDIO = """\
extends: lazy
title: Studio
description: For a test.
models: {offer: [wan21-t2v-14b], bake: [wan21-t2v-14b]}
"""
HERE = "--registry localhost:1/x"

WRONG = [
    # --- numbers that are none, or mean nothing
    ("plan --variant lazy --rate nan", "nan is not a number from 0.001 to 1000000"),
    ("plan --variant lazy --rate inf", "inf is not a number"),
    ("plan --variant lazy --rate -inf", "-inf is not a number"),
    ("plan --variant lazy --rate -1", "-1 is not a number"),
    ("plan --variant lazy --rate 0", "0 is not a number"),
    ("plan --variant lazy --rate 1e309", "1e309 is not a number"),
    ("plan --variant lazy --rate fast", "fast is not a number"),
    ("--variant lazy --jobs 99999", "not in the range 1<=x<=64"),
    ("flags --vram-mib nan", "not a valid integer"),
    ("flags --vram-mib 9000 --host-ram-mib 100", "--host-ram-mib needs --ram-mib"),
    ("flags --vram-mib 9000 --ram-mib 200 --host-ram-mib 100", "cannot have 200 MiB on a machine of 100"),
    # --- variants
    ("--variant lazy,", "there is an empty name in 'lazy,'"),
    ("--variant lazy --variant lazy", "lazy is named twice"),
    ("plan --variant all,lazy", "lazy is named twice"),
    ("lint --variant lazy,lazy", "lazy is named twice"),
    ("flags --vram-mib 9000 --variant lazy,consumer", "it can only be one variant"),
    ("verify x --variant all", "it can only be one variant"),
    ("render --check --variant ./studio.yaml", "--check takes shipped variants only"),
    ("render --update-golden --variant ./studio.yaml", "--update-golden takes shipped variants only"),
    # --- names that name nothing
    ("--variant lazy --accept-licence nope", "there is no model or node 'nope'"),
    ("plan --variant lazy --accept-licence svd-tx", "Did you mean 'svd-xt'?"),
    ("verify x --variant lazy --accept-licence svd-tx", "Did you mean 'svd-xt'?"),
    ("--variant lazy --copy-from 'a b'", "--copy-from: 'a b' is not an image name"),
    (f"--variant lazy --push {HERE} --mount-from quay.io/a/b", "not in the registry that is pushed to"),
    (f"plan --variant lazy {HERE} --mount-from quay.io/a/b", "--copy-from HOST/NAME"),
    ("--variant lazy --python-index pypi", "--python-index: expected an http or https URL"),
    ("--variant lazy --apt-mirror 'http://x\nSuites: sid'", "--apt-mirror: expected an http or https URL"),
    ("--variant lazy --ca-bundle studio.yaml", "holds no PEM certificate"),
    ("plan --variant lazy --ca-bundle studio.yaml", "holds no PEM certificate"),
    ("verify x --variant lazy --ca-bundle studio.yaml", "holds no PEM certificate"),
    # --- options that contradict each other, or do nothing together
    ("--variant baked --no-weights --accept-licence svd-xt", "--accept-licence is for weights"),
    (f"--variant baked --no-weights --push {HERE} --spool x", "--spool is for weights"),
    ("plan --variant baked --no-weights --copy-from localhost:1/x/y", "--copy-from is for weights"),
    (f"--variant baked --load --push {HERE} --spool x", "--spool has no effect with --load"),
    ("--variant lazy --spool x", "--spool needs --push"),
    ("plan --variant lazy --spool x", "--spool needs --push"),
    ("plan --variant lazy --mount-from a/b", "--mount-from needs --push"),
    (f"--variant lazy {HERE}", "Add --push, or --load"),
    ("--variant lazy -v -q", "--verbose and --quiet exclude each other"),
    ("render --check --update-golden", "--check and --update-golden exclude each other"),
    ("render --check --out x", "--check and --out exclude each other"),
    ("render --update-golden --out x", "--update-golden and --out exclude each other"),
    ("lock --check --upgrade torch", "--check writes nothing"),
    ("verify x --variant lazy --registry ghcr.io/you", "but IMAGE names one already"),
    ("verify x --variant lazy --tag y", "but IMAGE names one already"),
    ("verify x --variant lazy --base bootstrap", "Add --rebuild, or leave it out"),
    ("verify x --variant lazy --apt-mirror http://x", "--apt-mirror is for a build"),
    ("verify x --variant lazy --rebuild --apt-mirror x", "--apt-mirror: expected an http or https URL"),
    ("plan lazy", "`./build.py plan --help` shows what there is"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a variant of one's own, and no engine."""
    monkeypatch.chdir(tmp_path)
    Path("studio.yaml").write_text(STUDIO)

    def none(*_: object, **__: object) -> None:
        raise EngineError("There is none.")

    monkeypatch.setattr(build, "prepare_engine", none)


@pytest.mark.parametrize(("line", "says"), WRONG)
def test_what_cannot_be_meant_is_refused(line: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(shlex.split(line))
    told = capsys.readouterr()
    assert (code, told.out) == (2, "")
    assert says in told.err
    first, hint = told.err.splitlines()
    assert first.startswith("podkiln: ")
    assert hint.startswith("    ")


@pytest.mark.parametrize(
    "line",
    [
        "--variant lazy --push --registry me:hunter2@localhost:1/x",
        "plan --variant lazy --registry https://me:hunter2@localhost:1/x",
        "plan --variant lazy --base me:hunter2@localhost:1/x",
        "plan --variant lazy --copy-from me:hunter2@localhost:1/x",
        f"plan --variant lazy {HERE} --mount-from me:hunter2@localhost:1/x",
        "plan --variant lazy --source comfyui=https://me:hunter2@localhost:1/x.git#0",
        "verify me:hunter2@localhost:1/x --variant lazy",
        "verify https://me:hunter2@localhost:1/x:y --variant lazy",
        "--variant lazy --python-index 'https://me:hunter2@localhost:1/ x'",
        "--variant lazy --apt-mirror ftp://me:hunter2@localhost:1/x",
    ],
)  # fmt: skip
def test_a_login_is_never_repeated(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(shlex.split(line)) == 2
    told = capsys.readouterr()
    assert "hunter2" not in told.out + told.err
    assert len(told.err.splitlines()) == 2


def options_with_values() -> list[tuple[str, str]]:
    """Return every option of every command that takes a value, but --args, which may be empty."""
    context = cli.make_context("./build.py", ["--variant", "lazy"])
    commands = {"": cli, **{name: cli.get_command(context, name) for name in COMMANDS}}
    return [
        (name, option.opts[0])
        for name, command in commands.items()
        for option in (command.params if command else ())
        if option.param_type_name == "option" and not getattr(option, "is_flag", False)
        if not getattr(option, "count", False) and option.opts[0] != "--args"
    ]


@pytest.mark.parametrize("blank", ["", "  "])
@pytest.mark.parametrize(("command", "option"), options_with_values())
def test_an_empty_value_is_refused_wherever_it_stands(
    command: str, option: str, blank: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [*([command] if command else []), *(["x"] if command == "verify" else [])]
    assert main([*line, option, blank]) == 2
    assert capsys.readouterr().err == f"podkiln: {option} is empty.\n    Give it a value, or leave it out.\n"


@pytest.mark.parametrize(
    ("name", "meant"),
    [("lazyy", "lazy"), ("LAZY", "lazy"), ("studio", "./studio.yaml"), ("./studoi.yaml", "studio.yaml")],
)
@pytest.mark.parametrize("command", ["", "plan", "render", "lint", "lock --check", "models"])
def test_a_variant_that_is_not_there_is_answered_with_the_nearest(
    command: str, name: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command.split(), "--variant", name]) == 3
    assert f"Did you mean {meant}? " in capsys.readouterr().err


def test_variants_may_be_named_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--variant", "lazy", "--variant", "consumer"]) == 0
    heads = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert [head.partition(":")[0] for head in heads] == ["lazy", "consumer"]


def test_a_hint_names_the_file_that_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    """Without it the command would lock, or show, the shipped variants instead."""
    assert main(["plan", "--variant", "./studio.yaml"]) == 5
    assert "`./build.py lock --variant studio.yaml`" in capsys.readouterr().err
    stale = STUDIO.replace(
        "models:", "nodes: {n: {repo: https://x.example/n, commit: " + "0" * 40 + "}}\nmodels:"
    )
    Path("my studio.yaml").write_text(stale)
    Path("my_studio.yaml").write_text(stale)
    assert main(["plan", "--variant", "./my_studio.yaml"]) == 4
    assert "Run `./build.py lock --variant my_studio.yaml`" in capsys.readouterr().err
    assert main(["lock", "--check", "--variant", "./my_studio.yaml"]) == 4
    assert "Run `./build.py lock --variant ./my_studio.yaml`" in capsys.readouterr().err
    (Path("my_studio.locks") / "comfyui-0.33.0-cuda-13.0").mkdir(parents=True)
    assert main(["plan", "--variant", "./my_studio.yaml"]) == 4
    assert "`./build.py lock --variant my_studio.yaml` makes it" in capsys.readouterr().err


def podkiln(line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell in which podkiln stands for the command, in a process of its own."""
    own = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/scripts"}
    shell = f'podkiln() {{ "{sys.executable}" -P -m podkiln "$@"; }}; {line}'
    argv = ["bash", "-o", "pipefail", "-c", shell]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=own)


FULL = "Standard output cannot be written: No space left on device."


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("podkiln variants >&-", 1, "podkiln: Standard output cannot be written: Bad file descriptor.\n"),
        ("podkiln --help >&-", 1, "podkiln: Standard output cannot be written: Bad file descriptor.\n"),
        ("podkiln plan --variant lazy --json >&-", 1, "podkiln: Standard output cannot be written: "),
        ("podkiln plan --variant lazy --json >/dev/full", 1, f"podkiln: {FULL}\n"),
        ("podkiln plan --variant lazy >/dev/full", 1, f"podkiln: {FULL}\n"),
        ("podkiln --help >/dev/full", 1, f"podkiln: {FULL}\n"),
        ("podkiln nope >&-", 2, "podkiln: No such command 'nope'.\n"),
        ("podkiln nope <&- >&- 2>&-", 2, ""),
        ("podkiln nope 2>/dev/full", 2, ""),
        ("podkiln flags --vram-mib 9000 2>&- >/dev/null", 0, ""),
        ("podkiln plan --variant lazy --json | head -c 1 >/dev/null", 0, ""),
        ("podkiln variants | true", 0, ""),
        ("podkiln render --variant lazy --out d >&-", 0, "rendered d/lazy\n"),
    ],
)  # fmt: skip
def test_a_stream_that_is_closed_or_full_is_no_traceback(line: str, code: int, says: str) -> None:
    done = podkiln(line)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(says)
    assert len(done.stderr.splitlines()) <= 2
    assert says or not done.stderr
