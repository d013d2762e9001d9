"""A tiny image that runs: the machine's own /bin/echo with its libraries, built by BuildKit."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

SAYS = "it runs"
_DOCKERFILE = f"""\
FROM scratch
COPY root/ /
COPY noise /noise
LABEL who=tiny
ENTRYPOINT ["/bin/echo", "{SAYS}"]
"""


def build(directory: Path, *, compression: str = "zstd", noise: bytes = b"") -> Path:
    """Build the image as an OCI layout, as podkiln's own builds are exported; return the layout."""
    context = directory / "context"
    echo = shutil.which("echo")
    assert echo
    libraries = subprocess.run(["ldd", echo], capture_output=True, text=True, check=True).stdout
    _copy(Path(echo), context / "root/bin/echo")
    for library in re.findall(r"/\S+", libraries):
        _copy(Path(library), context / "root" / library[1:])
    (context / "noise").write_bytes(noise)
    (context / "Dockerfile").write_text(_DOCKERFILE)
    output = f"type=oci,dest={directory}/layout,tar=false,compression={compression},force-compression=true"
    argv = ["docker", "buildx", "build", "--quiet", "--provenance=false", "--output", output, str(context)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return directory / "layout"


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
