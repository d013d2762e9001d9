"""Looking at a volume: what is made of each answer, and of none."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pod.errors import PodError
from pod.hardware.mounts import Mount
from pod.util.dataclass import replace
from pod.volume import custom_nodes, foreign_layouts, layout
from pod.volume.inspect import ProbeOptions, VolumeProbe
from podkiln.config import model_folders

if TYPE_CHECKING:
    from pod.volume.volume import Volume


@pytest.fixture
def asked(tmp_path: Path) -> ProbeOptions:
    return ProbeOptions(
        workspace=str(tmp_path / "workspace"),
        default=str(tmp_path / "workspace"),
        serverless=str(tmp_path / "runpod-volume"),
        local=str(tmp_path / "local"),
        run=str(tmp_path / "run"),
        venv=sys.prefix,
        limit=20.0,
    )


def look(asked: ProbeOptions, *mounted: str, write: bool = True) -> Volume:
    with VolumeProbe(
        asked, [Mount(point, "nfs4", read_only=False) for point in mounted], write=write
    ) as question:
        return question.answer()


def test_a_fresh_volume_is_used_and_nothing_is_said(asked: ProbeOptions) -> None:
    volume = look(asked, asked.workspace)
    assert volume.workspace == volume.root == asked.workspace
    assert volume.output == f"{asked.workspace}/output"
    assert volume.node_folders == (f"{asked.workspace}/custom_nodes",)
    assert (volume.local, volume.models, volume.overlay) == (asked.local, (), None)
    assert (volume.reasons, volume.warnings) == ((), ())


def test_without_a_volume_it_is_said_how_long_things_last(asked: ProbeOptions) -> None:
    volume = look(asked)
    assert volume.reasons == (
        f"no volume is mounted at {asked.workspace}, so what ComfyUI saves there ends with this container",
    )
    assert volume.warnings == ()


def test_a_mount_of_the_output_alone_is_a_volume_too(asked: ProbeOptions) -> None:
    assert look(asked, f"{asked.workspace}/output").reasons == ()


def test_a_serverless_worker_has_its_volume_elsewhere(asked: ProbeOptions) -> None:
    volume = look(asked, asked.serverless)
    assert volume.root == asked.serverless
    assert volume.output == f"{asked.serverless}/output"
    assert volume.reasons[0].startswith(f"nothing is mounted at {asked.workspace}, so the volume at ")
    assert len(volume.reasons) == 1


def test_a_workspace_that_a_user_chose_is_not_changed(asked: ProbeOptions, tmp_path: Path) -> None:
    chosen = replace(asked, workspace=str(tmp_path / "mine"))
    assert look(chosen, asked.serverless).root == chosen.workspace


def test_a_second_volume_is_read(asked: ProbeOptions, tmp_path: Path) -> None:
    other = tmp_path / "runpod-volume"
    (other / "ComfyUI" / "models").mkdir(parents=True)
    (other / "custom_nodes" / "node").mkdir(parents=True)
    volume = look(asked, asked.workspace, asked.serverless)
    assert volume.models == (f"{other}/models", f"{other}/ComfyUI/models")
    assert volume.node_folders == (f"{asked.workspace}/custom_nodes", f"{other}/custom_nodes")
    assert not (other / "output").exists(), "it is read, and nothing is made there"


def test_an_older_layout_is_used_and_said(asked: ProbeOptions, tmp_path: Path) -> None:
    home = tmp_path / "workspace" / "ComfyUI"
    for kind in ("models", "output", "user", "custom_nodes"):
        (home / kind / "x").mkdir(parents=True)
    volume = look(asked, asked.workspace)
    assert volume.output == f"{home}/output"
    assert volume.input == f"{asked.workspace}/input"
    assert volume.models == (f"{home}/models",)
    assert volume.reasons == (
        (
            f"another image installed ComfyUI in {home}: its models, outputs, settings, custom nodes are "
            "used where they lie"
        ),
    )


@pytest.fixture
def read_only(asked: ProbeOptions, monkeypatch: pytest.MonkeyPatch) -> ProbeOptions:
    """A volume that cannot be written: what `layout.survey` says of it is tested there."""
    real = layout.survey

    def survey(root: str, *, write: bool, **more: Any) -> layout.VolumeLayout:
        found = real(root, write=write and root != asked.workspace, **more)
        return replace(found, trouble="is read-only") if root == asked.workspace else found

    monkeypatch.setattr(layout, "survey", survey)
    return asked


def test_a_folder_of_the_container_stands_in_for_what_cannot_be_written(
    read_only: ProbeOptions, tmp_path: Path
) -> None:
    (tmp_path / "workspace" / "custom_nodes" / "node").mkdir(parents=True)
    volume = look(read_only, read_only.workspace)
    instead = f"{read_only.local}/workspace"
    assert (volume.root, volume.workspace) == (read_only.workspace, instead)
    assert (volume.output, volume.user) == (f"{instead}/output", f"{instead}/user")
    assert volume.models == (f"{read_only.workspace}/models",)
    assert volume.node_folders == (f"{instead}/custom_nodes", f"{read_only.workspace}/custom_nodes")
    assert volume.warnings == (
        (
            f"{read_only.workspace} is read-only: outputs, inputs, settings, new custom nodes and new models "
            f"go to {instead} and end with this container; what is on the volume is still read"
        ),
    )
    assert volume.environment({}, "/opt/podkiln")["PODKILN_VOLUME"] == read_only.workspace


def test_a_volume_that_hangs_is_left_alone(asked: ProbeOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    real = layout.survey

    def survey(root: str, *, write: bool, **more: Any) -> layout.VolumeLayout:
        if root == asked.workspace:
            time.sleep(60)
        return real(root, write=write, **more)

    monkeypatch.setattr(layout, "survey", survey)
    begun = time.monotonic()
    volume = look(replace(asked, limit=0.3), asked.workspace)
    assert time.monotonic() - begun < 5
    instead = f"{asked.local}/workspace"
    assert (volume.workspace, volume.responsive, volume.models) == (instead, False, ())
    assert volume.node_folders == (f"{instead}/custom_nodes",)
    assert volume.warnings[0].startswith(
        f"{asked.workspace} is left alone (it did not answer within 0.3 s): "
    )
    assert volume.environment({}, "/opt/podkiln")["PODKILN_VOLUME"] == instead, "fetching leaves it alone too"


def test_nodes_that_take_too_long_to_read_are_loaded_unread(
    asked: ProbeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(custom_nodes, "inspect_nodes", lambda *_, **_more: time.sleep(60))
    volume = look(replace(asked, limit=1.0), asked.workspace)
    assert volume.output == f"{asked.workspace}/output"
    assert volume.warnings == (
        "the requirements of the volume's custom nodes are not checked: it did not answer within 1 s",
    )


def test_a_look_that_fails_is_like_one_that_hangs(
    asked: ProbeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = layout.survey

    def survey(root: str, *, write: bool, **more: Any) -> layout.VolumeLayout:
        if root == asked.workspace:
            raise MemoryError("no more")
        return real(root, write=write, **more)

    monkeypatch.setattr(layout, "survey", survey)
    assert "looking at it failed: MemoryError: no more" in look(asked, asked.workspace).warnings[0]


def test_without_writing_nothing_is_made_anywhere(asked: ProbeOptions, tmp_path: Path) -> None:
    before = list(tmp_path.iterdir())
    foretold = look(asked, asked.workspace, write=False)
    assert list(tmp_path.iterdir()) == before
    assert foretold == look(asked, asked.workspace)
    assert (tmp_path / "workspace" / "user").is_dir()


def test_packages_for_nodes_are_used_where_there_are_some(asked: ProbeOptions, tmp_path: Path) -> None:
    assert look(asked, asked.workspace).overlay is None
    base = look(replace(asked, requirements="install"), asked.workspace).overlay
    assert base
    assert base.startswith(f"{asked.workspace}/.podkiln/python/")
    place = tmp_path / base.removeprefix(f"{tmp_path}/")
    (place / "set").mkdir(parents=True)
    (place / "current").write_text("set\n")
    assert look(asked, asked.workspace).overlay == base


def test_the_run_folder_serves_where_the_container_cannot_be_written(
    asked: ProbeOptions, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    assert look(replace(asked, local=f"{tmp_path}/file/x")).local == asked.run
    with pytest.raises(PodError, match="can be written, and ComfyUI needs a place for temporary files"):
        look(replace(asked, local=f"{tmp_path}/file/x", run=f"{tmp_path}/file/y"))


def test_the_environment_says_the_rest() -> None:
    found = ProbeOptions.of({}, "/workspace", "/workspace")
    assert found == ProbeOptions("/workspace", "/workspace")
    given = {
        "PODKILN_VOLUME": "/v",
        "PODKILN_LOCAL": "/l",
        "PODKILN_RUN": "/r",
        "PODKILN_VENV": "/e",
        "NODE_REQUIREMENTS": "ignore",
        "PODKILN_VOLUME_TIMEOUT": "0.5",
    }
    assert ProbeOptions.of(given, "/w", "/d") == ProbeOptions(
        "/w", "/d", "/v", "/l", "/r", "/e", "ignore", 0.5
    )


@pytest.mark.parametrize("value", ["0", "-1", "61", "soon", "nan"])
def test_a_limit_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(
        PodError, match=f"PODKILN_VOLUME_TIMEOUT='{value}' is not a number of seconds"
    ) as refused:
        ProbeOptions.of({"PODKILN_VOLUME_TIMEOUT": value}, "/w", "/w")
    assert refused.value.exit_code == 78


def surveyed(monkeypatch: pytest.MonkeyPatch, root: str, **changes: object) -> None:
    """Have the look at a volume find something that root cannot be refused."""
    real = layout.survey

    def survey(where: str, *, write: bool, **more: Any) -> layout.VolumeLayout:
        found = real(where, write=write, **more)
        return replace(found, **changes) if where == root else found  # type: ignore[arg-type]

    monkeypatch.setattr(layout, "survey", survey)


def test_a_volume_that_may_not_be_read_is_left_alone(
    asked: ProbeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    surveyed(monkeypatch, asked.workspace, unread="cannot be read (Permission denied)")
    volume = look(asked, asked.workspace)
    assert (volume.responsive, volume.workspace) == (False, f"{asked.local}/workspace")
    assert volume.models == ()
    assert volume.warnings[0].startswith(
        f"{asked.workspace} is left alone (it cannot be read (Permission denied)): outputs, inputs, settings"
    )
    assert volume.problems == volume.warnings
    assert volume.environment({}, "/opt/podkiln")["PODKILN_VOLUME"] == volume.workspace


def test_a_serverless_volume_that_may_not_be_read_is_not_used(
    asked: ProbeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runpod-volume" / "models").mkdir(parents=True)
    surveyed(monkeypatch, asked.serverless, unread="cannot be read (Stale file handle)")
    volume = look(asked, asked.workspace)
    assert volume.models == ()
    assert volume.problems == (
        f"{asked.serverless} cannot be read (Stale file handle), so nothing on it is used",
    )


def test_folders_that_may_not_be_read_are_stood_in_for(
    asked: ProbeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = asked.workspace
    surveyed(monkeypatch, root, closed=(f"{root}/user", f"{root}/custom_nodes", f"{root}/models"), nodes=())
    volume = look(asked, root)
    stand_in = f"{asked.local}/workspace"
    assert (volume.workspace, volume.output) == (root, f"{root}/output")
    assert (volume.user, volume.node_folders) == (f"{stand_in}/user", (f"{stand_in}/custom_nodes",))
    (problem,) = volume.problems
    assert problem.startswith(
        f"{root}/user, {root}/custom_nodes, {root}/models cannot be read by this pod's user (or the"
    )
    assert "models cannot be fetched" in problem


def test_models_of_others_are_read_and_that_is_said(asked: ProbeOptions, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    (workspace / "checkpoints").mkdir(parents=True)
    (workspace / "stable-diffusion-webui/models/Stable-diffusion").mkdir(parents=True)
    (workspace / "extra_model_paths.yaml").write_text("a:\n  loras: x\n")
    volume = look(asked, asked.workspace)
    assert (volume.models, volume.webui) == (
        (asked.workspace,),
        (f"{asked.workspace}/stable-diffusion-webui",),
    )
    link = f"{asked.workspace}/extra_model_paths.yaml"
    assert volume.arguments()[-2:] == (
        f"--extra-model-paths-config={link}",
        f"--extra-model-paths-config={asked.run}/volume_paths.yaml",
    )
    assert volume.reasons == (
        (
            f"models lie right in {asked.workspace} (checkpoints): they are used there, and new ones go to "
            f"{asked.workspace}/models"
        ),
        f"the models of another program in {asked.workspace}/stable-diffusion-webui are used where they lie",
        f"{link} is read for further folders",
    )


def test_each_link_file_is_parsed_once(
    asked: ProbeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A big one takes a second, and the look at the volume has two."""
    (tmp_path / "workspace" / "nodes" / "far").mkdir(parents=True)
    links = [f"{tmp_path}/workspace/extra_model_paths.yaml", f"{tmp_path}/given.yaml"]
    for path in links:
        Path(path).write_text(f"a:\n  custom_nodes: {tmp_path}/workspace/nodes\n")
    real = foreign_layouts._parsed

    def parsed(path: str, *rest: Any) -> Any:
        with (tmp_path / "parsed").open("a") as file:
            file.write(f"{path}\n")
        return real(path, *rest)

    monkeypatch.setattr(foreign_layouts, "_parsed", parsed)
    volume = look(replace(asked, links=(links[1],)), asked.workspace)
    assert volume.links == (links[0],)
    assert "far" in volume.nodes.own
    assert [path for path in (tmp_path / "parsed").read_text().splitlines() if path in links] == links


