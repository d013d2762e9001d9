"""Files that a request brings: what is fetched, what is read, and what is nobody's to read."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from worker import media
from worker.media import UnusableError

if TYPE_CHECKING:
    from pathlib import Path

PNG = b"\x89PNG\r\n\x1a\n" + bytes(24)
JPEG = base64.b64encode(b"\xff\xd8\xff" + bytes(24)).decode()  # /9j/…, which looks like a path
MP4 = base64.b64encode(b"\0\0\0\x20ftypisom" + bytes(24)).decode()


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A volume with an input folder; what lies beside it is not for requests."""
    home = tmp_path / "volume" / "input"
    (home / "poses").mkdir(parents=True)
    (home / "poses" / "dance.mp4").write_bytes(b"film")
    (home.parent / "secret.txt").write_text("of others")
    (home / "out.txt").symlink_to(home.parent / "secret.txt")
    (home / "loop").symlink_to(home / "loop")
    return home


# What a request says, the kind that is wanted, the source that is opened, and the ending of its name.
TAKEN = [
    ("https://example.com/a/cat.JPG?sig=1", "image", "https://example.com/a/cat.JPG?sig=1", "jpg"),
    ("http://example.com/watch", "video", "http://example.com/watch", "mp4"),
    (f"data:image/webp;base64,{JPEG}", "image", f"data:image/webp;base64,{JPEG}", "jpg"),
    ("data:video/webm,abc", "video", "data:video/webm,abc", "webm"),
    (f"data:;base64,{MP4}", "video", f"data:;base64,{MP4}", "mp4"),
    (JPEG, "image", f"data:;base64,{JPEG}", "jpg"),
    (f" {JPEG}\n", "image", f"data:;base64,{JPEG}", "jpg"),
    ("aGVsbG8h", "audio", "data:;base64,aGVsbG8h", "wav"),
]


@pytest.mark.parametrize(("given", "kind", "source", "ending"), TAKEN)
def test_a_file_is_an_address_a_data_uri_or_base64(given: str, kind: str, source: str, ending: str) -> None:
    found = media.named("field", kind, given, [])
    assert (found.source, found.name.rpartition(".")[2]) == (source, ending)


@pytest.mark.parametrize(
    "given", ["poses/dance.mp4", "{volume}/poses/dance.mp4", "./poses/../poses/dance.mp4"]
)
def test_or_a_path_below_the_input_folder(volume: Path, given: str) -> None:
    found = media.named("pose_video", "video", given.format(volume=volume), [volume])
    assert found.source == str(volume / "poses" / "dance.mp4")
    assert found.name.startswith("pose_video-")
    assert found.name.endswith(".mp4")


@pytest.mark.parametrize(
    "given",
    [
        *("../secret.txt", "{volume}/../secret.txt", "out.txt", "/etc/passwd.txt", "{volume.parent}/secret"),
        *("loop.", "poses/.", "no.mp4", "a\0.mp4", f"{'x' * 300}.mp4"),
    ],
)
def test_no_path_leads_out_of_it(volume: Path, given: str) -> None:
    with pytest.raises(UnusableError, match=r"^there is no file .* below .*/input$"):
        media.named("pose_video", "video", given.format(volume=volume), [volume])


def test_one_content_has_one_name_and_another_another() -> None:
    names = [media.named("image", "image", given, []).name for given in (JPEG, JPEG, MP4)]
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        (
            "file:///etc/passwd",
            "image",
            "file is no kind of address that is fetched: give an http(s) address",
        ),
        ("s3://bucket/a.mp4", "video", "s3 is no kind of address that is fetched"),
        ("no base64!", "image", "no base64! is neither base64 nor what else it can be"),
        ("data:image/png;base64", "image", "its data: URI is empty, or lacks the comma"),
        ("data:image/png;base64,", "image", "its data: URI is empty, or lacks the comma"),
        ("data:video/mp4;base64,aGk=", "image", "its data: URI is of video/mp4, and a picture is wanted"),
        ("data:text/html,<p>", "video", "its data: URI is of text/html, and a video is wanted"),
        ("a.mp4", "video", "there is no file a.mp4 below an input folder, which this worker has none of"),
    ],
)
def test_what_cannot_be_used_is_said(given: str, kind: str, said: str) -> None:
    with pytest.raises(UnusableError) as refused:
        media.named("field", kind, given, [])
    assert str(refused.value).startswith(said)
