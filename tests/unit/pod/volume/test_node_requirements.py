"""What nodes want, as people write it, against what an image has."""

from __future__ import annotations

import importlib
import os
import sysconfig
import time
from typing import TYPE_CHECKING

import hypothesis
import pytest
from hypothesis import strategies as st

from pod.volume import node_requirements
from pod.volume.node_requirements import NodeReport

if TYPE_CHECKING:
    from pathlib import Path

SITE = sysconfig.get_paths()["purelib"]  # ours has `packaging`, as an image's has
IMAGE = {
    "torch": "2.11.0+cu130",
    "numpy": "2.5.5",
    "pillow": "12.0.0",
    "huggingface-hub": "1.0.0",
    "kornia": "0.9.0rc1",
}
OVERLAY = {"piexif": "1.1.3"}


def judged(folder: Path, text: str, name: str = "requirements.txt") -> NodeReport:
    (folder / name).write_text(text)
    return node_requirements.compare(folder, IMAGE, OVERLAY, node_requirements.parser(SITE))


# One line of requirements.txt; what it contradicts; what it lacks; what cannot be understood.
LINES: list[tuple[str, list[str], list[str], list[str]]] = [
    ("numpy", [], [], []),
    ("numpy>=1.25", [], [], []),
    ("numpy<2", ["numpy<2, and the image has 2.5.5"], [], []),
    ("torch==2.11.0", [], [], []),  # a local version such as +cu130 is as good (PEP 440)
    ("torch==2.9.1", ["torch==2.9.1, and the image has 2.11.0+cu130"], [], []),
    ("Torch >= 2.0 , < 3", [], [], []),
    ("PILLOW~=11.0", ["PILLOW~=11.0, and the image has 12.0.0"], [], []),
    ("huggingface_hub<1", ["huggingface_hub<1, and the image has 1.0.0"], [], []),
    ("huggingface.hub[cli]>=0.20", [], [], []),
    ("kornia>=0.8", [], [], []),  # the image's own versions count, pre-releases too
    ("insightface==0.7.3", [], ["insightface==0.7.3"], []),
    ("piexif", [], [], []),
    ("piexif>=2", [], ["piexif>=2"], []),
    ("numpy<2; python_version < '3.8'", [], [], []),
    ("numpy<2 ; extra == 'old'", [], [], []),
    ("triton-windows; sys_platform == 'win32'", [], [], []),
    ("pandas  # for tables", [], ["pandas"], []),
    ("# numpy<2", [], [], []),
    ("", [], [], []),
    ("numpy<2 --hash=sha256:abc", ["numpy<2, and the image has 2.5.5"], [], []),
    ("numpy \\\n  <2", ["numpy<2, and the image has 2.5.5"], [], []),
    ("--extra-index-url https://packages.example/simple", [], [], []),
    ("-c constraints.txt", [], [], []),
    ("sam2 @ https://files.example/sam2-1.0.whl", [], ["sam2@ https://files.example/sam2-1.0.whl"], []),
    ("numpy @ https://files.example/numpy-1.0.whl", [], [], []),  # nobody says which version that is
    ("git+https://git.example/a/b.git", [], [], ["git+https://git.example/a/b.git"]),
    ("-e .", [], [], ["-e ."]),
    ("./wheels/a.whl", [], [], ["./wheels/a.whl"]),
    ("what ever", [], [], ["what ever"]),
    ("\ufeffnumpy<2\r", ["numpy<2, and the image has 2.5.5"], [], []),
]


@pytest.mark.parametrize(("line", "conflicts", "missing", "unclear"), LINES, ids=[repr(c[0]) for c in LINES])
def test_a_line_is_read_as_pip_reads_it(
    tmp_path: Path, line: str, conflicts: list[str], missing: list[str], unclear: list[str]
) -> None:
    verdict = judged(tmp_path, f"{line}\n")
    assert [list(verdict.conflicts), [each.replace(" @", "@") for each in verdict.missing]] == [
        conflicts,
        missing,
    ]
    assert list(verdict.unclear) == unclear


def test_what_was_installed_beside_the_image_is_not_missing_but_beyond_it(tmp_path: Path) -> None:
    verdict = judged(tmp_path, "piexif\nblend-modes\nnumpy\n")
    assert (verdict.missing, verdict.beyond) == (("blend-modes",), ("piexif", "blend-modes"))


