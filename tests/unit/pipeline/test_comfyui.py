"""A ComfyUI release is described by one command, and what names one that does not fit is one sentence.

The trees are small and our own; the resolver is the real uv, over a folder of empty wheels.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from comfyui_trees import cli_args, tree
from descriptions import VARIANT, write
from wheels import Shelf

from podkiln import cli
from podkiln.config import comfyui_flags, document, model_folders, releases
from podkiln.config import variant as variants
from podkiln.errors import DescriptionError, LockError, PodkilnError, SourceError, UsageError
from podkiln.lock import locations, reader, requirements
from podkiln.lock.resolve import comfyui_checkout, relock, upgrades
from podkiln.pipeline import comfyui
from podkiln.render import flags_json

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.pipeline.release_report import ReleaseReport

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEWER = '[project]\nrequires-python = ">=3.14"\n'
OWN = """\
runtime:
  comfyui: 0.34.0
  python:
    requirements: mine.in
    layers:
      - {name: big, why: large, packages: [bar]}
      - {name: rest, why: small, packages: ["*"]}
  jupyter: null
nodes: []
"""


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No repository answers, unless a test has one."""

    def silent(repo: str, *_: object) -> Any:
        raise SourceError(f"{repo} could not be asked.")

    for name in ("releases", "tree", "fetch"):
        monkeypatch.setattr(upgrades, name, silent)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tree(tmp_path / "source", cli_args=cli_args("--new-one"))


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A variant of one's own that names a release, and what pip would find."""
    shelf = Shelf(tmp_path / "shelf")
    shelf.add("foo", "1.0", requires=("bar>=1",))
    shelf.add("bar", "1.0")
    shelf.add("uv", "0.9")
    for key, value in shelf.environment.items():
        monkeypatch.setenv(key, value)
    write(tmp_path / "studio/mine.in", "-r {comfyui}\nbar==1.0\n")
    return write(tmp_path / "studio/mine.yaml", VARIANT + OWN)


def describe(name: str, mine: Path, source: Path, **more: Any) -> ReleaseReport:
    return comfyui.describe(comfyui.ReleaseRequest(name, str(mine), source, **more))


def test_the_shipped_release_is_written_as_it_is_committed(tmp_path: Path) -> None:
    """Its source is not ours to commit: what is written of what was read is what stands in the files."""
    found, _ = releases.load("0.33.0")
    folders = releases.load_folders("0.33.0")
    from podkiln.config import cli_args as read
    from podkiln.config import folder_paths, python_requirements, release_text

    pin = release_text.Pin(found.comfyui, found.repo, found.commit, found.tree)
    flags = tuple(read.ReadFlag(line=0, **flag.model_dump()) for flag in found.flags)
    assert release_text.flags(pin, flags) == releases.flags_path("0.33.0", releases.SHIPPED).read_text()
    known = folder_paths.ReadFolders(folders.folders, folders.outside, folders.legacy)
    assert release_text.folders(pin, known) == releases.folders_path("0.33.0", releases.SHIPPED).read_text()
    asked = releases.requirements_path("0.33.0", releases.SHIPPED)
    lines = tuple(python_requirements.plain_lines(asked))
    assert release_text.requirements(pin, lines) == asked.read_text()


def test_a_release_beside_a_variant_is_enough_to_name_it(mine: Path, source: Path) -> None:
    report = describe(f"0.34.0@{COMMIT}", mine, source)
    folder = mine.parent
    assert {str(path.relative_to(folder)) for path in report.written} == {
        "flags/comfyui-0.34.0.yaml",
        "flags/folders-0.34.0.yaml",
        "python/comfyui-0.34.0.in",
        "mine.locks/comfyui-0.34.0-cuda-13.0/python/big.txt",
        "mine.locks/comfyui-0.34.0-cuda-13.0/python/rest.txt",
        "mine.locks/comfyui-0.34.0-cuda-13.0/uv.txt",
        "mine.locks/comfyui-0.34.0-cuda-13.0/runtime.json",
    }
    described = variants.load(str(mine))
    pinned = described.spec.runtime.comfyui
    assert (pinned.version, pinned.commit) == ("0.34.0", COMMIT)
    assert pinned.arguments == variants.load("lazy").spec.runtime.comfyui.arguments
    lock = reader.read(described, [])
    assert lock.packages_by_layer() == {"big": {"bar"}, "rest": {"foo"}}
    data = flags_json.to_json("0.34.0", list(pinned.arguments), folder=described.flags)
    assert "--new-one" in {flag["name"] for flag in data["flags"]}
    assert model_folders.load("0.34.0", described.flags).outside == ("custom_nodes",)


