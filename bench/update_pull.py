#!/usr/bin/env python3
"""What a host pulls again after an update, with the weights below the runtime and above it.

    bench/update_pull.py [--mib 128] [--storage containerd,overlay2] [--work DIR]

Hosts that have an image pull the next one: with another start.sh, one other Python wheel, another commit of
ComfyUI, one weight more. The runtimes are built by ./build.py, with two weights of `--mib` each; a host is a
Docker Engine of its own in one of the two storage modes. Bytes are those of blobs that a proxy before the
registry passed on. Before each update the host has the first image and nothing else.

`below`: all weights below the runtime, as by default. `above`: all on top. `added above`: two below, and the
one that is added on top.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import files
import harness
from harness import MIB, Limit
from servers import counting_proxy, file_server, loopback_relay

from podkiln import registry
from podkiln.config import variant
from podkiln.oci import layout, spec
from podkiln.oci.reference import Reference
from podkiln.options import BuildRequest
from podkiln.pipeline import planning
from podkiln.weights import assemble
from podkiln.weights.assemble import WeightLayer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from podkiln.oci.layout import Layout

WEIGHTS = 2  # and one that is added
WHEEL = "idna"
RUNTIMES = ("first", "start.sh", "a wheel", "ComfyUI")
ADDED = "a weight more"
UPDATES = (*RUNTIMES[1:], ADDED)
CONFIG_BYTES = 64 << 10  # an image's config is a blob too
STORAGES = ("containerd", "overlay2")


@dataclass(frozen=True)
class Pull:
    """The bytes of an update: of weights, and of everything else."""

    order: str
    update: str
    storage: str
    weights: int
    others: int
    whole: int  # of the first image, for comparison


@dataclass
class Images:
    """What is in the registry: tags, and which layers are weights."""

    host: str
    layers: list[WeightLayer] = field(default_factory=list)
    tags: dict[tuple[str, str], str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def push(self, runtime: Layout, order: str, update: str, below: int, above: int) -> None:
        """Assemble an image and push it: so many weights below the runtime, the next so many above."""
        tag = f"{order}-{update}".replace(" ", "-").lower()
        parts = self.layers[:below], self.layers[below : below + above]
        image = assemble.assemble(runtime.manifest, runtime.config, *parts)
        made = assemble.store(image, runtime.path, index=False)
        registry.push(made, Reference.parse(f"{self.host}/bench:{tag}"))
        self.tags[order, update] = tag
        self.sizes[tag] = sum({layer.digest: layer.size for layer in image.manifest.layers}.values())


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return 1 when a weight is pulled that need not be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mib", type=int, default=128, help="of each weight, 64 or more")
    parser.add_argument("--storage", default=",".join(STORAGES), help="storage modes of the engine")
    parser.add_argument("--updates", default=",".join(UPDATES), help="what is changed")
    parser.add_argument("--work", type=Path, help="where files, registry and builds go; usually TMPDIR")
    options = parser.parse_args(arguments)
    storages, updates = options.storage.split(","), options.updates.split(",")
    if unknown := [*(set(storages) - {*STORAGES}), *(set(updates) - {*UPDATES})]:
        parser.error(f"{', '.join(unknown)}: there are {', '.join(STORAGES)} and {', '.join(UPDATES)}")
    harness.need("docker", "dockerd", "docker-registry", "nsenter")
    with tempfile.TemporaryDirectory(prefix="update-pull-", dir=options.work) as scratch:
        work = Path(scratch)
        with harness.registries.serve(work / "registry") as host:
            images = fill(work, host, options.mib * MIB, updates)
            pulls = [
                pull for storage in storages for pull in update_all(images, storage, work / "proxy.sock")
            ]
    show(pulls)
    return harness.conclude(limits(pulls))


def fill(work: Path, host: str, size: int, updates: Sequence[str]) -> Images:
    """Build the runtimes, bake the weights, and push every image."""
    made = files.make(work / "files", WEIGHTS + 1, size)
    path = files.describe(made, work / "variants" / "bench.yaml")
    images = Images(host)
    runtimes = {name: build(work, path, name) for name in RUNTIMES if name in ("first", *updates)}
    harness.tell("baking the weights")
    images.layers = bake(work, path, host)
    for name, runtime in runtimes.items():
        images.push(runtime, "below", name, WEIGHTS, 0)
        images.push(runtime, "above", name, 0, WEIGHTS)
    if ADDED in updates:
        first = runtimes["first"]
        images.push(first, "below", ADDED, WEIGHTS + 1, 0)
        images.push(first, "above", ADDED, 0, WEIGHTS + 1)
        images.push(first, "added above", "first", WEIGHTS, 0)
        images.push(first, "added above", ADDED, WEIGHTS, 1)
    return images


def build(work: Path, path: Path, name: str) -> Layout:
    """Build the runtime of an update, all else as it was first."""
    harness.tell(f"building the runtime: {name}")
    out = work / "dist" / name.replace(" ", "-")
    out.parent.mkdir(exist_ok=True)
    described = path
    if name == "start.sh":
        described = path.with_name("bench-start.yaml")
        described.write_text(path.read_text() + "runtime: {stop_seconds: 7}\n")
    sources = {"comfyui": changed_comfyui(work) if name == "ComfyUI" else harness.COMFYUI}
    sources["requirements"] = changed_wheel(work) if name == "a wheel" else harness.REQUIREMENTS
    harness.podkiln(described, out, "--no-weights", sources=sources)
    return layout.read(out / described.stem / "image")


def changed_comfyui(work: Path) -> Path:
    """Return ComfyUI's tree as another commit would have it: with one line more."""
    copy = work / "comfyui"
    shutil.copytree(harness.COMFYUI, copy, ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / "main.py").open("a") as file:
        file.write("# Another commit.\n")
    return copy


