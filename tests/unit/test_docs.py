"""The documentation says what the code does: generated pages, names, links, examples and command lines."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import click
import pytest
from comfyui_trees import describe_as

from docs import generate
from pod.commands import fetch
from pod.net import transfer_policy
from podkiln import cli
from podkiln.config import catalog, comfyui_flags, document, variant
from podkiln.config.flag_files import ProfilesFile
from podkiln.config.model import Model
from podkiln.config.node import Node
from podkiln.config.preset import Preset
from podkiln.util import console
from podkiln.weights import layer_lookup

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.config.document import StrictModel

ROOT = generate.ROOT
GENERATED = generate.pages()
MODELS = catalog.load()
# The variants that the pages show as examples, and what they switch on.
EXAMPLES: dict[str, list[str]] = {
    "studio.yaml": ["sdxl-base", "studio-style"],
    "mine.yaml": [],
    "older.yaml": [],
    "pictures-api.yaml": ["sdxl-base"],
    "portraits.yaml": ["realvisxl-v4"],
    "sdxl-only.yaml": ["sdxl-base"],
    "sdxl-server.yaml": [],
    "turbo-server.yaml": [],
    "studio-worker.yaml": ["qwen-image-edit-2511"],
    "two-of-them.yaml": [],
    "with-ffmpeg.yaml": [],
    "with-nodes.yaml": [],
    "with-packages.yaml": [],
    "older-drivers.yaml": [],
    "arm.yaml": [],
    "without-opengl.yaml": [],
}
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
WRITTEN = [page for page in PAGES if not page.read_text().startswith(generate.GENERATED)]
ENVIRONMENT = (ROOT / "docs/reference/environment.md").read_text()
SHIPPED = ("baked", "consumer", "datacenter", "lazy", "prosumer", "server", "serverless")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(language: str) -> list[tuple[str, str]]:
    """Return the fenced blocks of a language, each with the page that it stands on."""
    pattern = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [(name_of(page), block) for page in WRITTEN for block in pattern.findall(page.read_text())]


def test_generated_pages_are_current() -> None:
    old = [name_of(page) for page, text in GENERATED.items() if page.read_text() != text]
    assert old == [], "run `make golden`"


def test_every_page_is_listed() -> None:
    index = (ROOT / "docs/README.md").read_text()
    listed = {(ROOT / "docs" / link) for link in re.findall(r"\]\(([^)]+)\)", index)}
    assert listed == {page for page in PAGES if page.is_relative_to(ROOT / "docs")} - {
        ROOT / "docs/README.md"
    }


def test_links_lead_somewhere() -> None:
    dead = [
        f"{name_of(page)}: {link}"
        for page in PAGES
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
        if "://" not in link and not (page.parent / link).exists()
    ]
    assert dead == []


def documented_variables() -> set[str]:
    """Return the names in the first column of the tables."""
    cells = re.findall(r"^\| (`.*?`) \|", ENVIRONMENT, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([A-Z][A-Z0-9_]+)`", cell)}


def test_every_variable_that_is_read_is_described() -> None:
    assert sorted(generate.variables() - documented_variables()) == []


def test_every_variable_that_is_described_is_read() -> None:
    shell = "".join(path.read_text() for path in (ROOT / "scripts" / "host").glob("*.sh"))
    shell += "".join(path.read_text() for path in (ROOT / "templates").rglob("*.j2"))
    unread = documented_variables() - generate.variables()
    assert sorted(name for name in unread if not re.search(rf"\b{name}\b", shell)) == []


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("FETCH_JOBS", fetch.JOBS),
        ("FETCH_CONNECTIONS", transfer_policy.TransferPolicy().connections),
        ("PODKILN_FETCH_CHUNK", transfer_policy.TransferPolicy().chunk),
    ],
)
def test_defaults_are_the_real_ones(name: str, default: int) -> None:
    assert f"| `{name}` | `{default}` |" in ENVIRONMENT


def test_the_page_of_flags_says_where_each_profile_was_measured() -> None:
    page = (ROOT / "docs/how-to/choose-flags.md").read_text()
    profiles = document.load(comfyui_flags.DIRECTORY / comfyui_flags.PROFILES).parse(ProfilesFile).profiles
    assert [f"| `{name}` | {each.about} | {each.measured} |" for name, each in profiles] == [
        line for line in page.splitlines() if re.match(r"\| `(dynamic|conservative|no_xformers)` ", line)
    ]


def command_lines() -> list[tuple[str, str]]:
    """Return the calls of ./build.py in all pages: whole lines of shell blocks, and those in the text."""
    found = []
    for language in ("sh", "console"):
        for page, block in blocks(language):
            lines = [line.removeprefix("$ ").partition("  #")[0] for line in block.splitlines()]
            found += [(page, line) for line in lines if line.startswith("./build.py")]
    for path in WRITTEN:
        text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
        calls = re.findall(r"`(\./build\.py [^`]+)`", text)
        found += [(name_of(path), " ".join(call.split())) for call in calls]
    return found


def test_command_lines_are_understood() -> None:
    assert len(command_lines()) > 20
    left = {f"{page}: {line}": not_understood(line) for page, line in command_lines()}
    assert {where: words for where, words in left.items() if words} == {}


def not_understood(line: str) -> list[str]:
    """Return what of a command line would be refused, or the refusal."""
    words = shlex.split(line)[1:]
    with click.Context(cli.cli, info_name="./build.py") as context:
        command = cli.cli.get_command(context, words[0])
        arguments = words[1:] if command else words
        called = command or cli.cli
        parser = called.make_parser(click.Context(called))  # its own: a group takes no options behind words
        try:
            return parser.parse_args(arguments)[1]
        except click.UsageError as refused:
            return [str(refused)]


def samples() -> list[tuple[str, str, str]]:
    """Return page, command and what it prints, of the commands in the pages that move nothing."""
    found = []
    for page, block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, shown = part.partition("\n")
            if re.match(r"\./build\.py (flags|plan|models|variants) ", line) and shown:
                found.append((page, line, shown))
    return found


def as_pattern(shown: str) -> str:
    """Return a sample as a pattern: a line of … stands for lines that are left out, … in a line for words."""
    lines = [
        r"(?:.*\n)*?" if line == "…" else ".*".join(map(re.escape, line.split("…"))) + r"\n"
        for line in shown.splitlines()
    ]
    return "".join(lines)


def test_there_are_samples_to_run() -> None:
    assert len(samples()) >= 4


@pytest.mark.parametrize(("page", "line", "shown"), samples())
def test_samples_show_what_the_command_prints(
    page: str,
    line: str,
    shown: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(layer_lookup, "probe", lambda *_: {})  # nobody's registry is asked
    for _, text in blocks("yaml"):
        name = re.match(r"# (\S+\.yaml)\n", text)
        if name:  # a sample about a misspelt key shows the example with that mistake
            wrong = re.search(r": (\w+): unknown key\. Did you mean '(\w+)'", shown)
            (tmp_path / name[1]).write_text(
                text.replace(f"{wrong[2]}:", f"{wrong[1]}:", 1) if wrong else text
            )
    cli.main(shlex.split(line)[1:])
    told = capsys.readouterr()
    printed = told.out + told.err
    assert re.fullmatch(as_pattern(shown), printed), f"{page}: `{line}` prints now:\n{printed}"


@pytest.mark.parametrize(("page", "text"), blocks("yaml"))
def test_examples_of_descriptions_are_right(page: str, text: str, tmp_path: Path) -> None:
    """A first line `# model`, `# node`, `# preset` or `# NAME.yaml` says what the example is."""
    title = text.partition("\n")[0].removeprefix("# ")
    shapes: dict[str, type[StrictModel]] = {"model": Model, "node": Node, "preset": Preset}
    path = tmp_path / (f"{title}.yaml" if title in shapes else title)
    path.write_text(text)
    for release in re.findall(r"^  comfyui: ([0-9.]+)$", text, re.MULTILINE):
        describe_as(release, tmp_path)
    if title in shapes:
        document.load(path).parse(shapes[title])
        return
    offered = catalog.offered(variant.load(str(path)), MODELS)
    assert [offer.id for offer in offered if offer.default] == EXAMPLES[title]


def test_commands_for_older_drivers_do_what_they_are_shown_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What would build and push is planned; the rest runs as it stands, for both of the page's variants."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(layer_lookup, "probe", lambda *_: {})
    page = "docs/how-to/older-drivers.md"
    own = {text.partition("\n")[0].removeprefix("# "): text for name, text in blocks("yaml") if name == page}
    for name, text in own.items():
        (tmp_path / name).write_text(text)
    lines = [line for name, text in blocks("sh") if name == page for line in text.splitlines()]
    assert len(lines) == 3
    for line in lines:
        pushed = " --dry-run --registry ghcr.io/you" if "--push" in line else ""
        assert cli.main(shlex.split(line + pushed)[1:]) == 0, line
        told = capsys.readouterr().out
        assert ("slower with this CUDA" if " models " in line else "CUDA 12.8 on linux/amd64") in told
    for name, says in (
        ("older-drivers.yaml", "driver 570 or newer"),
        ("arm.yaml", "was ever built or booted"),
    ):
        assert cli.main(["plan", "--variant", name]) == 0
        assert says in capsys.readouterr().out


@pytest.mark.parametrize("name", SHIPPED)
def test_readme_says_what_each_variant_fetches(name: str) -> None:
    described = variant.load(name)
    models = {offer.id: offer.model for offer in catalog.offered(described, MODELS) if offer.default}
    row = next(line for line in (ROOT / "README.md").read_text().splitlines() if f"| `{name}` |" in line)
    fetched = row.split("|")[3]
    assert [word for word in re.findall(r"[a-z0-9.-]+", fetched) if word in MODELS] == list(models)
    assert console.size(sum(model.size_bytes for model in models.values())) in fetched


def test_readme_leads_to_an_image_on_the_first_screen() -> None:
    assert "./build.py --variant lazy" in "".join((ROOT / "README.md").read_text().splitlines()[:24])