def test_a_link_file_that_comfyui_cannot_read_is_a_problem(asked: ProbeOptions, tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "extra_model_paths.yaml").write_text("a: [")
    volume = look(asked, asked.workspace)
    assert volume.links == ()
    assert "extra_model_paths.yaml is left out, because it is not YAML" in volume.problems[0]


def test_modules_on_the_volume_are_found(asked: ProbeOptions, tmp_path: Path) -> None:
    asked = replace(asked, modules=("sageattention", "flash_attn"))
    assert look(asked, asked.workspace).modules == ()
    base = look(replace(asked, requirements="install"), asked.workspace).overlay or ""
    (tmp_path / base.removeprefix(f"{tmp_path}/") / "set" / "sageattention").mkdir(parents=True)
    (tmp_path / base.removeprefix(f"{tmp_path}/") / "current").write_text("set\n")
    volume = look(asked, asked.workspace)
    assert volume.modules == ("sageattention",)
    assert volume.has("sageattention", "sageattention")
    assert not volume.has("flash_attn", "flash-attn")


def test_what_will_be_installed_for_a_node_counts_as_there(asked: ProbeOptions, tmp_path: Path) -> None:
    node = tmp_path / "workspace" / "custom_nodes" / "node"
    node.mkdir(parents=True)
    (node / "requirements.txt").write_text("SageAttention>=1\n")
    assert look(replace(asked, requirements="install")).has("sageattention", "sageattention")
    assert not look(asked).has("sageattention", "sageattention")


