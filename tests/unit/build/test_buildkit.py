"""The bake file, and what is made of BuildKit's words."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest
from plans import plan_of

from podkiln.build import buildkit
from podkiln.config import variant
from podkiln.errors import BuildFailedError, IntegrityError, PodkilnError, SourceError
from podkiln.options import NetworkOptions
from podkiln.render import bake_file, build_context
from podkiln.render.bake_file import BuildSecrets
from podkiln.util import masking

SAID = Path(__file__).resolve().parents[2] / "fixtures" / "buildkit"
SECRET = "s3cret"
GIT = "https://git.invalid/x.git#2f35f4a08176d993cded35dac3332be4f7287f41"
LINE = ["--variant", "lazy", "--base", "x:1", "--source=requirements=r", "--source", f"comfyui={GIT}"]


def environment(tmp_path: Path) -> BuildSecrets:
    """Return all that a builder's network may need, with logins."""
    bundle = tmp_path / 'a, "b".pem'
    bundle.touch()
    login = f"https://me:{SECRET}@mirror.example"
    return BuildSecrets(NetworkOptions(bundle, f"{login}/simple", f"{login}/debian"), "trixie")


def file_of(*names: str, environment: BuildSecrets | None = None) -> dict[str, Any]:
    return bake_file.bake_file(
        [plan_of(name) for name in names], environment or BuildSecrets(), {"base": "docker-image://x"}
    )


def test_each_variant_is_a_target_and_all_are_built_together() -> None:
    data = file_of("lazy", "consumer")
    assert data["group"]["default"]["targets"] == list(data["target"]) == ["lazy", "consumer"]
    assert data["target"]["lazy"]["context"] == "lazy"
    assert data["target"]["lazy"]["target"] == "image"
    assert data["target"]["lazy"]["contexts"] == {"base": "docker-image://x"}


def test_buildkit_exports_and_never_pushes() -> None:
    (output,) = file_of("lazy")["target"]["lazy"]["output"]
    assert output.startswith("type=oci,dest=lazy/image.partial,tar=false,rewrite-timestamp=true")
    assert "push" not in json.dumps(file_of("lazy"))
    assert file_of("lazy")["target"]["lazy"]["attest"] == ["type=provenance,disabled=true"]


def test_secrets_travel_in_variables_and_stand_nowhere(tmp_path: Path) -> None:
    network = environment(tmp_path)
    text = bake_file.as_text(file_of("lazy", environment=network))
    assert SECRET not in text
    assert "mirror.example" not in text
    assert SECRET not in buildkit.by_hand(["docker"], tmp_path, network)
    named = {word.partition("env=")[2] for word in network.secrets() if "env=" in word}
    assert named == network.variables().keys()
    assert SECRET in network.variables()["PODKILN_PYTHON_INDEX"]
    assert "\nSuites: trixie\n" in network.variables()["PODKILN_APT_SOURCES"]


def test_each_secret_has_its_mount() -> None:
    dockerfile = build_context.render(plan_of())["Dockerfile"].content.decode()
    for name in ("ca", "apt-conf", "python-index", "apt-sources"):
        assert f"--mount=type=secret,id={name}" in dockerfile


def test_the_command_can_be_typed(tmp_path: Path) -> None:
    argv = buildkit.command_line(["lazy"], builder="far", no_cache=True)
    line = buildkit.by_hand(
        argv, tmp_path / "a b", BuildSecrets(NetworkOptions(apt_mirror="http://m/debian"), "trixie")
    )
    words = shlex.split(line)
    assert words[:3] == ["cd", str(tmp_path / "a b"), "&&"]
    assert words[3].startswith("PODKILN_APT_SOURCES=Types: deb\nURIs: http://m/debian\n")
    assert words[4:] == argv


@pytest.mark.engine
def test_only_keys_that_bake_knows_are_written(tmp_path: Path) -> None:
    """Bake drops the others without a word."""
    network = environment(tmp_path)
    data = bake_file.bake_file(
        [plan_of(name) for name in variant.names()], network, {"base": "docker-image://x"}
    )
    (tmp_path / bake_file.BAKE_FILE).write_text(bake_file.as_text(data))
    argv = ["docker", "buildx", "bake", "--file", bake_file.BAKE_FILE, "--print"]
    own = {**os.environ, **network.variables()}
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False, env=own)
    assert done.returncode == 0, done.stderr
    echoed = json.loads(done.stdout)
    assert echoed["group"]["default"]["targets"] == data["group"]["default"]["targets"]
    for name, target in data["target"].items():
        assert target.keys() == echoed["target"][name].keys()
    assert echoed["target"]["lazy"]["secret"] == data["target"]["lazy"]["secret"]


