"""`verify --rebuild`: an image of a registry against what a build gives now, which is ready-made here."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import runtimes
import zstandard
from apt_locks import make, with_apt
from exports import tar
from layouts import put_blob, put_index
from plans import plan_of
from runtimes import Blob, Runtime
from small_weights import BUNDLES, LAYERS, A, B, baked, content

from podkiln.cli import main
from podkiln.lock import reader
from podkiln.oci import layout, spec
from podkiln.oci.reference import Reference
from podkiln.pipeline import build
from podkiln.registry import RegistryOptions, Repository
from podkiln.util import cache_folder
from podkiln.verify.compare import RemoteImage
from podkiln.verify.rebuilt import Comparison, Difference
from podkiln.weights.assemble import assemble

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from servers.registry import Registry

    from podkiln.oci.layout import Layout
    from podkiln.options import BuildRequest
    from podkiln.plan.plan import Plan


@pytest.fixture(scope="module")
def plan() -> Plan:
    """A plan with two weight layers of a few bytes."""
    return replace(plan_of("lazy"), bundles=BUNDLES)


def rebuilt(place: Path, made: Runtime) -> Layout:
    """Write a runtime as a build leaves it."""
    for blob in made.layers:
        put_blob(place, blob.data, blob.media_type)
    put_blob(place, spec.canonical_json(made.config.document), spec.CONFIG)
    put_index(place, put_blob(place, made.manifest.encode(), spec.MANIFEST))
    return layout.read(place)


def zstd(data: bytes, level: int = 3) -> Blob:
    """A tar as podkiln stores it."""
    packed = zstandard.ZstdCompressor(level=level, write_checksum=True).compress(data)
    return Blob(spec.LAYER_ZSTD, packed, spec.digest_of(data))


def push(registry: Registry, made: Runtime, config: bytes = b"", manifest: bytes = b"") -> str:
    """Put an image into a registry; return its name."""
    for blob in made.layers:
        registry.blobs["you/app", spec.digest_of(blob.data)] = blob.data
    config = config or spec.canonical_json(made.config.document)
    registry.blobs["you/app", spec.digest_of(config)] = config
    manifest = manifest or made.manifest.encode()
    for name in ("v1", spec.digest_of(manifest)):
        registry.manifests["you/app", name] = (spec.MANIFEST, manifest)
    return f"{registry.host()}/you/app:v1"


@dataclass(frozen=True)
class Compared:
    """What differs between a runtime of a registry and another; and the layers that were read for it."""

    found: Sequence[Difference]
    read: int


@pytest.fixture
def compare(plan: Plan, registry: Registry, tmp_path: Path) -> Callable[[Runtime, Runtime], Compared]:
    """Compare a runtime that a registry holds, with weights, with one that was built."""

    def run(there: Runtime, here: Runtime) -> Compared:
        image = assemble(there.manifest, there.config, [baked(A), baked(B)])
        push(registry, there, image.config_bytes, image.manifest_bytes)
        for bundle in BUNDLES:
            registry.blobs["you/app", LAYERS[bundle.recipe]] = content(bundle)
        settings = RegistryOptions(attempts=1, timeout=5.0, login=lambda _: None)
        folder = tmp_path / "work"
        folder.mkdir()
        with Repository(Reference.parse(f"{registry.host()}/you/app"), settings) as repository:
            held, digest = RemoteImage(image.manifest, image.config), image.descriptor.digest
            built = rebuilt(tmp_path / "built", here)
            whole = Comparison(repository, held, digest, built, folder, lambda *_: None)
            found = list(whole.findings(plan, LAYERS))
        assert list(folder.iterdir()) == []
        return Compared(found, len(registry.asked("GET", "/blobs/")))

    return run


def test_equal_digests_are_right_and_no_layer_is_read(plan: Plan, compare: Any) -> None:
    made = runtimes.make(plan, [zstd(tar("a"))])
    assert compare(made, made) == Compared([], 0)


def test_of_a_layer_with_another_digest_the_files_are_named(plan: Plan, compare: Any) -> None:
    there = runtimes.make(plan, [zstd(tar("usr/a", "usr/b", data=b"yy")), zstd(tar("same"))])
    here = runtimes.make(plan, [zstd(tar("usr/a", "usr/c")), zstd(tar("same"))])
    found = compare(there, here)
    (difference,) = found.found
    one, other = (spec.short(each.manifest.layers[1].digest) for each in (there, here))
    counts = "3 files differ: 1 only in the registry, 1 only in the rebuild, 1 in size, 1 in content"
    assert list(difference.lines()) == [
        f"Its layer 3 (base 1) is {one}, and {other} in the rebuild; {counts} (registry -> rebuild):",
        "    /usr/a: size 2 -> 1 bytes, content sha256:ef90d9c1ec76 -> sha256:2d711642b726",
        "    /usr/b: only in the registry, a file of 2 bytes, mode 0644, owner 0:0",
        "    /usr/c: only in the rebuild, a file of 1 byte, mode 0644, owner 0:0",
    ]
    assert found.read == 1, "of the registry's layers, that one alone"


def test_the_first_ten_files_of_a_layer_are_named_and_the_others_counted(plan: Plan, compare: Any) -> None:
    there = runtimes.make(plan, [zstd(tar(*(f"f{number:02d}" for number in range(25)), time=5))])
    here = runtimes.make(plan, [zstd(tar(*(f"f{number:02d}" for number in range(25)), time=9))])
    (difference,) = compare(there, here).found
    assert (len(difference.files), difference.more) == (10, 15)
    assert difference.files[0] == "/f00: time 1970-01-01T00:00:05Z -> 1970-01-01T00:00:09Z"
    assert [*difference.lines()][-1] == "    and 15 more"


@pytest.mark.parametrize(
    ("there", "how"),
    [
        (zstd(tar("a", "b"), level=9), "the same files compressed in another way."),
        (Blob.gzip(tar("a", "b")), "the same files compressed in another way."),
        (zstd(tar("b", "a")), "the same files in a tar that is written in another way."),
        (zstd(tar("a", "a")), "its files cannot be compared: it has 'a' twice."),
        (zstd(tar("a")[:700]), "its files cannot be compared: it could not be read as a tar: "),
        (Blob(spec.LAYER_ZSTD, b"none", spec.digest_of(b"")), "its files cannot be compared: it "),
    ],
)
def test_what_no_file_shows_is_said(plan: Plan, compare: Any, there: Blob, how: str) -> None:
    own = zstd(tar("a", "b") + bytes(10240))
    own = own if "compressed" not in how else zstd(tar("a", "b"), level=1)
    (difference,) = compare(runtimes.make(plan, [there]), runtimes.make(plan, [own])).found
    assert how in difference.what
    assert difference.files == ()


def test_a_layer_that_one_side_has_alone_is_named_by_its_instruction(plan: Plan, compare: Any) -> None:
    more, less = runtimes.make(plan, [zstd(tar("a"))]), runtimes.make(plan)
    (difference,) = compare(more, less).found
    assert difference.what.startswith("Its layer 3 (base 1) is not in the rebuild: sha256:")


def test_a_layer_that_the_image_lacks_is_named_too(plan: Plan, compare: Any) -> None:
    more, less = runtimes.make(plan, [zstd(tar("a"))]), runtimes.make(plan)
    (difference,) = compare(less, more).found
    assert difference.what == "It lacks a layer that the rebuild has: base 1."


def test_layers_are_compared_with_those_of_the_same_instruction(plan: Plan, compare: Any) -> None:
    """One is new in the image, and one that came after it is lost."""
    there, here = (
        runtimes.make(plan, [zstd(tar(name)) for name in names]) for names in (("a", "b"), ("b", "c"))
    )
    rows = [dict(row) for row in there.config.document["history"]]
    for row, by in zip(rows[1:3], ("RUN a", "base 1"), strict=True):
        row["created_by"] = by
    found = compare(with_config(there, history=rows), here).found
    assert [each.what.partition(": ")[0] for each in found] == [
        "Its layer 3 (RUN a) is not in the rebuild",
        "It lacks a layer that the rebuild has",
    ]


def with_config(made: Runtime, **changed: Any) -> Runtime:
    """Return a runtime with another config."""
    data = spec.canonical_json({**made.config.document, **changed})
    named = spec.Descriptor(spec.CONFIG, spec.digest_of(data), len(data))
    return Runtime(replace(made.manifest, config=named), spec.ImageConfig.parse(data, "x"), made.layers)


def test_what_the_base_says_of_itself_is_compared_once_all_layers_are_equal(plan: Plan, compare: Any) -> None:
    made = runtimes.make(plan)
    history = [{"created_by": "another base"}, *made.config.document["history"][1:]]
    (difference,) = compare(with_config(made, history=history), made).found
    assert list(difference.lines()) == [
        "Its config is not that of the rebuild: 1 values differ (registry -> rebuild):",
        "    history[2].created_by: 'another base' -> 'base 0'",
    ]


def test_a_long_instruction_stands_as_in_the_dockerfile() -> None:
    from podkiln.verify.rebuilt import _instruction

    shell = "RUN |2 SOURCE_DATE_EPOCH=1786579200 A= /bin/sh -c apt-get update # buildkit"
    assert _instruction(shell) == "RUN apt-get update"
    assert _instruction("RUN /bin/sh -c x\x1b # buildkit") == r"RUN x\x1b"
    assert _instruction("COPY a /b # buildkit") == "COPY a /b"
    assert len(_instruction("RUN " + "x" * 500)) <= 81
    assert _instruction("") == "of which its history does not tell"


# --- by the command


@pytest.fixture
def builds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Runtime], list[tuple[BuildRequest, Path]]]:
    """Have builds come out with a runtime; return what was asked of them, and the cache they were given.

    The lock has an apt index for the base.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    base = plan_of("lazy").lock.runtime.base_digest
    monkeypatch.setattr(reader, "apt_locks", lambda _: {base: make(base)})
    asked: list[tuple[BuildRequest, Path]] = []

    def ready(made: Runtime) -> list[tuple[BuildRequest, Path]]:
        def built(
            _: object, request: BuildRequest, __: object, cache: Path
        ) -> tuple[str, dict[str, float], Any]:
            asked.append((request, cache))
            assert main(["clean", "--all"]) == 2, "what it builds in is not removed meanwhile"
            return "", {}, [rebuilt(request.output.out / "lazy/image", made)]

        monkeypatch.setattr(build, "prepare_engine", lambda _: "mine")
        monkeypatch.setattr(build, "build_all", built)
        return asked

    return ready