def test_included_files_count_and_circles_end(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("-r requirements.txt\nnumpy<2\n--requirement=gone.txt\n")
    assert judged(tmp_path, "-r more.txt\n").conflicts == ("numpy<2, and the image has 2.5.5",)


PROJECTS = [
    ('[project]\ndependencies = ["numpy<2", "rembg"]\n', ("numpy<2, and the image has 2.5.5",), ("rembg",)),
    ("[project]\nname = 'x'\n", (), ()),
    ("dependencies = [", (), ()),
    ('[tool.x]\ndependencies = ["numpy<2"]\n', (), ()),
    ("project = 1 # dependencies\n", (), ()),
]


@pytest.mark.parametrize(("text", "conflicts", "missing"), PROJECTS)
def test_without_requirements_the_project_file_says_them(
    tmp_path: Path, text: str, conflicts: tuple[str, ...], missing: tuple[str, ...]
) -> None:
    verdict = judged(tmp_path, text, "pyproject.toml")
    assert (verdict.conflicts, verdict.missing) == (conflicts, missing)
    assert judged(tmp_path, "", "requirements.txt") == NodeReport(tmp_path.name), (
        "which it does not, beside them"
    )


def test_a_node_without_either_wants_nothing(tmp_path: Path) -> None:
    assert node_requirements.compare(tmp_path, IMAGE, {}, node_requirements.parser(SITE)) == NodeReport(
        tmp_path.name
    )


def test_what_is_installed_is_read_off_names(tmp_path: Path) -> None:
    for name in (
        "Foo_Bar.baz-1.0+cu130.dist-info",
        "torch",
        "torch-2.11.0.dist-info",
        "old.egg-info",
        "x.pth",
    ):
        (tmp_path / name).mkdir()
    assert node_requirements.installed(str(tmp_path)) == {"foo-bar-baz": "1.0+cu130", "torch": "2.11.0"}
    assert node_requirements.installed(str(tmp_path / "missing")) == {}


def test_the_parser_comes_from_the_environment_of_comfyui(tmp_path: Path) -> None:
    assert str(node_requirements.parser(SITE)("a>1").specifier) == ">1"


def test_an_environment_without_a_parser_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    assert node_requirements.parser(str(tmp_path)) is None


# A whole file, and what of it is said not to be understood.
UNCLEAR = [
    ("x --no-deps", ["x --no-deps"]),
    ("y>=1.0.", ["y>=1.0."]),
    ("x; os_name ~= 'x'", ["x; os_name ~= 'x'"]),
    ("x; nonsense == 'x'", ["x; nonsense == 'x'"]),
    ("numpy; " + "(" * 900 + "os_name == 'x'" + ")" * 900, None),
    ("x" * 5000, ["requirements.txt is too long"]),
    ("numpy\n" * 3000, ["requirements.txt is too long"]),
    ("-r other.txt", ["-r other.txt"]),
    ("-r ../../../../etc/passwd", ["-r ../../../../etc/passwd"]),
    ("-r /etc/passwd", ["-r /etc/passwd"]),
    ("-r https://me:canary@files.example/r.txt", ["-r https://…@files.example/r.txt"]),
    ("-rother.txt", ["-r other.txt"]),
    ("--editable=../x", ["--editable=../x"]),
    ("--no-such-option", ["--no-such-option"]),
    ("pkg @ file:///croot/pkg/work", ["pkg @ file:///croot/pkg/work"]),
    ("pkg @ file://", ["pkg @ file://"]),
    ("numpy @ file:///croot/numpy/work", []),  # the image has it, and its path means nothing here
    ("git+https://user:canary@git.example/a.git", ["git+https://…@git.example/a.git"]),
    ("${MY_INDEX}/a", ["${MY_INDEX}/a"]),
    ("numpy\x00", ["numpy\\x00"]),
    ("--index-url https://packages.example/simple\nlacking", ["--index-url https://packages.example/simple"]),
    ("--index-url https://packages.example/simple\nnumpy", []),
    ("--pre\n--trusted-host x\nlacking", []),
]


@pytest.mark.parametrize(("text", "unclear"), UNCLEAR, ids=[repr(case[0][:30]) for case in UNCLEAR])
def test_what_is_not_understood_is_named(tmp_path: Path, text: str, unclear: list[str] | None) -> None:
    verdict = judged(tmp_path, text)
    assert "canary" not in repr(verdict)
    if unclear is None:
        assert len(verdict.unclear) == 1
    else:
        assert list(verdict.unclear) == unclear


def test_an_address_that_tells_the_name_is_understood(tmp_path: Path) -> None:
    verdict = judged(
        tmp_path,
        "git+https://git.example/a.git@v1#egg=numpy\n"
        "git+https://git.example/b.git#egg=newone\n"
        "https://files.example/other_one-1.0-py3-none-any.whl\n",
    )
    assert [want.partition("@")[0].strip() for want in verdict.missing] == ["newone", "other_one"]
    assert verdict.unclear == verdict.conflicts == ()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
def test_a_file_of_another_encoding_is_read_where_it_says_so(tmp_path: Path, encoding: str) -> None:
    """PowerShell's `pip freeze > requirements.txt` writes UTF-16."""
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    (tmp_path / "requirements.txt").write_bytes(f"{mark}numpy<2\n".encode(encoding))
    verdict = node_requirements.compare(tmp_path, IMAGE, OVERLAY, node_requirements.parser(SITE))
    assert verdict.conflicts == ("numpy<2, and the image has 2.5.5",)


def test_a_pipe_of_that_name_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "requirements.txt")
    assert node_requirements.compare(tmp_path, IMAGE, OVERLAY, None) == NodeReport(
        tmp_path.name, unclear=("requirements.txt is not a plain file",)
    )


