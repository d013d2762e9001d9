"""The address of a git repository as descriptions have it: https://HOST/PATH, and nothing beside it.

It is written into `ADD URL.git#COMMIT`. For BuildKit that is a checkout of the commit only where the path
ends in .git; with a query before that, the same line is a download of a file that nothing pins
(https://docs.docker.com/reference/dockerfile/#adding-files-from-a-git-repository).
"""

from __future__ import annotations

import re
from typing import Annotated, Final
from urllib.parse import unquote

from pydantic import AfterValidator

from podkiln.config.fields import HOST, url_problem
from podkiln.config.messages import PatternType

LONGEST: Final = 1000
"""Characters; a lock takes 4096, and has it beside others."""
_SEGMENT: Final = r"([A-Za-z0-9._~-]|%[0-9A-Fa-f]{2})+"


def _problem(value: str) -> str | None:
    """Return what keeps a text from being such an address, without repeating it: it may hold a login."""
    if problem := url_problem(value):
        return problem
    path = value.partition("://")[2].partition("/")[2]
    plain = re.fullmatch(f"({_SEGMENT}/)*{_SEGMENT}", path)
    of = "expected the address of"
    problems = {
        f"{of} the repository without ? and what stands behind it": "?" in value,
        f"{of} the repository without .git and without / at its end": path.endswith("/"),
        f"{of} the repository with one / between its parts": "//" in path,
        f"{of} a repository: letters, digits and . _ ~ - or %XX between its /": not plain,
    }
    return next((problem for problem, found in problems.items() if found), None)


def _plain(value: str) -> str:
    """Check what the form alone does not say. Raises ValueError."""
    if len(value) > LONGEST:
        raise ValueError(f"expected an address of at most {LONGEST} characters (it has {len(value)})")
    if value.endswith(".git"):
        raise ValueError("expected the address of the repository without .git and without / at its end")
    for segment in value.partition("://")[2].split("/")[1:]:
        plain = unquote(segment, errors="replace")
        if plain in {".", ".."}:
            raise ValueError("expected the address of the repository without . and .. between its /")
        if not plain.isprintable() or re.search(r"[/\\?#@:%]", plain):
            raise ValueError("expected the address of the repository without %XX for what divides an address")
    return value


RepositoryUrl = Annotated[
    str,
    PatternType(
        rf"^https://{HOST}/({_SEGMENT}/)*{_SEGMENT}$",
        "the address of a repository such as https://github.com/OWNER/NAME",
        secret=True,
        explain=_problem,
    ),
    AfterValidator(_plain),
]
