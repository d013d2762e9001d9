"""Which of a volume's custom nodes ComfyUI may load, and what is said about the others."""

from __future__ import annotations

import json
import os
import sysconfig
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import pytest

from pod.errors import PodError
from pod.volume import custom_nodes, node_requirements
from pod.volume.custom_nodes import Nodes
from pod.volume.node_requirements import NodeReport
from podkiln.render import examples

if TYPE_CHECKING:
    from pathlib import Path

SITE = sysconfig.get_paths()["purelib"]
HAS = "packaging"  # which is in SITE


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "custom_nodes"
    for name, wants in {
        "fine": HAS,
        "lacks": "insightface>=0.7\n",
        "clashes": f"{HAS}<1",
        "plain": None,
    }.items():
        (folder / name).mkdir(parents=True)
        if wants is not None:
            (folder / name / "requirements.txt").write_text(wants)
    for name in ("__pycache__", "off.disabled", ".disabled"):
        (folder / name).mkdir()
        (folder / name / "requirements.txt").write_text(f"{HAS}<1")
    (folder / "single.py").write_text("")
    (folder / "example.py.example").write_text("")
    return folder


@pytest.fixture
def image(tmp_path: Path) -> Path:
    folder = tmp_path / "image"
    (folder / "Lacks").mkdir(parents=True)
    (folder / "websocket_image_save.py").write_text("")
    return folder


def look(volume: Path, image: Path, wish: str = custom_nodes.CHECK) -> Nodes:
    return custom_nodes.inspect_nodes([str(volume)], SITE, None, wish, [str(image)])


def test_the_one_that_clashes_is_left_out_and_the_others_are_named(volume: Path, image: Path) -> None:
    found = look(volume, image)
    assert [one.node for one in found.left_out] == ["clashes"]
    assert [one.node for one in found.lacking] == ["lacks"]
    assert found.arguments() == (
        "--disable-all-custom-nodes",
        "--whitelist-custom-nodes",
        *("Lacks", "fine", "lacks", "plain", "single.py", "websocket_image_save.py"),
    )


def test_each_thing_is_said_in_a_sentence(volume: Path, image: Path) -> None:
    clash, lacks, twice = look(volume, image).warnings()
    version = next(v for n, v in node_requirements.installed(SITE).items() if n == HAS)
    assert clash == (
        f"custom node clashes requires {HAS}<1, and the image has {version}: it is left out, because ComfyUI "
        "needs that version; NODE_REQUIREMENTS=ignore loads it all the same"
    )
    assert "(lacks: insightface>=0.7)" in lacks
    assert "NODE_REQUIREMENTS=install" in lacks
    assert twice.startswith("custom node lacks is on the volume and in the image")
    (image / "clashes").mkdir()
    assert look(volume, image).warnings() == [clash, lacks, twice], "where one is left out, none is loaded"


def test_what_is_ignored_is_loaded_and_said(volume: Path, image: Path) -> None:
    found = look(volume, image, custom_nodes.IGNORE)
    assert found.arguments() == ()
    assert "loaded, as NODE_REQUIREMENTS=ignore says" in found.warnings()[0]


def test_what_will_be_installed_is_not_complained_about(volume: Path, image: Path) -> None:
    assert not any("lack packages" in each for each in look(volume, image, custom_nodes.INSTALL).warnings())


def test_nothing_to_keep_out_means_no_arguments(volume: Path, image: Path) -> None:
    (volume / "clashes" / "requirements.txt").unlink()
    assert look(volume, image).arguments() == ()


def test_without_nodes_nothing_is_looked_up(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_requirements, "parser", None)
    found = custom_nodes.inspect_nodes([str(tmp_path / "none")], SITE, None, custom_nodes.CHECK, [str(image)])
    assert (found.verdicts, found.names) == ((), ("Lacks", "websocket_image_save.py"))


def test_no_parser_is_said(volume: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_requirements, "parser", lambda _site: None)
    assert "are not checked: there is no `packaging`" in look(volume, image).warnings()[-1]


def test_a_node_that_cannot_be_read_is_loaded_and_marked(volume: Path, image: Path) -> None:
    (volume / "plain" / "requirements.txt").symlink_to("/proc/self/mem")  # reading it fails with EIO
    (verdict,) = [one for one in look(volume, image).verdicts if one.node == "plain"]
    assert verdict.unclear[0].startswith("cannot be read (")


def test_many_nodes_are_all_read(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"node-{number:03}").mkdir()
        (tmp_path / f"node-{number:03}" / "requirements.txt").write_text(f"missing-{number}\n" * 3)
    found = custom_nodes.inspect_nodes([str(tmp_path)], SITE, None, custom_nodes.CHECK, ["/nowhere"])
    assert [one.missing for one in found.verdicts] == [(f"missing-{number}",) for number in range(100)]
    assert "and 94 more" in found.warnings()[0]


def test_it_survives_the_way_between_processes(volume: Path, image: Path) -> None:
    found = look(volume, image)
    assert Nodes.from_json(json.loads(json.dumps(found.to_json()))) == found


ANSWERS = {
    "": custom_nodes.CHECK,
    " Check": custom_nodes.CHECK,
    "install": custom_nodes.INSTALL,
    "IGNORE": custom_nodes.IGNORE,
}


@pytest.mark.parametrize("value", ANSWERS)
def test_the_variable_has_three_answers(value: str) -> None:
    assert custom_nodes.asked({custom_nodes.VARIABLE: value}) == ANSWERS[value]