@pytest.mark.parametrize(
    "text",
    [
        "[project]\ndependencies = 'numpy<2'",
        "[project]\ndependencies = [1]",
        "project = 'dependencies'",
        "dependencies = " + "[" * 50_000,
        "dependencies = \xff\x00",
    ],
)
def test_a_damaged_project_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text, encoding="latin-1")
    verdict = node_requirements.compare(tmp_path, IMAGE, OVERLAY, node_requirements.parser(SITE))
    assert verdict.unclear == ("pyproject.toml is damaged",)
    assert verdict.missing == verdict.conflicts == ()


@pytest.mark.parametrize(
    "text",
    [
        "dependencies" + ".a" * 125_000 + "=1\n",
        "[dependencies" + ".a" * 20_000 + "]\nx=1\n",
        "dependencies={a" + ".a" * 120_000 + "=1}\n",
        "[dependencies" + ".a" * 500 + "]\n" + "".join(f"{n}=1\n" for n in range(30_000)),
        " dependencies" + ' . "a\\"" . \'b=\' . c' * 9_000 + "=1\n",
        "#dependencies\n" + "".join(f"x{n}{'.a' * 30}=1\n" for n in range(900)),
        "dependencies=0\n" + "".join(f"[x{n}]\n" for n in range(30_000)),
        '[project]\ndependencies=["absent", "numpy' + ">1," * 20_000 + '>1"]\n',
        '[project]\ndependencies=["absent", "absent[' + "a," * 9_000 + 'a]"]\n',
    ],
    ids=range(9),
)
def test_a_project_that_would_take_seconds_is_unclear_at_once(tmp_path: Path, text: str) -> None:
    started = time.thread_time()
    verdict = judged(tmp_path, text, "pyproject.toml")
    assert time.thread_time() - started < 0.5
    assert verdict.unclear == ("pyproject.toml is too long",)
    assert verdict.missing in ((), ("absent",))


def test_a_project_as_nodes_have_them_is_not_too_long(tmp_path: Path) -> None:
    many = ", ".join(f'"absent{n}==1.2.3"' for n in range(100))
    text = (
        f"[project]\nname='x'\ndependencies=[{many}]\n[tool.a.b.c.d.e.f]\nicon='data:{'x' * 9000}'\n"
        f"v=['{'1.2.3 ' * 30}']\n"
    )
    verdict = judged(tmp_path, text, "pyproject.toml")
    assert (len(verdict.missing), verdict.unclear) == (100, ())


def test_modules_are_found_where_they_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "module.py").touch()
    assert node_requirements.modules(["package", "module", "gone"], str(tmp_path)) == ["package", "module"]
    assert node_requirements.modules(["package"], "/not/there") == []


WORDS = st.sampled_from(
    (
        *("numpy", "torch", "x", "<2", "==", ">=1.0.", "~=", ";", "os_name", "'x'", "(", ")", "[", "]", "@"),
        *("git+https://", "file://", "-r ", "-e ", "--hash=", "--no-deps", " ", "\\", "\n", "\r", "²", "#"),
    )
)


@hypothesis.settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(st.one_of(st.binary(), st.lists(WORDS).map(lambda words: "".join(words).encode())))
@hypothesis.example(b"x; os_name ~= 'x'")
@hypothesis.example(b"y>=1.0.")
@hypothesis.example(b"x --no-deps")
@hypothesis.example(b"git+https://a/b")
@hypothesis.example(b"-r requirements.txt\n" * 1000)
@hypothesis.example(b"(" * 200_000)
@hypothesis.example(b"a " * 200_000)
@hypothesis.example(b"#egg=" * 50_000)
@hypothesis.example(b"https://a/" + b"-a" * 900 + b".whl")
@hypothesis.example("\ufeffnumpy".encode("utf-16"))
def test_any_requirements_give_a_verdict(tmp_path: Path, data: bytes) -> None:
    for name in ("requirements.txt", "pyproject.toml"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(
            data if name == "requirements.txt" else b"[project]\ndependencies=" + data
        )
        begun = time.process_time()
        verdict = node_requirements.compare(folder, IMAGE, OVERLAY, node_requirements.parser(SITE))
        assert time.process_time() - begun < 5
        assert all(line.isprintable() and len(line) < 200 for line in verdict.unclear)


@pytest.mark.parametrize("kind", ["fifo", "device", "other name", "itself"])
def test_requirements_that_cannot_be_read_are_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "requirements.txt"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "itself":
        path.write_text("-r requirements.txt\n")
    else:
        (tmp_path / "Requirements.txt").write_text("numpy\n")
    parse = node_requirements.parser(sysconfig.get_paths()["purelib"])
    (said,) = node_requirements.compare(tmp_path, {}, {}, parse).unclear
    ends = {"itself": "which is itself", "other name": "Requirements.txt is not called requirements.txt"}
    assert said.endswith(ends.get(kind, "requirements.txt is not a plain file"))
