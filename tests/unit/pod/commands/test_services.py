"""`services`: what is asked for is started, and what cannot be costs a sentence and nothing else."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from pod.commands import services
from pod.errors import PodError
from pod.services import jupyter, nginx, sshd
from pod.services.service import Service
from pod.util import restart

if TYPE_CHECKING:
    from pathlib import Path

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIL8PX0kGlsBZTLZQ6FnEdjCq6ujrDiUqo4nDYXCNtoyz"
ALL = {"PUBLIC_KEY": KEY, "JUPYTER_TOKEN": "t", "WEB_USER": "me", "WEB_PASSWORD": "p"}


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "decision.json").write_text('{"port": 8188, "listen": ["0.0.0.0"]}')
    return {"PODKILN_RUN": str(tmp_path), "HF_TOKEN": "h"}


@pytest.fixture(autouse=True)
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for the three doors; returns the names of those that were asked for."""
    asked: list[str] = []
    monkeypatch.setattr(restart, "SERVICE", restart.RestartPolicy((), stable=60.0))
    for name, module in (("login", nginx), ("sshd", sshd), ("jupyter", jupyter)):

        def prepare(*_: object, name: str = name) -> Service:
            asked.append(name)
            return Service(name, ("/bin/true",), {}, 0, "", f"{name} is open.")

        monkeypatch.setattr(module, "prepare", prepare)
    return asked


def test_nothing_is_started_that_is_not_asked_for(
    environ: dict[str, str], prepared: list[str], tmp_path: Path
) -> None:
    assert services.main([], environ) == 0
    assert prepared == ["login"]  # the door, without a login
    assert "HF_TOKEN=h" in (tmp_path / "environment.sh").read_text()


def test_where_jobs_come_there_is_no_door_unless_a_login_is_set(
    environ: dict[str, str], prepared: list[str]
) -> None:
    serving = {**environ, "PODKILN_SERVE": "runpod"}
    assert services.main([], serving) == 0
    assert prepared == []
    assert services.main([], {**serving, "WEB_USER": "me", "WEB_PASSWORD": "p"}) == 0
    assert prepared == ["login"]


def test_all_that_is_asked_for_the_login_first(environ: dict[str, str], prepared: list[str]) -> None:
    assert services.main([], {**environ, **ALL}) == 0
    assert prepared == ["login", "sshd", "jupyter"]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (PermissionError(13, "Permission denied", "/run/x"), "[Errno 13] Permission denied: '/run/x'"),
        (
            subprocess.CalledProcessError(3, ["/usr/bin/openssl", "x"]),
            "/usr/bin/openssl ended with exit code 3",
        ),
        (KeyError("'no user www-data'"), "no user www-data"),
    ],
)
def test_what_cannot_be_prepared_costs_a_sentence(
    error: Exception,
    says: str,
    environ: dict[str, str],
    prepared: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def prepare(*_: object) -> Service:
        raise error

    monkeypatch.setattr(nginx, "prepare", prepare)
    assert services.main([], {**environ, **ALL}) == 0
    assert prepared == ["sshd", "jupyter"]
    lines = capfd.readouterr().err.splitlines()
    (sentence,) = [line for line in lines if "is not started" in line]
    assert sentence.startswith("podkiln: the login before ComfyUI is not started: ")
    assert says in sentence


def test_without_a_decision_there_is_no_login(
    environ: dict[str, str], prepared: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "decision.json").unlink()
    assert services.main([], {**environ, **ALL}) == 0
    assert prepared == ["sshd", "jupyter"]
    assert "podkiln: the login before ComfyUI is not started: " in capfd.readouterr().err


def test_it_takes_no_arguments(environ: dict[str, str]) -> None:
    with pytest.raises(PodError, match="takes no arguments"):
        services.main(["x"], environ)
