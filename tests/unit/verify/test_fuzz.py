"""Any bytes that a registry can send as a layer or as a document give findings or one sentence, and soon."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import odd_layers
import odd_tars
import pytest
import runtimes
import zstandard
from apt_locks import with_apt
from hypothesis import example, given, settings
from hypothesis import strategies as st
from plans import plan_of

from podkiln.errors import IntegrityError
from podkiln.oci import spec
from podkiln.oci.spec import Descriptor
from podkiln.render.image_config import RenderedConfig
from podkiln.verify import documents, runtime_layers
from podkiln.verify.compare import RemoteImage, compare

KINDS = (spec.LAYER, spec.LAYER_GZIP, spec.LAYER_ZSTD)
BOUNDED = settings(max_examples=100, deadline=5000)  # ms
PLAN = replace(with_apt(plan_of("lazy")), bundles=())
RENDERED = RenderedConfig.of(PLAN)
RIGHT = runtimes.make(PLAN)


def read(kind: str, data: bytes) -> list[str]:
    blob = Descriptor(kind, spec.digest_of(data), len(data))
    pieces = [data[at : at + 700] for at in range(0, len(data), 700)]
    return list(runtime_layers.findings([runtime_layers.read(0, blob, spec.digest_of(data), pieces)]))


def are_sentences(found: list[str]) -> None:
    for each in found:
        assert each.isprintable(), each
        assert len(each) < 1000
        assert each.endswith(".")


@BOUNDED
@given(st.sampled_from(KINDS), st.binary(max_size=3000))
@example(spec.LAYER_GZIP, gzip.compress(odd_tars.file(b"usr/x", b"x") + odd_tars.END)[:-9])
@example(spec.LAYER_ZSTD, zstandard.compress(b"x" * 3000)[:-3])
@example(spec.LAYER_ZSTD, b"\x28\xb5\x2f\xfd\x00\xff" + b"\x02\x00\x00\x01" * 9)
def test_any_blob_is_read_or_gives_a_sentence(kind: str, data: bytes) -> None:
    are_sentences(read(kind, data))


HEADERS = st.builds(
    odd_tars.block,
    st.sampled_from([b"usr/x", b"opt", b"e/models", b"./", b"/", b"..", b".wh.opt", b"a\n\x1b[31m\xc2\x85"]),
    size=st.sampled_from(
        [0, 1, 512, b"\x80" + b"\xff" * 11, b"\xff" * 12, b"77777777777\0", b"-0000000001\0"]
    ),
    kind=st.sampled_from([bytes([n]) for n in b"0123456789xgLKSQ\0"]),
    target=st.sampled_from([b"", b"e", b"/opt/models", b"\xff", b"\x1b"]),
    magic=st.sampled_from([odd_tars.USTAR, odd_tars.GNU, odd_tars.OLD]),
    patches=st.dictionaries(st.integers(0, 480), st.binary(max_size=12), max_size=3),
)
PARTS = st.one_of(HEADERS, st.binary(max_size=512).map(odd_tars.padded), st.just(odd_tars.END))


@BOUNDED
@given(st.lists(PARTS, max_size=12))
@example([odd_tars.pax((b"path", b"9" * 5000)), odd_tars.file(b"x")])
@example([odd_tars.file(b"x", b"999999999999 path=x\n", kind=b"x")])
@example([odd_tars.pax((b"size", b"9" * 4000)), odd_tars.file(b"x")])
@example([odd_tars.pax((b"\x1b[2J", b"y")), odd_tars.file(b"x")])
@example([odd_tars.file(b"a/.wh..")])
def test_any_members_are_read_or_give_a_sentence(parts: list[bytes]) -> None:
    are_sentences(read(spec.LAYER, b"".join(parts)))


@pytest.mark.parametrize("seed", ["one", "another"])
def test_odd_layers_with_changed_bytes_are_read_or_give_a_sentence(seed: str) -> None:
    for number, odd in enumerate(odd_layers.images(seed, 120)):
        for blob in odd.layers:
            data = bytearray(blob.data)
            data[number * 37 % len(data)] ^= 1 << number % 8
            are_sentences(read(blob.media_type, bytes(data)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["Labels", "Env", "diff_ids", "history", "annotations", "digest", "size", "platform"])


@st.composite
def changed(draw: st.DrawFn, document: Any) -> Any:
    """Return a document with something else at some place, or something more."""
    document = json.loads(json.dumps(document))
    here = document
    for _ in range(draw(st.integers(0, 4))):
        inner = here.values() if isinstance(here, dict) else here
        deeper = [each for each in inner if isinstance(each, dict | list) and each]
        if not deeper:
            break
        here = draw(st.sampled_from(deeper))
    if isinstance(here, dict):
        here[draw(st.sampled_from(sorted(here)) | KEYS)] = draw(JSON)
    else:
        here[draw(st.integers(0, len(here) - 1))] = draw(JSON)
    return document


MANIFEST = json.loads(RIGHT.manifest.encode())
INDEX = {
    "schemaVersion": 2,
    "mediaType": spec.INDEX,
    "manifests": [{**MANIFEST["config"], "platform": {"os": "linux", "architecture": "amd64"}}],
}


def judged(manifest: bytes, config: bytes, index: bytes) -> list[str]:
    """Do what `verify` does with an image's documents."""
    spec.Index.parse(index, "Index x")
    held = RemoteImage(
        spec.Manifest.parse(manifest, "Manifest x"), spec.ImageConfig.parse(config, "Config x")
    )
    return [
        *documents.of_index(spec.parse_json(index, "Index x")),
        *documents.of_manifest(spec.parse_json(manifest, "Manifest x")),
        *compare(PLAN, RENDERED, {}, held),
    ]