@pytest.mark.parametrize(
    ("said", "sentence", "does"),
    [
        (
            "base-unreachable",
            "The base image docker.io/library/debian:trixie-slim@sha256:d7",
            "--base bootstrap",
        ),
        ("base-context-refused", "The base image 127.0.0.1:9/x:1 could not be fetched.", "--base bootstrap"),
        ("git-unreachable", "The source repository https://github.com/Comfy-Org", "comfyui=DIR"),
        (
            "git-context-unreachable",
            "The source repository https://git.invalid/x.git could not be fetched",
            "comfyui=DIR",
        ),
        (
            "git-of-a-node-unreachable",
            "The source repository https://git.invalid/kj.git could not be fetched",
            "node-kj=DIR",
        ),
        ("certificate", "A TLS certificate is signed", "--ca-bundle /etc/ssl/certs/ca-certificates.crt"),
        ("apt-mirror-refused", "Debian packages could not be fetched.", "--apt-mirror URL"),
        ("index-unreachable", "Python packages could not be fetched.", "--python-index URL"),
    ],
)
def test_what_cannot_be_had_is_one_sentence_and_a_command(said: str, sentence: str, does: str) -> None:
    """The texts are BuildKit's own, from builds that failed this way."""
    error = buildkit.explain(1, (SAID / f"{said}.txt").read_text(), LINE)
    assert isinstance(error, SourceError)
    assert str(error).startswith(sentence)
    assert error.hint
    command = error.hint[error.hint.index("./build.py ") :]
    assert command.endswith(does)
    option = does.split(maxsplit=1)[0]
    if option.startswith("--b"):
        assert "x:1" not in command, "the option is given anew, not twice"
    if "comfyui" in does:
        assert "git.invalid" not in command
    assert ("nodes=none leaves all nodes out" in error.hint) == ("node-" in does)
    assert "--source requirements=r" in command or "--source=requirements=r" in command


def test_kept_packages_that_the_builder_cannot_fetch_are_not_taken_for_the_base() -> None:
    error = buildkit.explain(1, (SAID / "kept-unreachable.txt").read_text(), LINE)
    assert isinstance(error, SourceError)
    assert str(error).startswith("The builder could not fetch the kept packages 127.0.0.1:9/me/kept@sha256:0")
    assert "kept.json" in str(error.hint)


def test_a_repeated_command_shows_no_login() -> None:
    line = [*LINE, "--python-index", f"https://me:{SECRET}@mirror.example/simple"]
    error = buildkit.explain(1, (SAID / "certificate.txt").read_text(), line)
    assert SECRET not in f"{error} {error.hint}"
    assert "https://…@mirror.example/simple" in str(error.hint)