OBSTACLES = {
    "a file": None,
    "a link that leads nowhere": "/nowhere/out",
    "a link that leads back to itself": ".",
}


@pytest.mark.parametrize("what", OBSTACLES)
@pytest.mark.parametrize("kind", ["output", "input", "user", "custom_nodes", "models", ".podkiln"])
def test_what_lies_in_the_place_of_one_folder_costs_that_folder_alone(
    asked: ProbeOptions, tmp_path: Path, kind: str, what: str
) -> None:
    root = tmp_path / "workspace"
    root.mkdir()
    target = OBSTACLES[what]
    if target is None:
        (root / kind).touch()
    else:
        (root / kind).symlink_to(root / kind if target == "." else target)
    foretold, volume = look(asked, write=False), look(asked)
    assert foretold.problems == volume.problems
    assert [problem.partition(":")[0] for problem in volume.problems] == [f"{root}/{kind} is {what}"]
    assert volume.workspace == str(root)
    used = {
        "output": volume.output,
        "input": volume.input,
        "user": volume.user,
        "custom_nodes": volume.node_folders[0],
    }
    for name, folder in used.items():
        place = f"{tmp_path}/local/workspace" if name == kind else root
        assert folder == f"{place}/{name}"
        assert os.path.isdir(folder), "ComfyUI lists it"  # noqa: PTH112
    assert list(root.glob("*probe*")) == []