def test_a_release_that_is_read_again_is_written_no_more_and_compared_as_before(
    mine: Path, source: Path
) -> None:
    first = describe(f"0.34.0@{COMMIT}", mine, source)
    report = describe("0.34.0", mine, source)
    assert report.written == ()
    assert (report.before, report.rows) == ("0.33.0", first.rows)


def test_it_is_compared_with_what_the_same_cuda_comes_to() -> None:
    before, after = variants.load("lazy"), variants.load("lazy", "12.8")
    assert comfyui._compared_with(before, after).spec.runtime.name == "comfyui-0.33.0-cuda-12.8"


@pytest.mark.parametrize(("named", "says"), [("lazy", "is a shipped one"), ("base.yaml", "only there to be")])
def test_only_a_variant_of_ones_own_that_is_built_is_written_beside(
    named: str, says: str, source: Path, tmp_path: Path
) -> None:
    write(tmp_path / "base.yaml", VARIANT + "abstract: true\n")
    path = named if named == "lazy" else str(tmp_path / named)
    with pytest.raises(UsageError, match=says):
        comfyui.describe(comfyui.ReleaseRequest(f"0.34.0@{COMMIT}", path, source))
    assert not (tmp_path / "flags").exists()


def test_the_report_says_what_changes(mine: Path, source: Path, tmp_path: Path) -> None:
    describe(f"0.34.0@{COMMIT}", mine, source)
    text = cli_args("--newer", without=("--cpu-vae",)).replace('nargs="?"', 'nargs="*"')
    later = tree(tmp_path / "later", "0.35.0", "foo>=1\nuv\n", cli_args=text)
    mine.write_text(mine.read_text().replace("0.34.0", "0.35.0"))
    # The variant names what is not described yet: it is compared with the shipped release.
    assert describe(f"0.35.0@{COMMIT}", mine, later, lock=False).before == "0.33.0"
    mine.write_text(mine.read_text().replace("0.35.0", "0.34.0"))
    report = describe("0.35.0", mine, later)
    assert report.before == "0.34.0"
    assert set(report.rows) == {
        ("flag changed", "--listen (arity)", "optional", "any"),
        ("flag gone", "--cpu-vae", "", ""),
        ("flag gone", "--new-one", "", ""),
        ("flag new", "--newer", "", "not described in annotations.yaml"),
        ("requirement changed", "foo", "any", ">=1"),
        ("requirement new", "uv", "", "any"),
        ("wheel new", "uv", "", "0.9"),
    }
    assert report.layers == ("rest", "ComfyUI", "podkiln's own files")
    assert "| flag gone | --cpu-vae |  |  |" in report.markdown()
    assert "  flag changed: --listen (arity): optional -> any" in report.lines()
    # --cpu-vae is an argument of the profile `conservative`.
    assert len(report.problems) == 2
    assert re.search(
        r"profiles.yaml:\d+: profiles.conservative.classes.6..args: .*no flag --cpu-vae", report.problems[0]
    )


def test_a_rule_that_names_what_a_release_lacks_stops_each_build_of_it(mine: Path, tmp_path: Path) -> None:
    bare = tree(tmp_path / "bare", cli_args=cli_args(without=("--cpu-vae",)))
    describe(f"0.34.0@{COMMIT}", mine, bare)
    described = variants.load(str(mine))
    with pytest.raises(DescriptionError, match=r"profiles.yaml:\d+: .* has no flag --cpu-vae") as refused:
        flags_json.to_json("0.34.0", [], folder=described.flags)
    assert "`releases`" in str(refused.value.hint)


