"""`nodes --fetch` before ComfyUI starts, and what `nodes` and doctor say of it afterwards."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from git_archives import Commit, commit
from servers.hub import Hub

from pod.checks import report
from pod.commands import nodes
from pod.errors import PodError
from pod.source_trees import nodes as fetching

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATCH = "--- a/nodes.py\n+++ b/nodes.py\n@@ -1 +1 @@\n-first\n+second\n"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


class Pod:
    """A pod whose start has decided to fetch a node, and code for another one."""

    def __init__(self, root: Path, hub: Hub) -> None:
        self.root, self.hub = root, hub
        self.node = self.offer("node", commit(root / "node", {"nodes.py": "first\n"}))
        self.code = self.offer("code", commit(root / "code", {"model.py": "x"}))
        for name in ("opt", "run", "volume"):
            (root / name).mkdir()
        listed = [
            {**self.json("node", self.node), "id": "asks", "folder": "Asks", "included": False, "code": []},
            {**self.json("node", self.node), "id": "ours", "folder": "Ours", "included": True, "code": []},
        ]
        listed[0]["patches"] = [PATCH]
        listed[1]["code"] = [{**self.json("code", self.code), "name": "engine", "folder": None}]
        self.write("opt/nodes.json", {"schema": 1, "nodes": listed})
        self.decision: dict[str, Any] = {
            "volume": {
                "root": f"{root}/volume",
                "workspace": f"{root}/volume",
                "local": f"{root}/local",
                "responsive": True,
            },
            "nodes": [
                {"id": name, "fetch": True, "loaded": True, "own": False, "why": "film needs it"}
                for name in ("asks", "ours")
            ],
        }
        self.write("run/decision.json", self.decision)
        self.environ = {
            "PODKILN_ROOT": f"{root}/opt",
            "PODKILN_RUN": f"{root}/run",
            "GITHUB_ENDPOINT": f"{hub.url}/files",
            "PODKILN_FETCH_TRIES": "1",
        }

    def offer(self, name: str, made: Commit) -> Commit:
        self.hub.add_file(f"o/{name}/archive/{made.commit}.tar.gz", made.archive)
        return made

    @staticmethod
    def json(name: str, made: Commit) -> dict[str, Any]:
        where = {"repo": f"https://github.com/o/{name}", "commit": made.commit, "tree": made.tree}
        return {**where, "submodules": [], "patches": []}

    def write(self, name: str, value: Any) -> None:
        (self.root / name).write_text(json.dumps(value))

    def fetch(self) -> int:
        return nodes.main(["--fetch"], self.environ)

    def told(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((self.root / "run" / "nodes.json").read_text())["nodes"]
        return found


@pytest.fixture
def pod(tmp_path: Path, hub: Hub) -> Pod:
    return Pod(tmp_path, hub)


def test_node_and_code_lie_where_comfyui_finds_them(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    assert pod.fetch() == 0
    local = pod.root / "local"
    assert (local / "nodes" / "Asks" / "nodes.py").read_text() == "second\n"
    assert (local / "code" / "ours-engine" / "model.py").read_text() == "x"
    assert [path.name for path in (local / "nodes").iterdir()] == ["Asks"], "ComfyUI imports all of it"
    kept = (pod.root / "volume" / ".podkiln" / "nodes" / "asks").iterdir()
    assert [path.name for path in kept] == [f"{pod.node.commit}.tar.gz"]
    at = pod.node.commit[:12]
    assert capsys.readouterr().err.splitlines()[0] == (
        f"podkiln: custom node asks is fetched from https://github.com/o/node at {at}."
    )
    assert pod.fetch() == 0
    assert f"asks is there at {at}, kept from an earlier start." in capsys.readouterr().err
    assert len(pod.hub.downloads()) == 2


def test_of_a_node_that_the_user_has_too_the_code_alone_is_fetched(pod: Pod) -> None:
    listed = json.loads((pod.root / "opt/nodes.json").read_text())
    listed["nodes"][0]["code"] = listed["nodes"][1]["code"]
    pod.write("opt/nodes.json", listed)
    pod.decision["nodes"][0] |= {"loaded": False, "own": True}
    pod.write("run/decision.json", pod.decision)
    assert pod.fetch() == 0
    assert (pod.root / "local/code/asks-engine").is_dir()
    assert not (pod.root / "local/nodes").exists()


def test_a_failure_costs_its_node_alone(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    pod.hub.files.clear()
    pod.offer("code", pod.code)
    assert pod.fetch() == 1
    assert (pod.root / "local" / "code" / "ours-engine").is_dir()
    assert not (pod.root / "local" / "nodes" / "Asks").exists()
    assert "custom node asks will not load: what https://github.com/o/node has at" in capsys.readouterr().err
    assert [(each["node"], each["good"]) for each in pod.told()] == [("asks", False), ("ours", True)]


def test_a_volume_that_hangs_is_left_alone(pod: Pod) -> None:
    pod.decision["volume"]["responsive"] = False
    pod.write("run/decision.json", pod.decision)
    assert pod.fetch() == 0
    assert not (pod.root / "volume" / ".podkiln").exists()
    assert (pod.root / "local" / "archives" / "asks").is_dir()


def test_nodes_and_doctor_say_what_became_of_it(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    pod.hub.files.clear()
    pod.offer("node", pod.node)
    pod.fetch()
    off = {"fetch": False, "loaded": False, "own": False, "why": "no model that needs it is on (film)"}
    mine = {**off, "id": "mine", "own": True, "why": "Mine is on the volume, and is used"}
    pod.decision["nodes"] += [mine, {**off, "id": "film"}]
    pod.write("run/decision.json", pod.decision)
    levels = [(each.level, each.message) for each in report.nodes(pod.decision, pod.environ)]
    assert [level for level, _ in levels] == ["note", "note", "warning"]
    assert levels[0][1] == "custom node film is not loaded: no model that needs it is on (film)"
    assert levels[2][1].startswith("custom node ours will not load: what https://github.com/o/code has at")
    capsys.readouterr()
    nodes.show_image(pod.root / "run")
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "asks  loaded: film needs it"
    assert shown[1] == f"asks  is fetched from https://github.com/o/node at {pod.node.commit[:12]}"
    assert shown[-2:] == [
        "mine  loaded: Mine is on the volume, and is used",
        "film  left out: no model that needs it is on (film)",
    ]


def test_a_node_with_code_of_its_own_and_of_others_is_told_of_both(
    pod: Pod, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = json.loads((pod.root / "opt" / "nodes.json").read_text())
    listed["nodes"][0]["code"] = [{**pod.json("code", pod.code), "name": "engine", "folder": None}]
    pod.write("opt/nodes.json", listed)
    pod.decision["nodes"].pop()
    pod.write("run/decision.json", pod.decision)
    assert pod.fetch() == 0
    capsys.readouterr()
    nodes.show_image(pod.root / "run")
    assert [line.split(" at ")[0] for line in capsys.readouterr().out.splitlines()] == [
        "asks  loaded: film needs it",
        "asks  is fetched from https://github.com/o/node",
        "asks  is fetched from https://github.com/o/code",
    ]


def test_all_fetches_share_one_deadline(
    pod: Pod, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fetching, "LONGEST", 0.0)
    assert pod.fetch() == 1
    assert capsys.readouterr().err.count("did not come in the time that a start waits for all") == 2
    assert pod.hub.downloads() == []


def test_what_an_earlier_start_fetched_goes_with_its_model(pod: Pod) -> None:
    assert pod.fetch() == 0
    pod.decision["nodes"][1]["fetch"] = False
    pod.decision["nodes"].append({**pod.decision["nodes"].pop(0)})
    (pod.root / "local" / "nodes" / "Old").mkdir()
    pod.write("run/decision.json", pod.decision)
    assert pod.fetch() == 0
    assert [path.name for path in (pod.root / "local" / "nodes").iterdir()] == ["Asks"]


@pytest.mark.parametrize(("fetched", "installed"), [(True, 0), (True, 1), (False, 0)])
def test_both_words_do_both(
    pod: Pod, monkeypatch: pytest.MonkeyPatch, *, fetched: bool, installed: int
) -> None:
    done: list[str] = []

    def fetch(*_: object) -> bool:
        done.append("fetch")
        return fetched

    def install(*_: object) -> int:
        done.append("install")
        return installed

    monkeypatch.setattr(fetching, "fetch", fetch)
    monkeypatch.setattr(nodes, "_install", install)
    assert nodes.main(["--install", "--fetch"], pod.environ) == max(int(not fetched), installed)
    assert done == ["fetch", "install"]


def test_another_word_is_refused() -> None:
    with pytest.raises(PodError, match=r"takes --install or --fetch, but got '--now'"):
        nodes.main(["--now"], {})
