"""What is said of two layers whose files differ."""

from __future__ import annotations

import io
import tarfile
from typing import Any

import pytest

from podkiln.canonical_layers import entries
from podkiln.verify import file_differences

TIME = 1_700_000_000
ONE = "sha256:2d711642b726"  # of x
TWO = "sha256:a1fce4363854"  # of y


def read(*members: dict[str, Any]) -> list[entries.Entry]:
    """Return the entries of a tar with these members: `name`, `data` and whatever else a TarInfo has."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            told = {"mtime": TIME, **member}
            data = told.pop("data", b"")
            info = tarfile.TarInfo(told.pop("name"))
            info.size = len(data)
            for key, value in told.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    made.seek(0)
    return entries.read(made, "it", 1 << 62)


def said(there: list[dict[str, Any]], here: list[dict[str, Any]]) -> list[str]:
    return list(map(str, file_differences.compare(read(*there), read(*here))))


FILE = {"name": "etc/x", "data": b"x"}
LINK = {"name": "l", "type": tarfile.SYMTYPE, "linkname": "a"}
DEVICE = {"name": "d", "type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}
CAPABLE = {"pax_headers": {"SCHILY.xattr.security.capability": "\x01\x02"}}


@pytest.mark.parametrize(
    ("there", "here", "text"),
    [
        (FILE, {**FILE, "data": b"yy"}, "/etc/x: size 1 -> 2 bytes, content {x} -> sha256:ef90d9c1ec76"),
        (FILE, {**FILE, "data": b"y"}, "/etc/x: content {x} -> {y}"),
        (FILE, {**FILE, "mode": 0o4755}, "/etc/x: mode 0644 -> 4755"),
        (FILE, {**FILE, "uid": 1000, "gid": 5}, "/etc/x: owner 0:0 -> 1000:5"),
        (FILE, {**FILE, "gid": 5}, "/etc/x: owner 0:0 -> 0:5"),
        (FILE, {**FILE, "mtime": 0}, "/etc/x: time 2023-11-14T22:13:20Z -> 1970-01-01T00:00:00Z"),
        (FILE, {**FILE, "mtime": 1 << 50}, f"/etc/x: time 2023-11-14T22:13:20Z -> {1 << 50}"),
        (FILE, {**FILE, **CAPABLE}, "/etc/x: attributes none -> security.capability=0102"),
        (FILE, {**LINK, "name": "etc/x"}, "/etc/x: kind file -> link to a"),
        (FILE, {"name": "etc/x", "type": tarfile.DIRTYPE}, "/etc/x: kind file -> folder"),
        (LINK, {**LINK, "linkname": "b\n"}, r"/l: target a -> b\n"),
        (DEVICE, {**DEVICE, "devminor": 5}, "/d: device 1:3 -> 1:5"),
    ],
)
def test_each_way_to_differ_is_said_with_both_values(
    there: dict[str, Any], here: dict[str, Any], text: str
) -> None:
    assert said([there], [here]) == [text.format(x=ONE, y=TWO)]
    assert said([there], [there]) == said([here], [here]) == []


@pytest.mark.parametrize(
    ("member", "text"),
    [
        (FILE, "/etc/x: only in the {side}, a file of 1 byte, mode 0644, owner 0:0"),
        (LINK, "/l: only in the {side}, a link to a, mode 0644, owner 0:0"),
        ({"name": "a/.wh.b"}, "/a/.wh.b: only in the {side}, deletes what layers below have of that name"),
        (
            {"name": "a/.wh..wh..opq"},
            "/a/.wh..wh..opq: only in the {side}, deletes all that layers below have in the folder",
        ),
        ({"name": "a\x1b[31m"}, r"/a\x1b[31m: only in the {side}, a file of 0 bytes, mode 0644, owner 0:0"),
    ],
)
def test_what_one_side_has_alone_is_said_to_be_there(member: dict[str, Any], text: str) -> None:
    assert said([member], []) == [text.format(side="registry")]
    assert said([], [member]) == [text.format(side="rebuild")]


def test_a_second_name_is_told_from_a_second_file() -> None:
    second = {"name": "z", "type": tarfile.LNKTYPE, "linkname": "etc/x"}
    found = said([FILE, second], [FILE, {"name": "z", "data": b"x"}])
    assert found == ["/z: kind second name of /etc/x -> file"]


def test_what_differs_in_its_time_alone_comes_last_and_all_is_counted() -> None:
    there = [{"name": f"a{number}", "mtime": 1} for number in range(12)]
    here = [{"name": f"a{number}", "mtime": 2} for number in range(12)]
    found = file_differences.compare(
        read(*there, {"name": "b", "data": b"x"}, {"name": "c"}),
        read(*here, {"name": "b", "data": b"yy", "mtime": 5}),
    )
    assert [each.path for each in found[:3]] == [b"b", b"c", b"a0"]
    told = "14 files differ: 1 only in the registry, 1 in size, 1 in content, 13 in time"
    assert file_differences.summary(found) == told
    assert file_differences.summary(found[-1:]) == "1 file differs: 1 in time"