def test_the_command_says_it_and_fails_where_a_person_has_to_act(
    mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tree(tmp_path / "bare", cli_args=cli_args(without=("--cpu-vae",)))
    page = tmp_path / "new/page.md"
    line = ["comfyui", f"0.34.0@{COMMIT}", f"--source=comfyui={bare}", f"--variant={mine}", f"--table={page}"]
    assert cli.main(line) == DescriptionError.exit_code
    said = capsys.readouterr()
    assert "rule to change: " in said.out
    assert said.err.count("has no flag --cpu-vae") == 1
    assert "### Rules to change" in page.read_text()


# --- rules with a range of releases


@pytest.fixture
def ruled(tmp_path: Path, source: Path) -> Path:
    """A copy of variants/flags/ with one more release in it."""
    folder = tmp_path / "rules"
    shutil.copytree(releases.SHIPPED, folder)
    text = releases.flags_path("0.33.0", folder).read_text()
    older = text.replace("arity: any, action: VerboseAction", "arity: optional")
    for version, flags in (("0.20.0", older), ("0.38.1", text)):
        path = releases.flags_path(version, folder)
        path.write_text(flags.replace("comfyui: 0.33.0", f"comfyui: {version}"))
    return folder


def limits(version: str, folder: Path) -> list[int]:
    return [rule.below_gb for rule in comfyui_flags.load(version, folder).profiles.ram]


def test_a_rule_that_a_release_outdates_is_left_out_of_it(ruled: Path) -> None:
    """ComfyUI follows the pod's limit itself since 0.38; before, it is counted for it."""
    assert limits("0.33.0", ruled) == limits("0.20.0", ruled) == [16, 128]
    assert limits("0.38.1", ruled) == [16]
    (said,) = comfyui_flags.outdated("0.33.0", "0.38.1", ruled)
    assert re.search(r"profiles.yaml:\d+: ram\[1\]: holds for ComfyUI <0.38, and is left out", said)
    assert comfyui_flags.outdated("0.20.0", "0.33.0", ruled) == []
    reason = comfyui_flags.load("0.20.0", ruled).profiles.ram[1].reason
    assert reason.startswith("ComfyUI 0.20.0 sees the machine's RAM")


def test_of_several_rules_the_one_for_the_release_is_taken(ruled: Path) -> None:
    path = ruled / comfyui_flags.PROFILES
    rule = "    no_gpu:\n      args: [--cpu]\n      reason: without a GPU ComfyUI only starts on the CPU\n"
    both = (
        '    no_gpu:\n      - {args: [--cpu], reason: newer, releases: ">=0.30"}\n'
        '      - {args: [--cpu, --cpu-vae], reason: older, releases: "<0.30"}\n'
    )
    path.write_text(path.read_text().replace(rule, both, 1))
    assert comfyui_flags.load("0.33.0", ruled).profiles.profiles.dynamic.no_gpu.reason == "newer"
    assert comfyui_flags.load("0.20.0", ruled).profiles.profiles.dynamic.no_gpu.args == ("--cpu", "--cpu-vae")
    path.write_text(path.read_text().replace('">=0.30"', '">=0.38"').replace('"<0.30"', '"<0.20"'))
    with pytest.raises(
        DescriptionError, match=r"profiles.dynamic.no_gpu: none of these rules is for ComfyUI 0.33.0"
    ):
        comfyui_flags.check("0.33.0", ruled)


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("profiles.yaml", 'releases: "<0.38"', "releases: soon", "no range of releases"),
        ("profiles.yaml", 'releases: "<0.38"', 'releases: ""', "no range of releases"),
        ("dead.yaml", 'releases: ">=0.22"', 'releases: "0.22"', "no range of releases"),
        ("dead.yaml", "  --medvram:", "  --cpu:", "does have this flag"),
        ("annotations.yaml", '--lowvram, releases: "<0.22"', "--lowvram", "--lowvram is described twice"),
        (
            "annotations.yaml",
            "action: VerboseAction, ",
            "",
            "what VerboseAction does with the values",
        ),
        (
            "comfyui-0.33.0.yaml",
            "comfyui: 0.33.0",
            "comfyui: 0.32.0",
            "after 0.33.0, but says 0.32.0",
        ),
    ],
)
def test_a_range_that_is_none_is_named(ruled: Path, file: str, old: str, new: str, says: str) -> None:
    text = (ruled / file).read_text()
    assert old in text
    (ruled / file).write_text(text.replace(old, new, 1))
    with pytest.raises(DescriptionError, match=says) as refused:
        comfyui_flags.load("0.33.0", ruled)
    assert "\n" not in str(refused.value)


