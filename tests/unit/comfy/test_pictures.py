"""What is uploaded: where it comes from, and what it is called."""

from __future__ import annotations

import aiohttp
import pytest

from comfy import pictures


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


def test_a_signed_address_is_shown_without_its_key() -> None:
    assert pictures.shown("https://u:secret@a.test:444/x.png?sig=secret#s") == "https://a.test/x.png"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TimeoutError(), "no answer in time"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (aiohttp.InvalidURL("https://secret"), "that is no address"),
        (aiohttp.ServerDisconnectedError(), "server disconnected error"),
    ],
)
def test_a_failed_transfer_is_said_without_the_address(error: Exception, said: str) -> None:
    assert pictures.reason(error) == said
