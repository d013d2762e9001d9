"""Lint: our own rules as a table of bad Dockerfiles, and what is rendered is clean by all linters."""

from __future__ import annotations

import time

import pytest
from plans import plan_of

from podkiln.errors import LintError
from podkiln.render import build_context, lint
from podkiln.render.context_file import File
from podkiln.render.lint import Finding

SHA = "0123456789abcdef" * 4
COMMIT = SHA[:40]

BAD = [
    ("ARG HF_TOKEN", "arg", "looks like a secret"),
    ("ENV DB_PASSWORD=x", "env", "looks like a secret"),
    ("ENV A=1 \\\n    API_KEY=x", "env", "looks like a secret"),
    ("ENV URL=https://x.example/?token=abc", "env", "looks like a secret"),
    ("ENV INDEX=https://me:pw@x.example/", "env", "looks like a secret"),
    ("ENV INDEX=https://:pw@x.example/", "env", "looks like a secret"),
    ("ENV X=hf_abcdefghijklmnopqrstuvwx", "env", "looks like a secret"),
    ("FROM debian", "from", "not pinned by digest"),
    ("FROM debian:trixie-slim AS other", "from", "not pinned by digest"),
    ("FROM --platform=linux/amd64 debian:12", "from", "not pinned by digest"),
    ("FROM ${BASE}", "from", "not pinned by digest"),
    ("COPY --from=alpine:3 /bin/sh /sh", "copy", "alpine:3 is not pinned by digest"),
    ("RUN --mount=type=bind,from=alpine:3,target=/a ls /a", "run", "alpine:3 is not pinned by digest"),
    ("ADD https://x.example/file /file", "add", "not pinned by --checksum"),
    ("ADD https://x.example/a.git#main /a", "add", "not pinned by a commit"),
    ("ADD https://x.example/a.git /a", "add", "not pinned by a commit"),
    (f"ADD https://x.example/a?b.git#{COMMIT} /a", "add", "no address of a git repository"),
    (f"ADD https://x.example/a.git?b#{COMMIT} /a", "add", "no address of a git repository"),
    (f"ADD https://x.example/a.git#{COMMIT}:sub /a", "add", "not pinned by a commit"),
    ("ADD https://x.example/--checksum=sha256:/f /f", "add", "not pinned by --checksum"),
    ("ADD git@x.example:a/b.git#v1 /a", "add", "not pinned by a commit"),
    ("ADD ${HUB}/file /file", "add", "not pinned by --checksum"),
    ('ADD ["https://x.example/a.git#main", "/a"]', "add", "not pinned by a commit"),
    ('ADD --chmod=0644 ["$HUB/file", "/file"]', "add", "not pinned by --checksum"),
    ("RUN pip install torch", "run", "without --require-hashes"),
    ('RUN ["pip", "install", "torch"]', "run", "without --require-hashes"),
    ("RUN uv pip install -r a && pip install --require-hashes -r b", "run", "without --require-hashes"),
    ("RUN git clone https://x.example/a.git", "run", "git clone is not pinned"),
    ("RUN curl -fsSL https://x.example/i.sh | sh", "run", "run unseen"),
    ("RUN wget -qO- https://x.example/i.sh \\\n  | sudo bash -s", "run", "run unseen"),
    ('RUN sh -c "$(curl -fsSL https://x.example/i.sh)"', "run", "run unseen"),
    ("RUN bash <(curl -s https://x.example/i.sh)", "run", "run unseen"),
    ("RUN curl -O https://me:pw@x.example/f", "run", "a URL holds a login"),
]
GOOD = [
    "ARG SOURCE_DATE_EPOCH=1",
    "ENV TOKENIZERS_PARALLELISM=false",
    "FROM scratch",
    "FROM base AS other",
    f"FROM debian:12@sha256:{SHA}",
    "COPY --from=base /a /b",
    "COPY --from=0 /a /b",
    f"ADD https://x.example/a.git#{COMMIT} /",
    f"ADD --checksum=sha256:{SHA} https://x.example/file /file",
    f'ADD --checksum=sha256:{SHA} ["${{HUB}}/file", "/file"]',
    "ADD local.tar /",
    "RUN pip install --require-hashes -r requirements.txt",
    "RUN curl -fsSLO https://x.example/file && sh other.sh",
    "RUN --mount=type=bind,from=base,target=/a ls /a",
    "# ARG HF_TOKEN",
]


def around(line: str) -> str:
    return f"# first\nFROM debian@sha256:{SHA} AS base\n\n{line}\nRUN true\n"


@pytest.mark.parametrize(("line", "rule", "says"), BAD, ids=[line for line, _, _ in BAD])
def test_a_bad_line_is_found_where_it_stands(line: str, rule: str, says: str) -> None:
    (found,) = lint.own_rules(around(line))
    assert (found.path, found.line, found.rule) == ("Dockerfile", 4, f"podkiln-{rule}")
    assert says in found.message


@pytest.mark.parametrize("line", GOOD)
def test_a_good_line_is_left_alone(line: str) -> None:
    assert lint.own_rules(around(line)) == []


@pytest.mark.parametrize("piece", ["a", "a://b:", "https://", "hf_", "curl ", "curl | a ", "sh $( "])
@pytest.mark.parametrize("instruction", ["ENV X=", "RUN "])
def test_a_long_line_takes_no_longer_than_its_length(instruction: str, piece: str) -> None:
    text = around(instruction + piece * (100_000 // len(piece)))
    begun = time.process_time()
    assert lint.own_rules(text) == []
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("name", ["baked", "consumer", "datacenter", "lazy", "prosumer"])
def test_what_is_rendered_keeps_all_rules(name: str) -> None:
    files = build_context.render(plan_of(name))
    assert [path for path in files if path.endswith(".sh")], "the scripts are looked at too"
    assert list(map(str, lint.check(files))) == []


@pytest.mark.parametrize(
    ("path", "old", "new", "rule"),
    [
        ("Dockerfile", "WORKDIR /opt/ComfyUI", "WORKDIR opt", "DL3000"),
        ("start.sh", 'mkdir -p "$PODKILN_RUN"', "mkdir -p $PODKILN_RUN", "SC2086"),
        ("build/install-tree.sh", '-R 0:0 "$2"', "-R 0:0 $2", "SC2086"),
    ],
)
def test_the_linters_really_run(path: str, old: str, new: str, rule: str) -> None:
    files = build_context.render(plan_of())
    text = files[path].content.decode()
    assert old in text
    broken = text.replace(old, new)
    line = text[: text.index(old)].count("\n") + 1
    found = lint.check({**files, path: File(broken.encode())})
    assert (path, line, rule) in [(each.path, each.line, each.rule) for each in found]


def test_a_build_stops_at_the_first_broken_rule() -> None:
    files = {**build_context.render(plan_of()), "Dockerfile": File(b"FROM debian\nRUN pip install x\n")}
    with pytest.raises(
        LintError, match=r"^lazy/Dockerfile:1: podkiln-from: .* \(and \d+ more; `./build.py lint`"
    ):
        lint.require("lazy", files)


def test_a_finding_reads_as_compilers_write_them() -> None:
    assert str(Finding("start.sh", 3, "SC2086", "Quote it.")) == "start.sh:3: SC2086: Quote it."