def test_a_flag_that_came_later_is_said_to(ruled: Path) -> None:
    path = releases.flags_path("0.20.0", ruled)
    lines = [line for line in path.read_text().splitlines() if "--vram-headroom" not in line]
    path.write_text("\n".join(lines))
    found = comfyui_flags.load("0.20.0", ruled).flags
    assert {"--vram-headroom", "--offline"} <= set(found.later)
    assert "--high-ram" not in found.later  # this one has it


def test_a_flag_is_not_said_to_undo_one_that_its_release_lacks(ruled: Path) -> None:
    path = releases.flags_path("0.20.0", ruled)
    lines = [line for line in path.read_text().splitlines() if "--enable-dynamic-vram" not in line]
    path.write_text("\n".join(lines))
    for version, other in (("0.20.0", None), ("0.33.0", "--enable-dynamic-vram")):
        flags = {flag.name: flag for flag in comfyui_flags.load(version, ruled).flags.flags}
        assert flags["--disable-dynamic-vram"].opposite == other


# --- what contradicts itself: one sentence, before anything is built


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("comfyui: 0.99.0", r"mine.yaml:6: runtime.comfyui: ComfyUI '0.99.0' is not described"),
        ("comfyui: {version: 0.99.0}", r"mine.yaml:6: runtime.comfyui: ComfyUI '0.99.0' is not described"),
        ("comfyui: latest", r"mine.yaml:6: runtime.comfyui: ComfyUI 'latest' is not described"),
        (
            "comfyui: 0.33",
            r"mine.yaml:6: runtime.comfyui: expected a whole release such as 0.33.0",
        ),
        ("comfyui: [0.33.0]", r"mine.yaml:6: runtime.comfyui: "),
        ("comfyui: {version: 1}", r"mine.yaml:6: runtime.comfyui.version: "),
        ('comfyui: ""', r"mine.yaml:6: runtime.comfyui: ComfyUI '' is not described"),
    ],
)
def test_a_release_that_is_none_is_one_sentence(tmp_path: Path, key: str, says: str) -> None:
    path = write(tmp_path / "mine.yaml", f"{VARIANT}runtime: {{{key}}}\n")
    with pytest.raises(DescriptionError, match=says) as refused:
        variants.load(str(path))
    assert "\n" not in str(refused.value)
    if "not described" in says:
        assert f"--variant {path}`" in str(refused.value.hint)
        assert "Described: 0.33.0." in str(refused.value.hint)


def test_the_shipped_release_may_be_named_too(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.yaml", f"{VARIANT}runtime: {{comfyui: 0.33.0}}\n")
    own, shipped = (variants.load(name).spec.runtime for name in (str(path), "lazy"))
    assert own == shipped
    assert relock.check([str(path)]) == []


def test_another_release_is_another_runtime_than_the_parents(mine: Path, source: Path) -> None:
    describe(f"0.34.0@{COMMIT}", mine, source, lock=False)
    parent = "extends: base\ntitle: x\ndescription: x\nmodels: {offer: []}\n"
    write(mine.parent / "parent.yaml", parent + "runtime: {name: parent-1, comfyui: 0.33.0}\n")
    mine.write_text("extends: parent.yaml\nruntime: {comfyui: 0.34.0}\n")
    assert variants.load(str(mine.parent / "parent.yaml")).spec.runtime.name == "parent-1"
    assert variants.load(str(mine)).spec.runtime.name == "comfyui-0.34.0-cuda-13.0"


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("flags/folders-0.34.0.yaml", None, "", "There is no folders-0.34.0.yaml"),
        ("flags/folders-0.34.0.yaml", COMMIT, "f" * 40, "its flags are those of another commit"),
        ("flags/folders-0.34.0.yaml", "comfyui: 0.34.0", "comfyui: 0.35.0", "is named after 0.34.0"),
        ("flags/folders-0.34.0.yaml", "folders:\n  - checkpoints", "folders:\n  - 7", r"folders\[0\]"),
    ],
)
def test_folders_that_do_not_fit_the_flags(
    mine: Path, source: Path, file: str, old: str | None, new: str, says: str
) -> None:
    describe(f"0.34.0@{COMMIT}", mine, source, lock=False)
    path = mine.parent / file
    if old is None:
        path.unlink()
    else:
        path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DescriptionError, match=says):
        model_folders.load("0.34.0", mine.parent / "flags")