def test_a_build_that_gives_the_image_again_ends_with_0_and_leaves_nothing(
    registry: Registry, builds: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    made = runtimes.make(with_apt(plan_of("lazy")))
    asked = builds(made)
    line = ["verify", push(registry, made), "--variant", "lazy", "--no-weights", "--rebuild"]
    assert main([*line, "--builder", "mine"]) == 0, capsys.readouterr().err
    told = capsys.readouterr()
    assert told.out == ""
    assert "Sound: " in told.err
    assert "is what a build gives now, in each of its layers." in told.err
    assert "and layers, config and manifest with those of a build made now, every step anew." in told.err
    ((request, cache),) = asked
    assert (request.engine.no_cache, request.engine.no_keep, request.engine.builder) == (True, True, "mine")
    assert (request.image.push, request.output.load) == (False, False)
    folder = cache_folder.path() / cache_folder.REBUILDS
    assert folder in cache.parents
    assert folder in request.output.out.parents
    assert list(folder.iterdir()) == []


def test_an_image_that_a_build_does_not_give_ends_with_13(
    registry: Registry, builds: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    builds(runtimes.make(with_apt(plan_of("lazy")), [zstd(tar("a"))]))
    image = push(registry, runtimes.make(with_apt(plan_of("lazy")), [zstd(tar("a", data=b"y"))]))
    line = ["verify", image, "--variant", "lazy", "--no-weights", "--rebuild"]
    assert main(line) == 13
    told = capsys.readouterr()
    assert "\n    /a: content sha256:a1fce4363854 -> sha256:2d711642b726\n" in told.out
    assert "is not what a build gives now: Its layer 1 (base 1) is " in told.err
    assert main([*line, "--json"]) == 13
    document = json.loads(capsys.readouterr().out)
    (row,) = document["rebuild"]
    assert document["findings"] == [row["finding"]]
    assert (document["ok"], document["complete"]) == (False, True)
    assert (len(row["files"]), row["more"]) == (1, 0)


def test_substitutes_that_are_named_for_the_rebuild_are_no_finding(
    registry: Registry, builds: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "comfyui").mkdir()
    (tmp_path / "comfyui/main.py").write_text("")
    source = f"comfyui={tmp_path / 'comfyui'}"
    made = runtimes.make(with_apt(plan_of("lazy", source=(source,))))
    builds(made)
    line = ["verify", push(registry, made), "--variant", "lazy", "--no-weights"]
    assert main(line) == 13
    assert "It was built with a substitute for comfyui" in capsys.readouterr().out
    assert main([*line, "--rebuild", "--source", source]) == 0
    assert "with substitutes for comfyui, which are not what the lock names." in capsys.readouterr().err
    (tmp_path / "comfyui/main.py").write_text("another")
    assert main([*line, "--rebuild", "--source", source]) == 13
    assert "It was built with a substitute for comfyui" in capsys.readouterr().out


def test_an_image_without_nodes_is_compared_with_what_is_planned_without_them(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    """One finding says that it lacks them; no layer, label or step is another one."""
    made = runtimes.make(plan_of("lazy", source=("nodes=none",)))
    assert main(["verify", push(registry, made), "--variant", "lazy", "--no-weights", "--json"]) == 13
    told = (
        "It was built with a substitute for nodes: none, which is not what the lock names; "
        "--rebuild with the same substitute compares the rest."
    )
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert [each for each in findings if "not locked" not in each] == [told]


def test_what_cannot_be_read_is_not_built_for(
    registry: Registry, builds: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    made = runtimes.make(with_apt(plan_of("lazy")))
    asked = builds(made)
    image = push(registry, made)
    del registry.blobs["you/app", spec.digest_of(made.layers[1].data)]
    assert main(["verify", image, "--variant", "lazy", "--no-weights", "--rebuild"]) == 13
    assert "is not in you/app" in capsys.readouterr().out
    assert asked == []