@settings(BOUNDED, max_examples=40)
@given(changed(MANIFEST), changed(dict(RIGHT.config.document)), changed(INDEX), st.integers(0, 7))
def test_any_document_is_judged_or_gives_a_sentence(
    manifest: Any, config: Any, index: Any, which: int
) -> None:
    pairs = ((MANIFEST, manifest), (RIGHT.config.document, config), (INDEX, index))
    chosen = [json.dumps(pair[which >> n & 1]).encode() for n, pair in enumerate(pairs)]
    try:
        are_sentences(judged(*chosen))
    except IntegrityError as wrong:
        are_sentences([str(wrong)])


@BOUNDED
@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
@example(b'{"a":1,"a":2}')
@example(b'{"layers":[],"Layers":[]}')
@example(b'{"a":"\\ud800"}')
@example(b'{"a":NaN}')
@example(b'{"a":1e999}')
@example(b'{"a":' + b"9" * 5000 + b"}")
@example(b"[" * 100_000)
@example(b'{"a":' * 500 + b"1" + b"}" * 500)
@example('{"a":1}'.encode("utf-16"))
@example(b"\xef\xbb\xbf{}")
def test_any_bytes_are_a_document_or_give_a_sentence(data: bytes) -> None:
    for parse in (spec.Manifest.parse, spec.ImageConfig.parse, spec.Index.parse):
        with pytest.raises(IntegrityError) as raised:
            parse(data, "It")
        are_sentences([str(raised.value)])


BOMBS = """
import gzip, resource, sys, time, zlib
import zstandard
import odd_tars
from podkiln.oci import spec
from podkiln.verify import runtime_layers

def gz(mib):
    packer = zlib.compressobj(1, wbits=31)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(mib)) + packer.flush()
def many(names):
    return zstandard.compress(b"".join(map(odd_tars.file, names)))
zst = b"\\x28\\xb5\\x2f\\xfd\\x00\\x58"  # a frame with a window of 2 MiB
big = odd_tars.block(b"x", size=b"\\x80" + (1 << 40).to_bytes(11, "big"), magic=odd_tars.GNU)
raw = b"\\x00\\x10\\x00"  # before a block of 512 bytes as they are
bombs = {
    "gzip": lambda: (spec.LAYER_GZIP, gz(100)),
    "zstd": lambda: (spec.LAYER_ZSTD, zst + b"\\x02\\x00\\x10\\x00" * 20000),
    "zstd window": lambda: (spec.LAYER_ZSTD, zst[:5] + b"\\xa8" + b"\\x03\\xff\\x0f\\x00"),
    "zstd of one file": lambda: (spec.LAYER_ZSTD, zst + raw + big + b"\\x02\\x00\\x10\\x00" * 20000),
    "folders": lambda: (spec.LAYER_ZSTD, many(b"/".join([b"%d" % n] * 25) for n in range(20000))),
    "names": lambda: (spec.LAYER_ZSTD, many(b"usr/%d" % n for n in range(20000))),
    "pax": lambda: (
        spec.LAYER, odd_tars.pax((b"path", bytes([97]) * 1000000)) + odd_tars.file(b"x") + odd_tars.END
    ),
}
kind, data = bombs[sys.argv[1]]()
blob = spec.Descriptor(kind, spec.digest_of(data), len(data))
before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
found = list(runtime_layers.findings([runtime_layers.read(0, blob, spec.digest_of(b"x"), [data])]))
took = time.process_time() - begun
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
print(found[0][:300], file=sys.stderr)
print(took, grown)
"""


@pytest.mark.parametrize(
    "bomb", ["gzip", "zstd", "zstd window", "zstd of one file", "folders", "names", "pax"]
)
def test_a_blob_that_expands_is_given_up_soon_and_takes_little_memory(bomb: str) -> None:
    tests = Path(__file__).parents[2]
    paths = [str(tests), str(tests.parent), str(tests.parent / "scripts")]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths}\n{BOMBS}", bomb],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    seconds, mebibytes = map(float, done.stdout.split())
    assert seconds < 5, done.stderr  # of a shared core; a bomb that is read to its end takes minutes
    assert mebibytes < 64, done.stderr