def test_requirements_that_are_not_there_are_named_with_the_command(mine: Path, source: Path) -> None:
    describe(f"0.34.0@{COMMIT}", mine, source, lock=False)
    (mine.parent / "python/comfyui-0.34.0.in").unlink()
    with pytest.raises(
        DescriptionError, match=r"mine.yaml:7: runtime.comfyui: .*there is no file"
    ) as refused:
        requirements.inputs_digest(variants.load(str(mine)))
    assert f"`./build.py comfyui 0.34.0 --variant {mine}`" in str(refused.value.hint)


def test_a_release_without_a_lock_names_the_command(mine: Path, source: Path) -> None:
    describe(f"0.34.0@{COMMIT}", mine, source, lock=False)
    with pytest.raises(LockError, match="There is no lock") as refused:
        reader.read(variants.load(str(mine)), [])
    assert f"`./build.py lock --variant {mine}`" in str(refused.value.hint)


@pytest.mark.parametrize(
    "text", ["", "x", "0.33", "v", "0.33.0@", "0.33.0@xyz", "@" + COMMIT, "0.33.0 ", "0.33.0-rc1", "master"]
)
def test_a_name_that_is_neither_release_nor_commit(text: str) -> None:
    if text in {"0.33", "@" + COMMIT}:
        assert comfyui_checkout.Named.parse(text)
        return
    with pytest.raises(UsageError, match="is neither a release nor a commit"):
        comfyui_checkout.Named.parse(text)


@pytest.mark.parametrize(
    ("name", "files", "says"),
    [
        ("0.35.0", {}, r"source is ComfyUI 0.34.0, and not 0.35.0"),
        ("0.34.0", {}, r"The commit of ComfyUI 0.34.0 is not known: .* is no checkout of git, and https://"),
        ("0123456", {}, r"0123456 is a part of a commit"),
        ("newest", {}, r"ComfyUI could not be asked"),
        (COMMIT, {"comfyui_version.py": "version = 1\n"}, r"comfyui_version.py:1: there is no `__version__`"),
        (COMMIT, {"comfyui_version.py": '__version__ = "x"\n'}, r"comfyui_version.py:1: there is no"),
        (
            COMMIT,
            {"pyproject.toml": '[project]\nrequires-python = ">=3.14"\n'},
            r"is for Python >=3.14, and this is 3.13",
        ),
        (COMMIT, {"pyproject.toml": "["}, r"pyproject.toml cannot be read"),
        (COMMIT, {"requirements.txt": "\xff"}, r"requirements.txt:1: podkiln locks packages"),
    ],
)
def test_a_source_that_is_not_what_is_asked_for(
    mine: Path, source: Path, name: str, files: dict[str, str], says: str
) -> None:
    for path, text in files.items():
        (source / path).write_text(text, encoding="utf-8")
    with pytest.raises(PodkilnError, match=says) as refused:
        describe(name, mine, source)
    assert "\n" not in str(refused.value)
    assert not (mine.parent / "flags").exists()


def test_without_a_source_github_is_asked(mine: Path) -> None:
    with pytest.raises(SourceError, match=r"no folder is given .*, and https://.* could not be asked"):
        comfyui.describe(comfyui.ReleaseRequest("0.34.0", str(mine)))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (["0.34.0", "--pin", "--variant=x.yaml"], "--pin moves the shipped variants"),
        (["0.34.0", "--variant=no.yaml"], "There is no variant 'no.yaml'"),
        (["0.34.0", "--source=comfyui=/nowhere"], "there is no folder /nowhere"),
        (["0.34.0", "--source=x"], "here it is comfyui=DIR, once"),
        (["0.34.0", "--source=comfyui=https://x.test/y#z"], "here it is comfyui=DIR, once"),
        ([], "Missing argument"),
    ],
)
def test_a_line_that_contradicts_itself(
    line: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["comfyui", *line]) in {
        UsageError.exit_code,
        DescriptionError.exit_code,
        SourceError.exit_code,
    }
    assert says in capsys.readouterr().err


