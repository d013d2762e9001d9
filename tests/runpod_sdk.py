"""RunPod's SDK and an S3 server, installed once for all tests: a folder for the path of a child process.

They are in no requirements of podkiln's: an image gets the SDK by its variant. The folder is kept between
runs, under a name that says what was locked, and which Python it is for.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

from images import ROOT, SYSTEM_CA

LOCK = ROOT / "tests" / "fixtures" / "runpod_sdk" / "requirements.txt"
_KEPT = Path.home() / ".cache" / "podkiln-tests"


def installed() -> Path:
    """Return the folder, and install what is in it where it is not there yet."""
    about = f"{sys.implementation.cache_tag} {LOCK.read_text(encoding='utf-8')}"
    folder = _KEPT / f"runpod-sdk-{sha256(about.encode()).hexdigest()[:16]}"
    _KEPT.mkdir(parents=True, exist_ok=True)
    with (_KEPT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # workers of one run ask for it at once
        if not folder.is_dir():
            half = folder.with_suffix(".half")
            shutil.rmtree(half, ignore_errors=True)
            uv = Path(sys.executable).with_name("uv")
            words: list[str | Path] = [
                "pip",
                "install",
                "--quiet",
                "--no-config",
                "--python",
                sys.executable,
                "--target",
                half,
            ]
            hashes: list[str | Path] = [
                "--require-hashes",
                "--no-deps",
                "--only-binary",
                ":all:",
                "--requirement",
                LOCK,
            ]
            trust = {"SSL_CERT_FILE": str(SYSTEM_CA)} if SYSTEM_CA.exists() else {}
            subprocess.run([uv, *words, *hashes], check=True, timeout=300, env={**os.environ, **trust})
            half.rename(folder)
    return folder


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of a child process that finds them, with nothing of RunPod's or S3's."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RUNPOD_", "BUCKET_", "AWS_", "WORKER_", "REFRESH_", "COMFY_"))
    }
    return {**kept, "PYTHONPATH": str(installed()), **variables}
