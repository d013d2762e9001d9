"""Rules over what was rendered: hadolint, shellcheck, and those that only podkiln can know."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from podkiln.errors import LintError
from podkiln.util import process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from podkiln.render.context_file import File

_SECRET = re.compile(
    r"token(?!iz)|secret|passw|api_?key|credential|hf_[A-Za-z0-9]{20,}|bearer\s|[?&](token|key)=",
    re.IGNORECASE,
)
_URL_LOGIN = re.compile(r"[a-z+]+://[^/\s@]+:[^/\s@]+@")
# curl … | sh, with sudo or env before it; sh -c "$(curl …)"; bash <(curl …).
_UNSEEN = re.compile(
    r"\b(curl|wget)\b[^&;]*\|\s*(\S+ )*?(ba|da|z)?sh\b|\b(ba|da|z)?sh\b[^&;]*[$<]\((curl|wget)\b"
)


@dataclass(frozen=True)
class Finding:
    """One broken rule."""

    path: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.message}"


def check(files: Mapping[str, File]) -> list[Finding]:
    """Return every broken rule in a rendered context."""
    return [*own_rules(files["Dockerfile"].content.decode()), *_programs(files)]


def require(name: str, files: Mapping[str, File], option: str = "") -> None:
    """Check a rendered context before it is built. Raises LintError with the first broken rule.

    `option` names the variant in the command that shows all.
    """
    found = check(files)
    if found:
        more = f" (and {len(found) - 1} more; `./build.py lint{option}` shows all)" if len(found) > 1 else ""
        raise LintError(f"{name}/{found[0]}{more}")


def own_rules(dockerfile: str) -> list[Finding]:
    """Check a Dockerfile: no secret in ARG or ENV, nothing unpinned."""
    found = []
    stages: set[str] = set()
    for line, instruction, rest in instructions(dockerfile):
        rule = _RULES.get(instruction)
        message = rule(rest, stages) if rule else None
        if message:
            found.append(Finding("Dockerfile", line, f"podkiln-{instruction.lower()}", message))
        named = re.search(r"\sAS\s+(\S+)$", rest, re.IGNORECASE)
        if instruction == "FROM" and named:
            stages.add(named[1])
    return found


def instructions(dockerfile: str) -> Iterator[tuple[int, str, str]]:
    """Yield line number, instruction and the rest, with continued lines joined and comments left out."""
    joined, begun = "", 0
    for number, line in enumerate(dockerfile.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        begun = begun or number
        joined += " " + line.strip().removesuffix("\\").strip()
        if not line.rstrip().endswith("\\"):
            instruction, _, rest = joined.strip().partition(" ")
            yield begun, instruction.upper(), rest.strip()
            joined, begun = "", 0


def _from(rest: str, stages: set[str]) -> str | None:
    return _unpinned(re.sub(r"^(--\S+\s+)+", "", rest).split()[0], stages)


def _copy(rest: str, stages: set[str]) -> str | None:
    image = re.search(r"--from=(\S+)", rest)
    return _unpinned(image[1], stages) if image else None


def _unpinned(image: str, stages: set[str]) -> str | None:
    if image == "scratch" or image in stages or image.isdigit() or "@sha256:" in image:
        return None
    return f"{image} is not pinned by digest."


def _add(rest: str, _stages: set[str]) -> str | None:
    words = re.sub(r'[\[\]",\s]+', " ", rest).split()  # the form of a JSON list, too
    # What a variable holds is not known here, so it is taken for an address.
    sources = [word for word in words[:-1] if "://" in word or word.startswith(("git@", "$"))]
    for source in sources:
        is_git = re.search(r"\.git(#|$)", source)
        if is_git and not re.search(r"#[0-9a-f]{40}$", source):
            return f"{source} is not pinned by a commit of 40 digits."
        if not is_git and "--checksum=sha256:" not in rest:
            return f"{source} is not pinned by --checksum."
    return None


def _variable(rest: str, _stages: set[str]) -> str | None:
    if _SECRET.search(rest) or _URL_LOGIN.search(rest):
        return "looks like a secret: ARG and ENV stay in the image's history; use --mount=type=secret."
    return None


def _run(rest: str, stages: set[str]) -> str | None:
    for image in re.findall(r"--mount=\S*\bfrom=([^,\s]+)", rest):
        if message := _unpinned(image, stages):
            return message
    words = re.sub(r'[\[\]",\s]+', " ", rest)  # the form of a JSON list, too
    for step in re.split(r"&&|\|\||;", words):
        if re.search(r"\bpip3? install\b", step) and "--require-hashes" not in step:
            return "pip install without --require-hashes."
    if re.search(r"\bgit clone\b", words):
        return "git clone is not pinned; a stage with ADD <url>#<commit> is."
    if _UNSEEN.search(words):
        return "a script from the network is run unseen."
    if _URL_LOGIN.search(rest):
        return "a URL holds a login, which stays in the image's history; use --mount=type=secret."
    return None


_RULES: dict[str, Callable[[str, set[str]], str | None]] = {
    "FROM": _from,
    "COPY": _copy,
    "ADD": _add,
    "ARG": _variable,
    "ENV": _variable,
    "RUN": _run,
}


def _programs(files: Mapping[str, File]) -> list[Finding]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        scripts = [path for path in files if path.endswith(".sh")]
        for path in ("Dockerfile", *scripts):
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(files[path].content)
        hadolint = _json_of([_tool("hadolint"), "--format", "json", "--no-fail", "Dockerfile"], root)
        shellcheck = _json_of(
            [_tool("shellcheck"), "--format", "json", "--enable", "all", *_EXCLUDED, *scripts], root
        )
    rows = [*((row, row["code"]) for row in hadolint), *((row, f"SC{row['code']}") for row in shellcheck)]
    return [Finding(row["file"], int(row["line"]), str(code), str(row["message"])) for row, code in rows]


# SC2250 and SC2312 are matters of taste: braces around every name, and a `|| true` behind every substitution.
# SC2310 warns that `set -e` is off in a condition, which is what a condition is for.
_EXCLUDED = ("--exclude", "SC2250,SC2310,SC2312")


def _tool(name: str) -> str:
    """Return a linter of our own environment; it is locked there."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else process.find_executable(name)


def _json_of(argv: list[str], cwd: Path) -> list[dict[str, str]]:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    try:
        rows: list[dict[str, str]] = json.loads(done.stdout)
    except ValueError:
        raise LintError(
            f"{Path(argv[0]).name} did not run: {process.tail(done.stderr or done.stdout)}"
        ) from None
    return rows