# --- checkouts


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=Test", "-c", "user.email=test@example.com", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(source: Path) -> Path:
    git(source, "init", "--quiet")
    git(source, "add", "--all")
    git(source, "commit", "--quiet", "--message=one")
    return source


def test_of_a_checkout_commit_and_tree_are_known(mine: Path, checkout: Path) -> None:
    git(checkout, "tag", "v0.34.0")
    describe("0.34.0", mine, checkout, lock=False)
    pinned = variants.load(str(mine)).spec.runtime.comfyui
    assert pinned.commit == git(checkout, "rev-parse", "HEAD")
    assert pinned.tree == git(checkout, "rev-parse", "HEAD^{tree}")


def test_a_commit_after_a_release_is_called_by_both(mine: Path, checkout: Path) -> None:
    git(checkout, "tag", "v0.34.0")
    git(checkout, "commit", "--quiet", "--allow-empty", "--message=two")
    head = git(checkout, "rev-parse", "HEAD")
    assert describe(head[:10], mine, checkout, lock=False).after == f"0.34.0-{head[:12]}"
    name = f"0.34.0-{head[:12]}"
    mine.write_text(mine.read_text().replace("comfyui: 0.34.0", f"comfyui: {name}"))
    described = variants.load(str(mine))
    assert described.spec.runtime.name == f"comfyui-{name}-cuda-13.0"
    assert len(comfyui_flags.load(name, described.flags, releases.SHIPPED).profiles.ram) == 2
    with pytest.raises(UsageError, match=r"is at .*, and v0.34.0 is .*: check that out"):
        describe("0.34.0", mine, checkout)
    with pytest.raises(UsageError, match=r"is at .*, and not at 0123456: check that commit out"):
        describe("0123456", mine, checkout)


def test_a_checkout_with_changes_is_said_to_have_them(mine: Path, checkout: Path) -> None:
    (checkout / "more.py").write_text("")
    (note,) = describe("0.34.0", mine, checkout, lock=False).warnings
    assert "what was read is the folder's" in note


def test_the_files_are_fetched_where_the_repository_answers(
    tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    git(checkout, "tag", "v0.34.0")
    repo = checkout.as_uri()
    named = comfyui_checkout.newest(repo)
    assert named == comfyui_checkout.Named("0.34.0", git(checkout, "rev-parse", "HEAD"))
    found = comfyui_checkout.fetched(comfyui_checkout.Named("0.34.0", None), repo, tmp_path / "fetched")
    assert found.tree == git(checkout, "rev-parse", "HEAD^{tree}")
    assert (tmp_path / "fetched/comfy/cli_args.py").read_text() == (
        checkout / "comfy/cli_args.py"
    ).read_text()
    assert not (tmp_path / "fetched/comfy/options.py").exists()
    with pytest.raises(SourceError, match=r"has no release 0.9.0; its newest is 0.34.0"):
        comfyui_checkout.fetched(comfyui_checkout.Named("0.9.0", None), repo, tmp_path / "none")


# --- the shipped variants


def test_the_shipped_variants_move_by_one_line(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base.yaml"
    shutil.copy(variants.SHIPPED / "base.yaml", base)
    monkeypatch.setattr(comfyui, "_BASE", base)
    assert comfyui._pin("0.34.0") == [base]
    before = (variants.SHIPPED / "base.yaml").read_text().splitlines()
    changed = [(a, b) for a, b in zip(before, base.read_text().splitlines(), strict=True) if a != b]
    assert len(changed) == 1
    assert document.load(base).data["runtime"]["comfyui"]["version"] == "0.34.0"
    assert comfyui._pin("0.34.0") == []


def test_debians_packages_are_those_of_the_base_whatever_the_release(mine: Path, source: Path) -> None:
    describe(f"0.34.0@{COMMIT}", mine, source, lock=False)
    own, shipped = (variants.load(name) for name in (str(mine), "lazy"))
    assert reader.apt_locks(own) == reader.apt_locks(shipped)
    assert locations.default_runtime().name == "comfyui-0.33.0-cuda-13.0"