@pytest.mark.parametrize("tail", ["file", "file/below", "n" * 300])
def test_a_workspace_that_can_never_be_a_folder_is_refused(
    asked: ProbeOptions, tmp_path: Path, tail: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PodError, match=r"^WORKSPACE='/.*: name a folder, such as /workspace\.$") as refused:
        look(replace(asked, workspace=str(tmp_path / tail)))
    assert refused.value.exit_code == 78


ELSEWHERE = {
    "Checkpoints/a": "models/checkpoints",
    "Lora/a": "models/loras",
    "VAE/a": "models/vae",
    "Stable-diffusion/a": "models/checkpoints",
    "models/Checkpoints/a": "models/checkpoints",
    "models/Stable-diffusion/a": "models/checkpoints",
    "SwarmUI/Models/a": "models",
    "automatic/models/a": "models",
    "invokeai/models/a": "models",
    "ComfyUI_windows_portable/ComfyUI/models/a": "models",
    "workspace/ComfyUI/models/a": "models",
    "app/ComfyUI/models/a": "models",
    "data/models/a": "models",
}


@pytest.mark.parametrize("place", ELSEWHERE)
def test_models_that_nobody_reads_are_named_with_where_they_belong(
    asked: ProbeOptions, tmp_path: Path, place: str
) -> None:
    root = tmp_path / "workspace"
    (root / place).mkdir(parents=True)
    (tmp_path / "folders.json").write_text(json.dumps(model_folders.to_json("0.33.0")), encoding="utf-8")
    (said,) = look(replace(asked, root=str(tmp_path))).problems
    why = "is not read, because ComfyUI looks elsewhere: what is in it belongs in"
    assert said == f"{(root / place).parent} {why} {root}/{ELSEWHERE[place]}"


