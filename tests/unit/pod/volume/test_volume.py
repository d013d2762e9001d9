"""What ComfyUI is told about its folders."""

from __future__ import annotations

import pytest

from pod.commands import volume as command
from pod.errors import PodError
from pod.volume import volume
from pod.volume.custom_nodes import Nodes


def test_what_is_on_the_volume_and_what_is_this_containers_own() -> None:
    assert volume.usual("/workspace").arguments() == (
        "--output-directory=/workspace/output",
        "--input-directory=/workspace/input",
        "--user-directory=/workspace/user",
        "--temp-directory=/var/lib/podkiln",
        "--database-url=sqlite:////var/lib/podkiln/comfyui.db",
        "--extra-model-paths-config=/run/podkiln/volume_paths.yaml",
    )


def test_the_root_of_the_file_system_can_be_the_workspace() -> None:
    assert volume.usual("/").arguments()[0] == "--output-directory=/output"


def test_what_runs_beside_comfyui_learns_where_the_volume_is() -> None:
    assert volume.usual("/runpod-volume").environment({}, "/opt/podkiln") == {
        "WORKSPACE": "/runpod-volume",
        "PIP_CONSTRAINT": "/run/podkiln/constraints.txt",
        "UV_CONSTRAINT": "/run/podkiln/constraints.txt",
    }


def test_packages_for_nodes_are_found_where_they_lie() -> None:
    usual = vars(volume.usual("/workspace"))
    found = volume.Volume(**{**usual, "overlay": "/workspace/.podkiln/python/x"}).environment(
        {}, "/opt/podkiln"
    )
    assert found["PODKILN_OVERLAY"] == "/workspace/.podkiln/python/x"
    assert found["PYTHONPATH"] == "/opt/podkiln/overlay"


def test_nothing_is_kept_out_of_a_fresh_volume() -> None:
    assert volume.usual("/workspace").nodes.arguments() == ()
    assert Nodes().arguments() == ()


def test_the_command_takes_no_arguments() -> None:
    with pytest.raises(PodError, match="volume takes no arguments"):
        command.main(["--all"])
