"""/proc/self/mountinfo, as the kernel writes it in containers of the platforms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pod.hardware import mounts

if TYPE_CHECKING:
    from pathlib import Path

MOUNTINFO = """\
612 430 0:52 / / rw,relatime master:142 - overlay overlay rw,lowerdir=/a:/b,upperdir=/c,workdir=/d
613 612 0:55 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
620 612 0:60 /pod /workspace rw,relatime shared:7 master:9 - fuse mfs#eu.example:9421 rw,user_id=0
621 620 8:1 /in /workspace/input ro,relatime - ext4 /dev/sda1 rw
622 612 8:1 /b /with\\040space rw,relatime - ext4 /dev/sda1 rw
623 612 8:1 /hidden /data rw,relatime - ext4 /dev/sda1 rw
624 612 0:77 / /data rw,relatime - nfs4 files:/export rw
broken line
625 612 8:1 / /cut rw
"""


@pytest.fixture
def mounted(tmp_path: Path) -> tuple[mounts.Mount, ...]:
    (tmp_path / "mountinfo").write_text(MOUNTINFO)
    return mounts.read(tmp_path / "mountinfo")


CASES: list[tuple[str, str | None, str | None]] = [
    ("/workspace", "/workspace", "fuse"),
    ("/workspace/", "/workspace", "fuse"),
    ("/workspace/models/loras", "/workspace", "fuse"),
    ("/workspace/input/a", "/workspace/input", "ext4"),
    ("/workspace2", None, None),  # beside it
    ("/with space/x", "/with space", "ext4"),
    ("/data/x", "/data", "nfs4"),  # the later mount covers the earlier one
    ("/opt/ComfyUI", None, None),  # the container's own
    ("/", None, None),
    ("/cut/x", None, None),  # a line that nobody writes
]


@pytest.mark.parametrize(("path", "point", "kind"), CASES, ids=[case[0] for case in CASES])
def test_a_path_is_on_the_nearest_mount_above(
    mounted: tuple[mounts.Mount, ...], path: str, point: str | None, kind: str | None
) -> None:
    found = mounts.holding(mounted, path)
    assert (found and found.point, found and found.kind) == (point, kind)


def test_a_read_only_mount_is_known(mounted: tuple[mounts.Mount, ...]) -> None:
    assert {mount.point for mount in mounted if mount.read_only} == {"/workspace/input"}


def test_nothing_is_known_where_it_cannot_be_read(tmp_path: Path) -> None:
    assert mounts.read(tmp_path / "missing") == ()


def test_this_machine_can_be_read() -> None:
    assert "/proc" in {mount.point for mount in mounts.read()}