def changed_wheel(work: Path) -> Path:
    """Return the requirements with another version of one wheel."""
    copy = work / "requirements"
    shutil.copytree(harness.REQUIREMENTS, copy)
    path = copy / "libraries.txt"
    blocks = path.read_text().replace("\\\n", "\0").splitlines()
    old = next(line for line in blocks if line.startswith(f"{WHEEL}=="))
    version = old.split()[0].partition("==")[2]
    uv = [str(harness.ROOT / ".venv/bin/uv"), "pip", "compile", "--quiet", "--no-deps", "--generate-hashes"]
    new = harness.run([*uv, "--no-header", "--no-annotate", "-"], stdin=f"{WHEEL}<{version}\n")
    path.write_text(
        "\n".join(new.strip() if line == old else line for line in blocks).replace("\0", "\\\n") + "\n"
    )
    return copy


def bake(work: Path, path: Path, host: str) -> list[WeightLayer]:
    """Bake all weights into the registry."""
    plan = planning.make_plan(variant.load(str(path)), BuildRequest.of(variants=(str(path),)))
    told = json.dumps([asdict(weight) for bundle in plan.bundles for weight in bundle.weights])
    argv = [sys.executable, str(harness.ROOT / "tests" / "bake_process.py"), f"{host}/bench", told]
    with file_server.serve(work / "files") as serving:
        baked = json.loads(harness.run(argv, {"HF_ENDPOINT": serving.url}))["layers"]
    return [
        WeightLayer(bundle, spec.Descriptor(spec.LAYER, spec.Digest(each["digest"]), bundle.size))
        for bundle, each in zip(plan.bundles, baked, strict=True)
    ]


def update_all(images: Images, storage: str, path: Path) -> Iterator[Pull]:
    """Let a host of one storage mode do every update."""
    counts = counting_proxy.Counts()
    path.unlink(missing_ok=True)
    with (
        counting_proxy.serve_socket(images.host, counts, path),
        harness.engines.serve(containerd=storage == "containerd") as engine,
        loopback_relay.serve(pid_of(engine), path) as port,
    ):
        host = Host(engine, f"127.0.0.1:{port}/bench", counts)
        for order in dict.fromkeys(order for order, _ in images.tags):
            first = images.tags[order, "first"]
            whole = sum(host.pull(first).values())
            if whole < images.sizes[first]:
                harness.fail(
                    f"the engine ({storage}) pulled {whole} bytes of {images.sizes[first]}: it had the others"
                )
            for update in UPDATES:
                if (order, update) in images.tags:
                    harness.tell(f"{storage}, weights {order}: {update}")
                    yield measured(images, host, Pull(order, update, storage, 0, 0, whole))
            host.remove(first)


def measured(images: Images, host: Host, pull: Pull) -> Pull:
    """Do one update, and go back to where the host was."""
    tag = images.tags[pull.order, pull.update]
    pulled = host.pull(tag)
    host.remove(tag)
    baked = {layer.blob.digest for layer in images.layers}
    of_weights = sum(count for digest, count in pulled.items() if digest in baked)
    return Pull(
        pull.order, pull.update, pull.storage, of_weights, sum(pulled.values()) - of_weights, pull.whole
    )


@dataclass(frozen=True)
class Host:
    """An engine that pulls from a repository, through the proxy that counts."""

    engine: str
    repository: str
    counts: counting_proxy.Counts

    def pull(self, tag: str) -> dict[str, int]:
        """Pull an image; return the bytes by blob."""
        self.counts.clear()
        self._docker("pull", "--quiet", f"{self.repository}:{tag}")
        return self.counts.pulled()

    def remove(self, tag: str) -> None:
        """Remove an image, and the layers that no other one has."""
        self._docker("image", "rm", "--force", f"{self.repository}:{tag}")

    def _docker(self, *arguments: str) -> None:
        harness.run(["docker", *arguments], env={"DOCKER_HOST": self.engine})


def pid_of(engine: str) -> int:
    """Return the process of an engine of the test kit."""
    return int(Path(engine.removeprefix("unix://")).with_name("pid").read_text())


def limits(pulls: Sequence[Pull]) -> list[Limit]:
    """Return what each update may pull at most."""
    found = [
        Limit(f"{pull.storage}, weights below, {pull.update}: weight bytes pulled again", pull.weights, 0)
        for pull in pulls
        if pull.order == "below" and pull.update in RUNTIMES
    ]
    return found + [
        Limit(f"{pull.storage}, a weight added above: bytes of all else", pull.others, CONFIG_BYTES)
        for pull in pulls
        if pull.order == "added above"
    ]


def show(pulls: Sequence[Pull]) -> None:
    """Print the table."""
    storages = list(dict.fromkeys(pull.storage for pull in pulls))
    by_row: dict[tuple[str, str], dict[str, Pull]] = {}
    for pull in pulls:
        by_row.setdefault((pull.order, pull.update), {})[pull.storage] = pull
    rows = []
    for (order, update), found in by_row.items():
        cells = [
            f"{figure / MIB:.1f}"
            for storage in storages
            for figure in (found[storage].weights, found[storage].others)
        ]
        rows.append([f"{update}, weights {order}", *cells])
    head = ["MiB pulled again", *(f"{each}: {what}" for each in storages for what in ("weights", "others"))]
    print(f"the first image: {pulls[0].whole / MIB:.1f} MiB\n")
    print(harness.table(head, rows))


if __name__ == "__main__":
    os.environ.pop("DOCKER_HOST", None)
    sys.exit(main())
