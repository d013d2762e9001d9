"""What is uploaded: where it comes from, and what it is called."""

from __future__ import annotations

import aiohttp
import pytest

from comfy import pictures
from comfy.failure import ComfyError


@pytest.mark.parametrize(
    ("url", "kind", "name"),
    [
        ("https://a.test/x/cat.png?sig=1", "image/png", "cat.png"),
        ("https://a.test/x/cat", "image/jpeg", "cat.jpg"),
        ("https://a.test/", "image/webp", "image.webp"),
        ("https://a.test/cat", "application/octet-stream", "cat.png"),
        ("https://a.test/..%2F..%2Fetc%2Fpasswd", "image/png", "passwd.png"),
        ("https://a.test/a%00b;c.png", "image/png", "a_b_c.png"),
        ("https://a.test/.hidden", "image/png", "hidden.png"),
        ("https://a.test/" + "l" * 400 + ".png", "image/png", "l" * 196 + ".png"),
    ],
)
def test_the_name_of_an_address_is_safe(url: str, kind: str, name: str) -> None:
    assert pictures.name_of(url, kind) == name


@pytest.mark.parametrize(
    ("uri", "name", "data"),
    [
        ("data:image/png;base64,QUI=", "image.png", b"AB"),
        ("DATA:image/jpeg;name=x;base64,QU\nI=", "image.jpg", b"AB"),
        ("data:;base64,QUI%3D", "image.png", b"AB"),
        ("data:,A%42", "image.png", b"AB"),
        ("data:video/../../x;base64,QUI=", "image.x", b"AB"),
    ],
)
def test_a_data_uri_is_a_picture(uri: str, name: str, data: bytes) -> None:
    picture = pictures._decoded(uri)
    assert (picture.name, picture.file.read()) == (name, data)


def test_what_would_take_gigabytes_to_read_is_refused() -> None:
    """Each escape takes some hundred bytes while it is read: 30 MB of them take 5 GB."""
    with pytest.raises(ComfyError, match=r"^data:,… has more than 100000 escaped characters: use"):
        pictures._decoded("data:," + "%41" * 100_001)
    assert pictures._decoded("data:," + "A" * 300_000).file.seek(0, 2) == 300_000


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TimeoutError(), "no answer in time"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (aiohttp.InvalidURL("https://secret"), "that is not an address"),
        (aiohttp.ServerDisconnectedError(), "server disconnected error"),
    ],
)
def test_a_failed_transfer_is_said_without_the_address(error: Exception, said: str) -> None:
    assert pictures.reason(error) == said
