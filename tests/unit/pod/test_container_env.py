"""A command in a bare login finds the pod's variables; one that a person set stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pod import container_env

if TYPE_CHECKING:
    from pathlib import Path

STARTED_WITH = {
    "PATH": "/opt/venv/bin",
    "WORKSPACE": "/workspace",
    "HF_TOKEN": "hf",
    "LORAS": "civitai:1@2",
    "PODKILN_BAKED": "/baked",
    "WEB_PASSWORD": "canary",
    "NOISE": "a=b",
}


def first(tmp_path: Path, **changes: str) -> Path:
    path = tmp_path / "environ"
    path.write_bytes("".join(f"{k}={v}\0" for k, v in {**STARTED_WITH, **changes}.items()).encode())
    return path


def decided(tmp_path: Path, **pairs: str) -> str:
    (tmp_path / "comfyui.env").write_bytes("".join(f"{k}={v}\0" for k, v in pairs.items()).encode())
    return str(tmp_path)


def test_a_login_gets_what_the_commands_read_and_no_password(tmp_path: Path) -> None:
    environ = {"PATH": "/usr/bin", "HF_TOKEN": "mine"}
    container_env.adopt(environ, first(tmp_path))
    assert environ == {
        "PATH": "/usr/bin",
        "HF_TOKEN": "mine",
        "WORKSPACE": "/workspace",
        "LORAS": "civitai:1@2",
        "PODKILN_BAKED": "/baked",
    }


def test_a_login_goes_through_the_proxies_that_the_pod_goes_through(tmp_path: Path) -> None:
    names = ("http_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy")
    environ: dict[str, str] = {}
    container_env.adopt(environ, first(tmp_path, **dict.fromkeys(names, "http://proxy.test")))
    assert environ.keys() >= set(names)


def test_who_has_the_pods_variables_keeps_them(tmp_path: Path) -> None:
    """`docker exec -e LORAS=…` and start.sh: nothing that was left out comes back."""
    environ = {"WORKSPACE": "/workspace", "LORAS": "civitai:3@4"}
    container_env.adopt(environ, first(tmp_path))
    assert environ == {"WORKSPACE": "/workspace", "LORAS": "civitai:3@4"}


def test_what_the_boot_decided_goes_before_what_the_container_was_started_with(tmp_path: Path) -> None:
    run = decided(tmp_path, WORKSPACE="/runpod-volume", PODKILN_VOLUME="/x")
    for given in ({}, {"WORKSPACE": "/workspace"}):
        environ = {"PODKILN_RUN": run, **given}
        container_env.adopt(environ, first(tmp_path))
        assert (environ["WORKSPACE"], environ["PODKILN_VOLUME"]) == ("/runpod-volume", "/x")


def test_and_not_before_what_a_person_said_just_now(tmp_path: Path) -> None:
    environ = {"PODKILN_RUN": decided(tmp_path, WORKSPACE="/runpod-volume"), "WORKSPACE": "/mnt"}
    container_env.adopt(environ, first(tmp_path))
    assert environ["WORKSPACE"] == "/mnt"


def test_without_leave_to_read_it_nothing_is_lost(tmp_path: Path) -> None:
    environ = {"PODKILN_RUN": str(tmp_path)}
    container_env.adopt(environ, tmp_path / "nothing")
    assert environ == {"PODKILN_RUN": str(tmp_path)}