def test_any_other_answer_is_refused() -> None:
    with pytest.raises(PodError, match=r"'yes' is not one of check, install, ignore") as refused:
        custom_nodes.asked({custom_nodes.VARIABLE: "yes"})
    assert refused.value.exit_code == 78


def test_names_that_would_be_taken_for_flags_are_not_passed() -> None:
    found = Nodes(("--cpu", "b", "bad"), verdicts=(NodeReport("bad", ("x<1, and the image has 2",)),))
    assert found.arguments() == ("--disable-all-custom-nodes", "--whitelist-custom-nodes", "b")
    alone = Nodes(("bad",), verdicts=found.verdicts)
    assert alone.arguments() == ("--disable-all-custom-nodes",)


def test_what_is_not_understood_is_said_and_counts(volume: Path, image: Path) -> None:
    (volume / "plain" / "requirements.txt").write_text("git+https://git.example/a.git\nx --no-deps\n")
    found = look(volume, image)
    assert [one.node for one in found.unclear] == ["plain"]
    assert found.warnings()[-1] == (
        "of the requirements of custom nodes some are not understood, so they are neither checked nor "
        "installed (plain: git+https://git.example/a.git, x --no-deps): install what they need by hand"
    )


def test_a_marker_that_cannot_be_evaluated_is_one_nodes_affair(volume: Path, image: Path) -> None:
    """It ended a reader, and as many as there are readers left every node without a verdict."""
    for number in range(40):
        (volume / f"odd{number:02}").mkdir()
        (volume / f"odd{number:02}" / "requirements.txt").write_text("x; os_name ~= 'x'\n")
    found = look(volume, image)
    assert len(found.unclear) == 40
    assert [one.node for one in found.left_out] == ["clashes"]
    assert [one.node for one in found.lacking] == ["lacks"]


def test_a_mistake_of_our_own_is_one_nodes_affair_too(
    volume: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = node_requirements.compare

    def judge(folder: Path, *others: Any) -> NodeReport:
        if folder.name == "plain":
            raise RuntimeError("oops")
        return real(folder, *others)

    monkeypatch.setattr(node_requirements, "compare", judge)
    found = look(volume, image)
    assert [(one.node, one.unclear) for one in found.unclear] == [
        ("plain", ("cannot be judged (RuntimeError)",))
    ]
    assert [one.node for one in found.left_out] == ["clashes"]


def test_names_that_are_no_utf_8_are_kept_as_they_are(volume: Path, image: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    (volume / name).mkdir()
    (volume / name / "requirements.txt").write_text(f"{HAS}<1")
    (volume / os.fsdecode(b"autre\xe9")).mkdir()
    found = look(volume, image)
    assert name in [one.node for one in found.left_out]
    assert os.fsdecode(b"autre\xe9") in found.arguments()
    assert Nodes.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_what_lies_outside_of_the_image_is_the_users_own(volume: Path, image: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    (linked / "far").mkdir(parents=True)
    found = custom_nodes.inspect_nodes(
        [str(volume)], SITE, None, custom_nodes.CHECK, [str(image)], [str(linked), "/nowhere"]
    )
    assert found.own == ("clashes", "far", "fine", "lacks", "plain", "single.py")
    assert "far" in found.arguments()
    assert (found.has_own("FAR"), found.has_own("Lacks"), found.has_own("websocket_image_save.py")) == (
        True,
        True,
        False,
    )


def test_what_is_unwanted_is_kept_out_beside_what_clashes(volume: Path, image: Path) -> None:
    found = look(volume, image)
    others = ("fine", "lacks", "later", "plain", "single.py", "websocket_image_save.py")
    assert found.arguments(["Lacks"], ["later"])[2:] == others
    assert Nodes(("a", "b")).arguments(["b"], ["c"]) == (
        "--disable-all-custom-nodes",
        "--whitelist-custom-nodes",
        "a",
        "c",
    )


def test_the_image_s_own_nodes_of_every_folder_stay_when_one_is_left_out(
    volume: Path, image: Path, tmp_path: Path
) -> None:
    (tmp_path / "examples" / "podkiln").mkdir(parents=True)
    own = (str(image), str(tmp_path / "examples"))
    found = custom_nodes.inspect_nodes([str(volume)], SITE, None, custom_nodes.CHECK, own)
    assert "podkiln" in found.arguments()
    # A link file of the image's names the folder with its examples: that does not make them the user's own.
    again = custom_nodes.inspect_nodes([str(volume)], SITE, None, custom_nodes.CHECK, own, [own[1]])
    assert again.own == found.own
    assert "podkiln" not in again.own


def test_without_a_look_the_same_nodes_are_known(volume: Path, image: Path, tmp_path: Path) -> None:
    """As where a folder of the container's stands in for a volume that hangs."""
    (tmp_path / "examples" / "podkiln").mkdir(parents=True)
    images = (str(image), str(tmp_path / "examples"))
    judged = custom_nodes.inspect_nodes([str(volume)], SITE, None, custom_nodes.CHECK, images)
    found = custom_nodes.unjudged([str(volume)], custom_nodes.CHECK, images)
    assert (found.names, found.own, found.wish) == (judged.names, judged.own, judged.wish)
    assert "podkiln" in found.names


def test_what_lies_in_every_image_is_what_is_counted_on() -> None:
    assert set(custom_nodes.USUAL) == {PurePath(examples.NODE).name, "websocket_image_save.py"}
    assert PurePath("/opt", examples.NODE).parent == PurePath(custom_nodes.EXAMPLES)
