"""Installing for custom nodes: pip's real answers, with a folder of wheels in the place of an index."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from node_wheels import wheel

from pod.errors import PodError
from pod.util import secret_variables
from pod.volume import node_packages, node_requirements, package_overlay
from pod.volume.custom_nodes import INSTALL, Nodes
from pod.volume.node_requirements import NodeReport
from pod.volume.volume import Volume, usual

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[4]
HERE = sys.prefix  # our own environment plays ComfyUI's: it has pip, and packages that must stay


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    wheel(folder, "blendmodes", "1.0")
    wheel(folder, "blendmodes", "2.0", "colours>=1", "packaging")
    wheel(folder, "colours", "1.1")
    wheel(folder, "greedy", "1.0", "packaging<1")
    wheel(folder, "packaging", "0.9")
    return folder


@pytest.fixture(autouse=True)
def only_our_index(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))


@pytest.fixture
def limits(tmp_path: Path) -> Path:
    path = tmp_path / "constraints.txt"
    path.write_text(package_overlay.constraints_text(package_overlay.site(HERE)))
    return path


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def install(tmp_path: Path, limits: Path, said: list[str]) -> Callable[..., bool]:
    def install(**wants: list[str]) -> bool:
        return node_packages.install(tmp_path / "place", wants, HERE, limits, said.append)

    return install


def seen_by_python(place: Path, *expressions: str) -> list[str]:
    """Return what ComfyUI's Python would see."""
    environment = {**os.environ, **package_overlay.environment({}, str(ROOT / "scripts"), str(place))}
    script = "import sys\n" + "\n".join(f"print({each})" for each in expressions)
    done = subprocess.run(
        [f"{HERE}/bin/python", "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    return done.stdout.splitlines()


def test_what_is_installed_is_seen_after_the_images_own(tmp_path: Path, install: Callable[..., bool]) -> None:
    place = tmp_path / "place"
    assert install(node=["blendmodes<2"], other=["colours"])
    found = package_overlay.active(str(place))
    assert found
    assert sorted(path.name for path in Path(found).glob("*.dist-info")) == [
        "blendmodes-1.0.dist-info",
        "colours-1.1.dist-info",
    ]
    version, last = seen_by_python(place, "__import__('blendmodes').VERSION", "sys.path[-1]")
    assert (version, last) == ("1.0", found)


def test_dependencies_come_along_and_what_the_image_has_is_not_fetched_again(
    tmp_path: Path, install: Callable[..., bool]
) -> None:
    assert install(node=["blendmodes>=2", "packaging"])
    found = package_overlay.active(str(tmp_path / "place")) or ""
    assert sorted(node_requirements.installed(found)) == ["blendmodes", "colours"]


def test_what_would_change_the_image_is_refused_and_the_others_are_served(
    tmp_path: Path, install: Callable[..., bool], said: list[str]
) -> None:
    """Greedy's own requirements look harmless; those of its dependencies are not."""
    assert not install(bad=["greedy"], good=["colours"])
    assert any(each.startswith("the packages of custom node bad cannot be installed: ") for each in said)
    found = package_overlay.active(str(tmp_path / "place")) or ""
    assert sorted(node_requirements.installed(found)) == ["colours"]


def test_a_package_that_nobody_has_is_refused(
    tmp_path: Path, install: Callable[..., bool], said: list[str]
) -> None:
    assert not install(bad=["no-such-package"])
    assert "no-such-package" in said[-1]
    assert package_overlay.active(str(tmp_path / "place")) is None


def test_another_set_takes_its_place_whole(
    tmp_path: Path, install: Callable[..., bool], said: list[str]
) -> None:
    install(node=["blendmodes<2"])
    first = package_overlay.active(str(tmp_path / "place"))
    install(node=["blendmodes>=2"])
    second = package_overlay.active(str(tmp_path / "place"))
    assert (first, second) == (first, second)
    assert first != second
    assert sorted(node_requirements.installed(second or "")) == ["blendmodes", "colours"]
    said.clear()
    install(node=["blendmodes<2"])
    assert package_overlay.active(str(tmp_path / "place")) == first
    assert not any(each.startswith("installing") for each in said), "it is there already"
    leftovers = [path.name for path in (tmp_path / "place").iterdir() if path.name.startswith(".")]
    assert leftovers == []


def volume(place: Path, **changes: object) -> Volume:
    lacking = Nodes(
        verdicts=(
            NodeReport("needs", missing=("colours",), beyond=("colours", "blendmodes<2")),
            NodeReport("has", beyond=("blendmodes<2",)),
            NodeReport(
                "clash", conflicts=("packaging<1, and the image has 26",), beyond=("no-such-package",)
            ),
        ),
        wish=INSTALL,
    )
    fields = {
        **vars(usual(str(place))),
        "overlay": str(place / "overlay"),
        "run": str(place),
        "nodes": lacking,
    }
    return Volume(**{**fields, **changes})


def test_all_that_loaded_nodes_want_is_in_the_set(tmp_path: Path, said: list[str]) -> None:
    assert node_packages.serve(volume(tmp_path), HERE, said.append)
    found = package_overlay.active(str(tmp_path / "overlay")) or ""
    assert sorted(node_requirements.installed(found)) == ["blendmodes", "colours"]


def test_nothing_lacking_is_nothing_to_do(tmp_path: Path, said: list[str]) -> None:
    assert node_packages.serve(volume(tmp_path, nodes=Nodes(wish=INSTALL)), "/no/such/venv", said.append)
    assert said == ["the custom nodes lack nothing"]


def test_a_volume_that_cannot_be_written_gets_nothing(tmp_path: Path, said: list[str]) -> None:
    with pytest.raises(PodError, match=r"cannot be written, so what custom nodes lack cannot be put there"):
        node_packages.serve(volume(tmp_path, workspace="/var/lib/podkiln/workspace"), HERE, said.append)


def test_an_environment_without_pip_is_a_sentence(tmp_path: Path, said: list[str]) -> None:
    assert not node_packages.serve(volume(tmp_path), "/no/such/venv", said.append)
    assert "/no/such/venv/bin/python cannot be run (No such file or directory)" in said[-1]


def test_what_builds_a_package_sees_no_secret(
    tmp_path: Path,
    index: Path,
    install: Callable[..., bool],
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A package that comes as source runs its own code in pip."""
    seen = tmp_path / "seen"
    backend = f"import os, pathlib\npathlib.Path({str(seen)!r}).write_text(repr(dict(os.environ)))\n"
    project = (
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "nosy"\nversion = "1.0"\n'
    )
    with tarfile.open(index / "nosy-1.0.tar.gz", "w:gz") as archive:
        for name, text in (("backend.py", backend), ("pyproject.toml", project)):
            entry = tarfile.TarInfo(f"nosy-1.0/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    for name in (
        *secret_variables.ACCESS,
        *secret_variables.HUBS,
        "RUNPOD_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "MODELS",
    ):
        monkeypatch.setenv(name, f"canary-{name}")
    assert not install(node=["nosy"])
    assert "PIP_FIND_LINKS" in seen.read_text()
    assert "canary" not in seen.read_text()
    assert "canary" not in "".join(said)


def test_what_is_not_understood_is_not_called_nothing(tmp_path: Path, said: list[str]) -> None:
    odd = Nodes(verdicts=(NodeReport("odd", unclear=("git+https://git.example/a.git",)),), wish=INSTALL)
    assert not node_packages.serve(volume(tmp_path, nodes=odd), "/no/such/venv", said.append)
    assert "not understood" in said[0]
    assert said[1] == "the custom nodes lack nothing of what is understood"
    unread = Nodes(unread="there is no `packaging`", wish=INSTALL)
    assert not node_packages.serve(volume(tmp_path, nodes=unread), "/no/such/venv", said.append)
    assert not any("lack nothing" in each for each in said[2:])