def test_weights_in_the_root_are_named(asked: ProbeOptions, tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    for name in ("a.safetensors", "b.GGUF", "notes.txt"):
        (tmp_path / "workspace" / name).touch()
    (said,) = look(asked).problems
    assert said.startswith(f"{tmp_path}/workspace/a.safetensors and 1 more is not read")


QUANTO = "wan2.1_scail_preview_14B_quanto_bf16_int8.safetensors"


def test_what_was_put_there_for_wan2gp_is_named_with_what_can_be_used(
    asked: ProbeOptions, tmp_path: Path
) -> None:
    root = tmp_path / "workspace"
    for name in ("umt5-xxl", "pose", "mask"):
        (root / name).mkdir(parents=True)
    (root / QUANTO).touch()
    (tmp_path / "folders.json").write_text(json.dumps(model_folders.to_json("0.33.0")), encoding="utf-8")
    said = look(replace(asked, root=str(tmp_path))).problems
    assert [each.partition(" ")[0] for each in said] == [
        f"{root}/{name}" for name in (QUANTO, "umt5-xxl", "pose", "mask")
    ]
    assert "quanto's int8, which ComfyUI cannot load: ENABLE_SCAIL=true fetches the fp8 file" in said[0]
    assert "yolox and dw-ll are not needed" in said[2]


def test_folders_of_such_names_alone_say_nothing(asked: ProbeOptions, tmp_path: Path) -> None:
    for name in ("pose", "mask"):
        (tmp_path / "workspace" / name).mkdir(parents=True)
    (tmp_path / "folders.json").write_text(json.dumps(model_folders.to_json("0.33.0")), encoding="utf-8")
    assert look(replace(asked, root=str(tmp_path))).problems == ()


def test_a_workspace_in_the_kernels_own_files_is_refused(asked: ProbeOptions) -> None:
    with pytest.raises(PodError, match="lies in /proc, where the kernel shows itself") as refused:
        VolumeProbe(
            replace(asked, workspace="/proc/x"), [Mount("/proc", "proc", read_only=False)], write=True
        )
    assert refused.value.exit_code == 78
