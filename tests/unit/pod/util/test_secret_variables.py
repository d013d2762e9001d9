"""Which variables are secret, and who sees them."""

from __future__ import annotations

import os
import sys

import pytest
from images import ROOT

from pod.supervisor.process import ComfyProcess
from pod.util import secret_variables


@pytest.mark.parametrize(
    "name",
    [
        *secret_variables.ACCESS,
        *secret_variables.HUBS,
        "RUNPOD_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "GH_PAT",
        "S3_AUTH",
        "DB_PASSWD",
    ],
)
def test_a_variable_that_is_called_so_is_secret(name: str) -> None:
    assert secret_variables.is_secret(name)
    assert name not in secret_variables.without_any({name: "x"})


@pytest.mark.parametrize(
    "name", ["PATH", "PWD", "OLDPWD", "PIP_INDEX_URL", "HF_ENDPOINT", "KEYBOARD", "PATTERN"]
)
def test_other_variables_are_not(name: str) -> None:
    assert not secret_variables.is_secret(name)
    assert secret_variables.without_any({name: "x"}) == {name: "x"}


def test_start_sh_keeps_back_all_that_access_checks_against_before_any_code_of_strangers_runs() -> None:
    script = (ROOT / "tests" / "golden" / "lazy" / "start.sh").read_text()
    kept = script.index(f"\nexport -n {' '.join(secret_variables.ACCESS)}\n")
    assert script.index("pod decide || exit") < kept < script.index("pod nodes --install")


def test_comfyui_does_not_see_what_access_checks_against(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*secret_variables.ACCESS, "HF_TOKEN"):
        monkeypatch.setenv(name, f"canary-{name}")
    seen: list[bytes] = []
    life = ComfyProcess([sys.executable, "-c", "import os; print(dict(os.environ))"])
    life.forward_output(seen.append)
    assert life.wait() == 0
    assert b"canary-HF_TOKEN" in b"".join(seen), "nodes fetch with it"
    assert b"".join(seen).count(b"canary") == 1
    assert os.environ["WEB_PASSWORD"]


def test_the_value_of_a_secret_variable_is_hidden_wherever_it_stands() -> None:
    environ = {
        "HF_TOKEN": "hf canary",
        "WORKSPACE": "/workspace",
        "JUPYTER_TOKEN": "t",
        "PUBLIC_KEY": "public key",
    }
    text = "/workspace: 'hf canary' is no token at all; public key"
    assert secret_variables.hidden(text, environ) == "/workspace: '…' is no token at all; public key"
