"""Where packages for custom nodes lie, and that Python finds them last."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from pod.volume import package_overlay

ROOT = Path(__file__).resolve().parents[4]
HERE = sys.prefix  # our own environment plays ComfyUI's


def seen_by_python(place: Path, *expressions: str) -> list[str]:
    """Return what ComfyUI's Python would see."""
    environment = {**os.environ, **package_overlay.environment({}, str(ROOT / "scripts"), str(place))}
    script = "import sys\n" + "\n".join(f"print({each})" for each in expressions)
    done = subprocess.run(
        [f"{HERE}/bin/python", "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    return done.stdout.splitlines()


def installed(place: Path, **modules: str) -> Path:
    """Lay out a set of modules as an install leaves it."""
    folder = place / "set"
    for name, text in modules.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(text)
    (place / package_overlay.CURRENT).write_text("set\n")
    return folder


def test_what_is_installed_is_found_last(tmp_path: Path) -> None:
    folder = installed(tmp_path, blendmodes="VERSION = '1.0'")
    assert package_overlay.active(str(tmp_path)) == str(folder)
    assert seen_by_python(tmp_path, "__import__('blendmodes').VERSION", "sys.path[-1]") == [
        "1.0",
        str(folder),
    ]


def test_it_never_shadows_what_the_image_has(tmp_path: Path) -> None:
    installed(tmp_path, packaging="raise ImportError('the wrong one')", json="raise ImportError('this too')")
    where, _ = seen_by_python(tmp_path, "__import__('packaging').__file__", "__import__('json').__file__")
    assert where.startswith(package_overlay.site(HERE))


def test_a_python_outside_of_the_environment_does_not_see_it(tmp_path: Path) -> None:
    folder = installed(tmp_path, blendmodes="")
    environment = {**os.environ, **package_overlay.environment({}, str(ROOT / "scripts"), str(tmp_path))}
    system = Path(sys.base_prefix, "bin", "python3")
    done = subprocess.run(
        [system, "-c", "import sys; print(sys.path)"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(folder) not in done.stdout


def test_an_interrupted_install_is_not_in_use(tmp_path: Path) -> None:
    place = tmp_path / "place"
    (place / ".half.12").mkdir(parents=True)
    assert package_overlay.active(str(place)) is None
    (place / package_overlay.CURRENT).write_text("gone\n")
    assert package_overlay.active(str(place)) is None
    assert seen_by_python(place, "'fine'") == ["fine"]


def test_each_image_has_its_own_place(tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "torch-2.11.0.dist-info").mkdir(parents=True)
    one = package_overlay.base("/workspace/", str(site))
    assert one == package_overlay.base("/workspace", str(site))
    assert one.startswith("/workspace/.podkiln/python/")
    (site / "torch-2.11.0.dist-info").rename(site / "torch-2.12.0.dist-info")
    assert package_overlay.base("/workspace", str(site)) != one


def test_constraints_are_the_images_versions_without_what_builds(tmp_path: Path) -> None:
    for name in ("numpy-2.5.5", "Torch-2.11.0", "pip-25.1", "setuptools-80.0"):
        (tmp_path / f"{name}.dist-info").mkdir()
    assert package_overlay.constraints_text(str(tmp_path)) == "numpy==2.5.5\ntorch==2.11.0\n"


def test_a_users_own_constraints_and_paths_stay() -> None:
    assert package_overlay.constraints({"PIP_CONSTRAINT": "mine.txt"}, "/run/podkiln") == {
        "UV_CONSTRAINT": "/run/podkiln/constraints.txt"
    }
    own = {"PYTHONPATH": "/mine"}
    found = package_overlay.environment(own, "/opt/podkiln", "/p")
    assert found["PYTHONPATH"] == "/opt/podkiln/overlay:/mine"
    assert package_overlay.environment(found, "/opt/podkiln", "/p") == found


def started(folder: Path, seen: Path, *words: str, name: str = "main.py") -> list[str]:
    """Return the arguments that a program sees at its start."""
    (folder / name).write_text("import sys; print(*sys.argv[1:], sep='\\n')")
    paths = {"PYTHONPATH": package_overlay.python_path({}, str(ROOT / "scripts"))}
    environ = {**os.environ, **paths, "PODKILN_NODES_SEEN": str(seen)}
    argv = [sys.executable, str(folder / name), *words]
    return subprocess.run(argv, env=environ, capture_output=True, text=True, check=True).stdout.splitlines()


def test_a_node_that_comes_while_the_pod_runs_is_loaded_when_comfyui_starts_again(tmp_path: Path) -> None:
    nodes, seen = tmp_path / "custom_nodes", tmp_path / "nodes.seen"
    for each in ("mine", "left-out", "__pycache__"):
        (nodes / each).mkdir(parents=True)
    known = {"folders": [str(nodes)], "names": ["mine", "left-out", "of-the-image"]}
    seen.write_text(json.dumps(known))
    words = ("--disable-all-custom-nodes", "--whitelist-custom-nodes", "mine", "--cpu")
    assert started(tmp_path, seen, *words) == [*words]
    (nodes / "new").mkdir()
    (nodes / "later.py").touch()
    again = started(tmp_path, seen, *words)
    assert again == [*words[:2], "later.py", "new", *words[2:]]
    assert started(tmp_path, seen, *again) == again, "ComfyUI-Manager passes on what it got"
    assert started(tmp_path, seen, *words, name="other.py") == [*words], "it is no ComfyUI"
    assert started(tmp_path, seen, "--cpu") == ["--cpu"]
    known["folders"] = ["/nowhere", "\0", str(nodes)]  # one that is gone hides no other
    seen.write_text(json.dumps(known))
    assert started(tmp_path, seen, *words) == again
    for broken in ("", "[]", '{"folders": ["/nowhere"], "names": []}'):
        seen.write_text(broken)
        assert started(tmp_path, seen, *words) == [*words]
