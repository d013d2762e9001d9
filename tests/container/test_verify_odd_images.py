"""What `verify --deep` calls right, every engine unpacks to the locked files: tried with 200 images.

A third of them are sound in all the ways that layers are written; the others are odd. Their layers lie in the
base image, where no history is known beforehand, so only what is in them can be wrong.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import odd_images
import odd_layers
import pytest
import registries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from odd_layers import Odd

pytestmark = pytest.mark.engine

SEED, COUNT, SAMPLE = "podkiln", 200, 12


@pytest.fixture(scope="module")
def engines(
    docker_engine: str, overlay2_engine: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, dict[str, str]]]:
    """A registry's host:port, and DOCKER_HOST of an engine of each kind, both of which can pull from it.

    The second engine has a network of its own, so a second registry serves the same folder there.
    """
    folder = tmp_path_factory.mktemp("odd")
    pid = Path(overlay2_engine.removeprefix("unix://")).with_name("pid").read_text().strip()
    with registries.serve(folder) as host, registries.serve(folder, host=host, network_of=pid):
        yield host, {"containerd": "", "overlay2": overlay2_engine}


@pytest.fixture(scope="module")
def odd() -> list[Odd]:
    return list(odd_layers.images(SEED, COUNT))


def test_the_images_are_of_all_kinds_and_a_third_of_them_sound(odd: list[Odd]) -> None:
    kinds = Counter(each.recipe for each in odd)
    assert sum(each.sound for each in odd) * 3 >= COUNT
    assert kinds.keys() == odd_layers.RECIPES


def test_what_verify_calls_right_is_what_engines_unpack(
    engines: tuple[str, dict[str, str]], odd: list[Odd], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")  # reading the machine's CAs takes longest of all
    host, hosts = engines
    with contextlib.closing(odd_images.Pusher(host)) as pusher:
        names = [pusher.push(f"n{number}", each.layers) for number, each in enumerate(odd)]
    with ThreadPoolExecutor(2) as pool:
        verdicts = list(pool.map(odd_images.verified, names))
    told = [(each, name, verdict) for each, name, verdict in zip(odd, names, verdicts, strict=True)]
    assert [
        (each.recipe, verdict.findings) for each, _, verdict in told if each.sound and not verdict.ok
    ] == []

    right = [(each, name) for each, name, verdict in told if verdict.ok]
    sound = [pair for pair in right if pair[0].sound]
    each_kind = {pair[0].recipe: pair for pair in sound}
    known = [*each_kind.values(), *random.Random(SEED).sample(sound, SAMPLE - len(each_kind))]
    asked = [*known, *(pair for pair in right if not pair[0].sound)]
    with ThreadPoolExecutor(len(hosts)) as pool:
        answers = pool.map(lambda kind: _differing(asked, hosts[kind]), hosts)
        differing = dict(zip(hosts, answers, strict=True))
    assert differing == {kind: [] for kind in hosts}


def _differing(asked: list[tuple[Odd, str]], host: str) -> list[str]:
    """Return what an engine unpacks to other files than the locked ones."""
    found = [(each.recipe, odd_images.unpacked(name, host)) for each, name in asked]
    return [
        odd_images.as_text(recipe, unpacked)
        for recipe, unpacked in found
        if unpacked.files != odd_images.LOCKED
    ]