def test_only_the_step_that_failed_is_blamed() -> None:
    earlier = "#9 Failed to fetch http://x.example/y  but the second mirror had it\n"
    failed = "------\n > [image 2/4] RUN false:\n------\nERROR: failed to solve: exit code: 1\n"
    assert isinstance(buildkit.explain(1, earlier + failed, LINE), BuildFailedError)


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A docker that does what a script says."""
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return program


def play(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_progress_is_shown_as_it_comes(
    docker: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    play(docker, 'echo "$* in $(pwd)"; echo "$PODKILN_PYTHON_INDEX" | wc -c')
    buildkit.run(buildkit.command_line(["lazy"]), tmp_path, BuildSecrets(NetworkOptions(python_index="1234")))
    shown = capfd.readouterr().err
    assert f"buildx bake --progress=plain --file docker-bake.json lazy in {tmp_path}" in shown
    assert "5\n" in shown


@pytest.mark.parametrize(
    ("script", "error"),
    [("exit 1", BuildFailedError), (f"cat {SAID}/certificate.txt; exit 1", SourceError)],
)
def test_a_failure_is_an_error_of_its_kind(
    script: str, error: type[PodkilnError], docker: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    play(docker, script)
    with pytest.raises(error):
        buildkit.run(buildkit.command_line(["lazy"]), tmp_path, BuildSecrets())


def test_an_interrupt_ends_buildkit_too(
    docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    play(docker, f"trap 'echo ended > {tmp_path}/ended; exit 1' TERM; echo begun; sleep 20 & wait")
    read = buildkit._read

    def interrupted(stream: IO[bytes]) -> bytes:
        assert read(stream) == b"begun\n"
        raise KeyboardInterrupt

    monkeypatch.setattr(buildkit, "_read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        buildkit.run(buildkit.command_line(["lazy"]), tmp_path, BuildSecrets())
    assert (tmp_path / "ended").read_text() == "ended\n"


def test_on_a_terminal_buildkit_gets_one_of_the_same_size(docker: Path, tmp_path: Path) -> None:
    play(docker, "stty size <&2")
    code = (
        "from pathlib import Path; from podkiln.build import buildkit; "
        "from podkiln.render.bake_file import BuildSecrets; "
        f"buildkit.run(buildkit.command_line(['lazy']), Path({str(tmp_path)!r}), BuildSecrets())"
    )
    inner = f"stty rows 33 cols 77; {shlex.quote(sys.executable)} -c {shlex.quote(code)}"
    root = Path(__file__).resolve().parents[3]
    own = {**os.environ, "PYTHONPATH": f"{root}:{root}/scripts"}
    argv = ["script", "--quiet", "--return", "--command", inner, "/dev/null"]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, env=own, stdin=subprocess.DEVNULL
    )
    assert "33 77" in done.stdout, done.stdout + done.stderr


def test_what_buildkit_prints_shows_no_login(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    masking.learn(["--apt-mirror", f"https://me:{SECRET}@mirror.example/debian"])
    script = f"printf 'Err: https://me:{SECRET[:2]}'; sleep 0.2; printf '{SECRET[2:]}@mirror.example'"
    try:
        status, said = buildkit._relay(["sh", "-c", script], tmp_path, dict(os.environ), terminal=False)
    finally:
        masking.forget()
    assert (status, said) == (0, "Err: https://me:…@mirror.example")
    assert capfd.readouterr().err == said


@pytest.mark.parametrize("login", ["me:s3/cret", "me:s3@cret", "s3cret", "me:s3#cret"])
def test_the_command_by_hand_shows_no_login_however_it_is_written(login: str, tmp_path: Path) -> None:
    network = BuildSecrets(
        NetworkOptions(python_index=f"https://{login}@h/simple", apt_mirror=f"http://{login}@h/debian")
    )
    line = buildkit.by_hand(["docker"], tmp_path, network)
    assert "cret" not in line
    assert "@h/debian" in line


def test_a_package_that_is_not_the_locked_one_is_a_breach_of_integrity() -> None:
    """The line that scripts/build/install-packages.sh prints, as BuildKit repeats it."""
    said = "No mirror has the tini 0.19.0-3+b8 that the apt lock names: what came has another sha256."
    output = (
        "\n > [system 1/1] RUN sh /build/install-packages.sh tini:\n8.1 Err:16 http://m ./ tini 0.19.0-3+b8\n"
        f"8.2 E: Failed to fetch http://m/tini.deb  404\n8.3 podkiln: {said}\n"
    )
    error = buildkit.explain(1, output, ["--variant", "lazy"])
    assert (type(error), str(error)) == (IntegrityError, said)
    assert "--apt-mirror" in str(error.hint)


def test_a_full_disk_is_told_as_one() -> None:
    error = buildkit.explain(1, (SAID / "disk-full.txt").read_text(), LINE)
    assert isinstance(error, BuildFailedError)
    assert re.match(
        r"The disk that BuildKit builds on is full: it could not write to /var/lib/.*/ingest/", str(error)
    )
    assert "docker buildx prune" in str(error.hint)


def test_a_push_is_told_that_a_substitute_has_to_be_allowed() -> None:
    said = (SAID / "base-context-refused.txt").read_text()
    assert str(buildkit.explain(1, said, [*LINE, "--push"]).hint).endswith(
        "--push --base bootstrap --allow-substituted"
    )
