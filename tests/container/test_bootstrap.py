"""The base made from Debian packages is what a Dockerfile expects of debian:trixie-slim."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from podkiln.build import base_image
from podkiln.oci import layout
from podkiln.pipeline.planning import bootstrapped_base

if TYPE_CHECKING:
    from podkiln.build.base_image import BaseLayout

pytestmark = pytest.mark.engine

SCRIPT = Path(base_image.__file__).parents[2] / "scripts" / "host" / "bootstrap_base.sh"
HOSTS_APT = [Path("/var/lib/apt/lists"), Path("/var/cache/apt/archives")]


@pytest.fixture(scope="module")
def rootfs(bootstrap_base: BaseLayout) -> dict[str, tarfile.TarInfo]:
    image = layout.read(bootstrap_base.path, full=True)
    with tarfile.open(image.blob_path(image.manifest.layers[0].digest)) as tar:
        return {entry.name.removeprefix("./"): entry for entry in tar}


def test_it_is_slim_and_has_no_time_in_it(rootfs: dict[str, tarfile.TarInfo]) -> None:
    assert {entry.mtime for entry in rootfs.values()} == {0}
    assert not [
        name for name in rootfs if name.startswith(("dev/", "usr/share/man/man1", "var/lib/apt/lists/"))
    ]
    docs = [name for name, entry in rootfs.items() if name.startswith("usr/share/doc/") and entry.isfile()]
    assert {Path(name).name for name in docs} == {"copyright"}
    assert rootfs["etc/apt/sources.list.d/debian.sources"].isfile()
    assert rootfs["usr/sbin/policy-rc.d"].mode == 0o755
    for empty in ("etc/machine-id", "etc/resolv.conf"):
        assert rootfs[empty].size == 0


def test_another_run_gives_the_same_bytes_and_leaves_the_hosts_apt_alone(
    tmp_path: Path, bootstrap_base: BaseLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [sorted(path.iterdir()) for path in HOSTS_APT]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    again = bootstrapped_base()
    assert again.path != bootstrap_base.path
    assert again.digest == bootstrap_base.digest
    assert [sorted(path.iterdir()) for path in HOSTS_APT] == before
    assert [path.name for path in again.path.parent.iterdir() if path.suffix != ".lock"] == [again.path.name]


def test_bake_takes_it_as_the_base_and_apt_works_in_it(
    tmp_path: Path, bootstrap_base: BaseLayout, docker_engine: str
) -> None:
    """Bridge network, DNS and the base's own sources, in one step; the stage named base is never pulled."""
    (tmp_path / "Dockerfile").write_text(
        "FROM registry.invalid/none:none AS base\nFROM base\nARG SOURCE_DATE_EPOCH\n"
        "RUN apt-get -q update && apt-get -qy install --no-install-recommends tini && tini --version\n"
    )
    export = "tar=false,rewrite-timestamp=true,compression=zstd,oci-mediatypes=true"
    target = {
        "context": str(tmp_path),
        "contexts": {"base": f"oci-layout://{bootstrap_base.path}@{bootstrap_base.digest}"},
        "args": {"SOURCE_DATE_EPOCH": "0"},
        "attest": ["type=provenance,disabled=true"],
        "output": [f"type=oci,dest={tmp_path / 'image'},{export}"],
    }
    (tmp_path / "bake.json").write_text(json.dumps({"target": {"default": target}}))
    argv = ["docker", "buildx", "bake", "--file", str(tmp_path / "bake.json")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(layout.read(tmp_path / "image", full=True).manifest.layers) == 2


MMDEBSTRAP = """#!/bin/bash -eu
# Makes a root of what decides about its sources, and runs the hooks.
root=$(mktemp -d)
mkdir -p "$root"/etc/{apt/sources.list.d,apt/apt.conf.d,dpkg/dpkg.cfg.d}
mkdir -p "$root"/usr/{share/doc/apt/examples,sbin}
mkdir -p "$root"/var/{log,cache/{ldconfig,debconf,apt},lib/{dpkg,apt/lists}}
printf 'URIs: http://example.invalid/debian\\nURIs: http://example.invalid/debian-security\\n' \\
    >"$root/usr/share/doc/apt/examples/debian.sources"
cp -r "$(dirname "${@: -1}")" "$SEEN"
for word; do
    case $word in
    --customize-hook=upload*) read -r _ from to <<<"$word"; cp "$from" "$root$to" ;;
    --customize-hook=*) sh -c "${word#*=}" hook "$root" ;;
    esac
done
tar -cf "${@: -2:1}" -C "$root" .
rm -r "$root"
"""


def run_with(
    folder: Path, programs: dict[str, str], *options: str, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run the script with other programs, which go before the host's."""
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    own = {name: value for name, value in os.environ.items() if name != "APT_MIRROR"}
    path = {"PATH": f"{folder}:{os.environ['PATH']}", "SEEN": f"{folder}/seen"}
    return subprocess.run(
        [str(SCRIPT), *options, str(folder / "base.tar")],
        env={**own, **path, **settings},
        capture_output=True,
        text=True,
        check=False,
    )


def test_locked_packages_come_from_the_hosts_mirror_of_each_archive(tmp_path: Path) -> None:
    for name in ("debian", "debian-security"):
        (tmp_path / "index" / name).mkdir(parents=True)
    (tmp_path / "index/snapshot").write_text("20261128T000000Z")
    apt = (
        "#!/bin/sh\necho 'Debian|Debian|http://one/debian/'; echo 'Debian|Debian-Security|http://two/sec/'\n"
    )
    programs = {"mmdebstrap": MMDEBSTRAP, "apt-get": apt}
    done = run_with(tmp_path, programs, "--index", str(tmp_path / "index"))
    assert done.returncode == 0, done.stderr
    for name, mirror in (("debian", "http://one/debian/"), ("debian-security", "http://two/sec/")):
        rows = (tmp_path / "seen/mirrors" / name).read_text().splitlines()
        assert rows[1] == f"{mirror}\tpriority:2\ttype:deb"


def test_a_mirrors_login_does_not_get_into_the_base(tmp_path: Path) -> None:
    for suite in ("trixie", "trixie-security"):
        (tmp_path / "debian/dists" / suite).mkdir(parents=True)
        (tmp_path / "debian/dists" / suite / "InRelease").write_text("x")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        mirror = f"http://me:hush@127.0.0.1:{server.server_port}/debian"
        done = run_with(tmp_path, {"mmdebstrap": MMDEBSTRAP}, APT_MIRROR=mirror)
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert mirror in (tmp_path / "seen/sources").read_text(), "the packages come from it"
    with tarfile.open(tmp_path / "base.tar") as tar:
        sources = tar.extractfile("./etc/apt/sources.list.d/debian.sources")
        assert sources
        assert "URIs: http://example.invalid/debian\n" in sources.read().decode()
    assert b"hush" not in (tmp_path / "base.tar").read_bytes()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("http://me:hush@127.0.0.1:9/debian", "the mirror http://127.0.0.1:9/debian does not serve trixie"),
        ("https://127.0.0.1:9/debian", "the mirror https://127.0.0.1:9/debian does not serve trixie"),
    ],
)
def test_a_mirror_that_does_not_serve_is_one_sentence(given: str, said: str, tmp_path: Path) -> None:
    argv = [str(SCRIPT), str(tmp_path / "base.tar"), given]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_where_apt_knows_no_debian_a_mirror_is_asked_for(tmp_path: Path) -> None:
    apt = "#!/bin/sh\necho 'Ubuntu|Ubuntu|http://archive.ubuntu.com/ubuntu/'\n"
    done = run_with(tmp_path, {"apt-get": apt})
    assert done.returncode == 1
    assert "no source of Debian to take the mirror from, as on Ubuntu: name a mirror." in done.stderr
