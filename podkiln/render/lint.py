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
# No two matches of it can overlap, so that a search takes no longer than its text is.
_BEFORE_AT = re.compile(r"[a-z+]://([^/\s@]*)@")
_GIT_ADDRESS = re.compile(r"(?:https?|git|ssh)://[^?#]+\.git|(?:git|ssh)://[^?#]+|git@[^?#]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FETCHED = re.compile(r"\b(curl|wget)\b")
_SHELL = re.compile(r"\b(ba|da|z)?sh\b")
_PIPED_SHELL = re.compile(r"(^|[\s|])(ba|da|z)?sh\b")
_FETCHING = re.compile(r"[$<]\((curl|wget)\b")


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
    """Read an ADD as BuildKit does: a git address is one by its form, and all else from a network is a file.

    In front of the last word stand options and sources; a query makes a file of what would be a repository.
    """
    options, words = _words(rest)
    # What a variable holds is not known here, so it is taken for an address.
    sources = [word for word in words[:-1] if "://" in word or word.startswith(("git@", "$"))]
    for source in sources:
        address, _, commit = source.partition("#")
        if _GIT_ADDRESS.fullmatch(address):
            if not _COMMIT.fullmatch(commit):
                return f"{source} is not pinned by a commit of 40 digits."
        elif not any(each.startswith("--checksum=sha256:") for each in options):
            return f"{source} is not pinned by --checksum, and no address of a git repository."
    return None


def _words(rest: str) -> tuple[list[str], list[str]]:
    """Return the options of an instruction, and its other words, which may be a JSON list."""
    options: list[str] = []
    while rest.startswith("--"):
        option, _, rest = rest.partition(" ")
        options, rest = [*options, option], rest.strip()
    try:
        listed = json.loads(rest) if rest.startswith("[") else None
    except ValueError:
        listed = None
    return options, [*map(str, listed)] if isinstance(listed, list) else rest.split()


def _has_login(text: str) -> bool:
    """Tell whether a URL in a text has a name and a password before its host."""
    return any(found.partition(":")[2] for found in _BEFORE_AT.findall(text))


def _runs_unseen(words: str) -> bool:
    """Tell whether a shell runs what comes from a network.

    curl … | sh, with sudo or env before it; sh -c "$(curl …)"; bash <(curl …). Each is looked for behind
    the first half that there is, so that the time grows with the length alone.
    """
    for step in re.split("[&;]", words):
        if (fetched := _FETCHED.search(step)) and _PIPED_SHELL.search(
            step[fetched.end() :].partition("|")[2]
        ):
            return True
        if (shell := _SHELL.search(step)) and _FETCHING.search(step, shell.end()):
            return True
    return False


def _variable(rest: str, _stages: set[str]) -> str | None:
    if _SECRET.search(rest) or _has_login(rest):
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
    if _runs_unseen(words):
        return "a script from the network is run unseen."
    if _has_login(rest):
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
