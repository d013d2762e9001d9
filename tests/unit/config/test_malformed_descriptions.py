"""Everything that people get wrong in descriptions: one sentence with file, line and key, and exit code 3."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import pytest
from descriptions import FILE, MODEL, SHA, VARIANT, model, variant, write

from podkiln.config import catalog
from podkiln.config import variant as variants
from podkiln.errors import DescriptionError

if TYPE_CHECKING:
    from pathlib import Path


class Case(NamedTuple):
    name: str
    text: str | bytes
    line: int
    key: str
    says: str


def in_file(entry: str, was: str = "  sha256: unresolved\n") -> str:
    """A model whose only file is FILE with one line replaced."""
    assert was in FILE
    return model(FILE.replace(was, entry))


NINE = "[" + ",".join(["*a{}"] * 9) + "]"
BOMB = "a0: &a0 [x, x, x]\n" + "".join(
    f"a{level}: &a{level} {NINE.replace('{}', str(level - 1))}\n" for level in range(1, 9)
)

VARIANTS = [
    # --- not YAML, or not text
    Case("invalid YAML", VARIANT + "nodes: [1, 2\n", 7, "", r"not valid YAML: expected ',' or '\]'"),
    Case("a tab", VARIANT + "image:\n\trepository: x\n", 7, "", r"not valid YAML: found character '\\t'"),
    Case("not UTF-8", (VARIANT + "image: ü\n").encode("latin-1"), 6, "", "this is not UTF-8 text"),
    Case("UTF-16", VARIANT.encode("utf-16"), 1, "", "this is not UTF-8 text"),
    Case("an empty file", "", 1, "", "the top level must be a mapping"),
    Case("a list", "- extends: base\n", 1, "", "the top level must be a mapping"),
    Case("two documents", VARIANT + "---\n" + VARIANT, 6, "", "not valid YAML: but found another document"),
    Case("a NUL", VARIANT + "vram_gb: a\0b\n", 6, "", r"the character U\+0000 is not allowed"),
    Case("an escape", VARIANT + 'image: "\\e[31m"\n', 6, "", r"the character U\+001B is not allowed"),
    Case("half a surrogate pair", VARIANT + 'image: "\\ud800"\n', 6, "", r"the character U\+D800 is not"),
    # --- YAML's traps and bombs
    Case("a key twice", VARIANT + "tier: prosumer\n", 6, "tier", "the key is duplicated"),
    Case("an alias bomb", VARIANT + BOMB, 11, "", "aliases stand for more than 100000 values"),
    Case("an alias in itself", VARIANT + "nodes: &n [*n]\n", 6, "", "an alias that contains itself"),
    Case(
        "an unknown alias", VARIANT + "nodes: *none\n", 6, "", "not valid YAML: found undefined alias 'none'"
    ),
    Case(
        "nested too deeply", VARIANT + f"nodes: {'[' * 99}{']' * 99}\n", 6, "", "nested more than 40 levels"
    ),
    Case("bottomless", VARIANT + f"nodes: {'[' * 9999}\n", 6, "", "nested more than 40 levels deep"),
    Case(
        "a Python tag", VARIANT + "image: !!python/name:os.system\n", 6, "", "the tag !!python/name:os.system"
    ),
    Case("a set", VARIANT + "vram_gb: !!set {8, 12}\n", 6, "", "the tag !!set is not used"),
    Case("a merge key", VARIANT + "<<: {tier: prosumer}\n", 6, "<<", "unknown key"),
    Case("a key of null", VARIANT + "~: 1\n", 6, "~", "a key must be text"),
    Case("a key that is a list", VARIANT + "? [a, b]\n: 1\n", 6, "", "a key must be plain text"),
    # --- keys and types
    Case("an unknown key", VARIANT + "teir: consumer\n", 6, "teir", "unknown key. Did you mean 'tier'?"),
    Case("an unknown key deep inside", VARIANT + "runtime:\n  prot: 1\n", 7, "runtime.prot", "mean 'port'?"),
    Case(
        "text for a number",
        VARIANT + "runtime: {port: high}\n",
        6,
        "runtime.port",
        "expected a whole number",
    ),
    Case(
        "a quoted number", VARIANT + "runtime: {port: '80'}\n", 6, "runtime.port", "write '80' without quotes"
    ),
    Case(
        "a fraction", VARIANT + "vram_gb: [8.5]\n", 6, "vram_gb[0]", r"expected a whole number \(it is 8.5\)"
    ),
    Case("an octal", VARIANT + "runtime: {port: 0777}\n", 6, "runtime.port", "'0777'"),
    Case("minutes", VARIANT + "runtime: {port: 1:30}\n", 6, "runtime.port", "'1:30'"),
    Case("not a number", VARIANT + "vram_gb: [.nan]\n", 6, "vram_gb[0]", "'.nan'"),
    Case("5000 digits", VARIANT + f"vram_gb: [{'9' * 5000}]\n", 6, "vram_gb[0]", "9{79}…"),
    Case(
        "a number for text", VARIANT.replace("Mine", "2511"), 2, "title", "2511 is not text: put it in quotes"
    ),
    Case("text for a list", VARIANT + "vram_gb: 8\n", 6, "vram_gb", r"expected a list \(it is 8\)"),
    Case("text for a mapping", VARIANT + "runtime: new\n", 6, "runtime", "expected a mapping of keys"),
    Case(
        "null for a mapping",
        VARIANT + "runtime: null\n",
        6,
        "runtime",
        r"expected a mapping of keys \(it is null",
    ),
    Case("neither true nor false", VARIANT + "abstract: no\n", 6, "abstract", "expected true or false"),
    Case("an unknown tier", VARIANT.replace("consumer", "gaming"), 4, "tier", "'prosumer' or 'datacenter'"),
    Case(
        "an unknown profile",
        VARIANT + "profile: fast\n",
        6,
        "profile",
        "expected 'dynamic', 'conservative' or 'no_xformers'",
    ),
    Case("an impossible port", VARIANT + "runtime: {port: 65536}\n", 6, "runtime.port", "at most 65535"),
    Case(
        "a bad digest",
        VARIANT + "runtime: {base: {digest: latest}}\n",
        6,
        "runtime.base.digest",
        "sha256: and",
    ),
    Case(
        "a branch", VARIANT + "runtime: {comfyui: {commit: main}}\n", 6, "runtime.comfyui.commit", "a commit"
    ),
    Case(
        "a bad label", VARIANT + "image: {labels: {Team: x}}\n", 6, "image.labels.Team", "reverse-domain form"
    ),
    Case(
        "a label that would hide a substitute",
        VARIANT + 'image: {labels: {io.podkiln.substituted: ""}}\n',
        6,
        "image.labels.io.podkiln.substituted",
        "the label io.podkiln.substituted is reserved",
    ),
    Case(
        "a label that would name another base",
        VARIANT + "image: {labels: {org.opencontainers.image.base.digest: x}}\n",
        6,
        "image.labels.org.opencontainers.image.base.digest",
        "is reserved",
    ),
    Case(
        "a reserved label in another spelling",
        VARIANT + "image: {labels: {io-podkiln_lock: x}}\n",
        6,
        "image.labels.io-podkiln_lock",
        "is reserved",
    ),
    Case(
        "a reserved label in capitals",
        VARIANT + "image: {labels: {IO.Podkiln.lock: x}}\n",
        6,
        "image.labels.IO.Podkiln.lock",
        "reverse-domain form",
    ),
    Case(
        "a relative workspace", VARIANT + "runtime: {workspace: w}\n", 6, "runtime.workspace", "absolute path"
    ),
    Case(
        "two layers of one name",
        VARIANT + "runtime: {python: {layers: [" + "{name: x, why: y, packages: ['*']}, " * 2 + "]}}\n",
        6,
        "runtime.python.layers",
        "'x' is duplicated",
    ),
    # --- parents
    Case("a missing parent", VARIANT.replace("base\n", "bsae\n"), 1, "extends", "there is no variant 'bsae'"),
    Case("a missing file", VARIANT.replace("base\n", "./up.yaml\n"), 1, "extends", "no variant './up.yaml'"),
    Case(
        "a parent of 5000 letters",
        VARIANT.replace("base\n", f"{'b' * 5000}\n"),
        1,
        "extends",
        "there is no variant",
    ),
    Case("two parents", VARIANT.replace("base\n", "[base, lazy]\n"), 1, "extends", "the name of one variant"),
    Case("a cycle", VARIANT.replace("base\n", "./mine.yaml\n"), 1, "extends", "a cycle"),
    Case("nothing to build", VARIANT + "abstract: true\n", 6, "abstract", "only there to be extended"),
    # --- models by id
    Case("an unknown id", VARIANT.replace("sdxl-base", "sdxl"), 5, "models.offer[0]", "no model 'sdxl'"),
    Case("no id", VARIANT.replace("sdxl-base", "SDXL"), 5, "models.offer[0]", "a short name of lower-case"),
    Case(
        "neither all nor tier", VARIANT.replace("[sdxl-base]", "most"), 5, "models.offer", "'all' or 'tier'"
    ),
    Case(
        "an id twice", VARIANT.replace("-base]", "-base, sdxl-base]"), 5, "models.offer[1]", "is duplicated"
    ),
    Case(
        "a tier without one",
        VARIANT.replace("tier: consumer\n", "").replace("[sdxl-base]", "tier"),
        4,
        "models.offer",
        "'tier' needs the key",
    ),
    Case(
        "a default that is not offered",
        VARIANT.replace("[sdxl-base]", "[sdxl-base], default: [sdxl-vae]"),
        5,
        "models.default[0]",
        "not among the models that this variant offers",
    ),
    Case(
        "a baked one that is not offered",
        VARIANT.replace("[sdxl-base]", "[sdxl-base], bake: [sdxl-vae]"),
        5,
        "models.bake[0]",
        "not among the models",
    ),
    Case(
        "a shared variable",
        variant(mine=model(more="env: ENABLE_SDXL_BASE\n")),
        18,
        "define.mine.env",
        "ENABLE_SDXL_BASE already switches 'sdxl-base' on",
    ),
    Case(
        "another file in a shipped one's place",
        variant(mine=model(FILE.replace("model.safetensors", "sd_xl_base_1.0.safetensors"))),
        14,
        "define.mine.files[0]",
        "'checkpoints/sd_xl_base_1.0.safetensors' is also a file of 'sdxl-base'",
    ),
    Case(
        "a folder where a file is",
        variant(mine=model(FILE.replace("checkpoints", "checkpoints/sd_xl_base_1.0.safetensors"))),
        14,
        "define.mine.files[0]",
        "so it cannot be a folder",
    ),
]

MODELS = [
    Case("nothing but a title", "title: x\n", 1, "summary", "this key is missing"),
    Case("no files", MODEL.replace("files:\n", "files: []\n"), 6, "files", "expected at least 1 entry"),
    Case(
        "a misspelt key",
        in_file("  sha: unresolved\n"),
        10,
        "files[0].sha",
        "unknown key. Did you mean 'sha256'?",
    ),
    Case(
        "a key of another place",
        in_file("  sha256: unresolved\n  title: x\n"),
        11,
        "files[0].title",
        "unknown",
    ),
    Case("a short hash", in_file("  sha256: 0123\n"), 10, "files[0].sha256", "64 lower-case hex digits"),
    Case("a hash in capitals", in_file(f"  sha256: {SHA.upper()}\n"), 10, "files[0].sha256", "64 lower-case"),
    Case(
        "a hash of null",
        in_file("  sha256: null\n"),
        10,
        "files[0].sha256",
        r"or 'unresolved' \(it is null",
    ),
    Case(
        "a hash that nobody vouches for",
        in_file(f"  sha256: {SHA}\n  confidence: reupload\n"),
        7,
        "files[0]",
        "a hash of confidence 'reupload' is not to be trusted: write 'unresolved'",
    ),
    Case(
        "an unknown confidence",
        in_file(f"  sha256: {SHA}\n  confidence: sure\n"),
        11,
        "files[0].confidence",
        "",
    ),
    Case(
        "two sources",
        in_file("  sha256: unresolved\n  local: x.bin\n"),
        7,
        "files[0]",
        "huggingface and local",
    ),
    Case("no source", in_file("- note: x\n", "- huggingface: org/repo\n"), 7, "files[0]", "found none"),
    Case("no path", in_file("", "  path: model.safetensors\n"), 7, "files[0]", "needs the key path"),
    Case(
        "no owner",
        in_file("- huggingface: repo\n", "- huggingface: org/repo\n"),
        7,
        "files[0].huggingface",
        "",
    ),
    Case(
        "a branch",
        in_file("  sha256: unresolved\n  revision: main\n"),
        11,
        "files[0].revision",
        "a commit of 40",
    ),
    Case(
        "an absolute folder",
        in_file("  folder: /etc\n", "  folder: checkpoints\n"),
        9,
        "files[0].folder",
        "absolute",
    ),
    Case(
        "a folder above",
        in_file("  folder: a/../..\n", "  folder: checkpoints\n"),
        9,
        "files[0].folder",
        "climbs out",
    ),
    Case(
        "a backslash",
        in_file("  folder: a\\b\n", "  folder: checkpoints\n"),
        9,
        "files[0].folder",
        "a backslash",
    ),
    Case("a blank name", in_file("  sha256: unresolved\n  name: ' '\n"), 11, "files[0].name", "with a space"),
    Case(
        "an endless name",
        in_file(f"  sha256: unresolved\n  name: {'n' * 300}\n"),
        11,
        "files[0].name",
        "too long",
    ),
    Case(
        "a name that reads backwards",
        in_file('  sha256: unresolved\n  name: "a\\u202Egpj.exe"\n'),
        11,
        "files[0].name",
        "a character that is not shown",
    ),
    Case(
        "no size", in_file("  sha256: unresolved\n  size: 0\n"), 11, "files[0].size", "expected more than 0"
    ),
    Case(
        "a negative size", in_file("  sha256: unresolved\n  size: -5\n"), 11, "files[0].size", "more than 0"
    ),
    Case(
        "a size with a unit",
        in_file("  sha256: unresolved\n  size: 6.9GB\n"),
        11,
        "files[0].size",
        "whole number",
    ),
    Case(
        "two sizes",
        in_file("  sha256: unresolved\n  size: 5\n  size_approx: 5\n"),
        7,
        "files[0]",
        "size and size_approx exclude each other",
    ),
    Case(
        "http",
        model(f"- {{url: 'http://h/a.bin', folder: vae, sha256: {SHA}}}\n"),
        7,
        "files[0].url",
        "a URL that begins with https://",
    ),
    Case(
        "a URL with a login",
        model(f"- {{url: 'https://me:hunter2@h/a.bin', folder: vae, sha256: {SHA}}}\n"),
        7,
        "files[0].url",
        "a URL without a login in it",
    ),
    Case(
        "a URL that nobody vouches for",
        model("- {url: 'https://h/a.bin', folder: vae, sha256: unresolved}\n"),
        7,
        "files[0]",
        "a url source needs a sha256",
    ),
    Case(
        "a URL that climbs",
        model(f"- {{url: 'https://h/a/..', folder: vae, sha256: {SHA}}}\n"),
        7,
        "files[0]",
        "climbs out",
    ),
    Case(
        "CivitAI without a name",
        model("- {civitai: {model: 1, version: 2}, folder: vae, sha256: unresolved}\n"),
        7,
        "files[0]",
        "needs the key name",
    ),
    Case(
        "CivitAI without a version",
        model("- {civitai: {model: 1}, name: a.safetensors, folder: vae, sha256: unresolved}\n"),
        7,
        "files[0].civitai.version",
        "missing",
    ),
    Case(
        "a destination twice",
        model(FILE, FILE),
        6,
        "files",
        "two files go to 'checkpoints/model.safetensors'",
    ),
    Case("a variable of one's own", model(more="env: QWEN\n"), 11, "env", "ENABLE_ and capitals"),
    Case("no tier", model().replace("[consumer]", "[]"), 4, "tiers", "at least 1 entry"),
    Case(
        "a tier in words", model().replace("[consumer]", "[large]"), 4, "tiers[0]", "'consumer', 'prosumer'"
    ),
    Case("negative memory", model().replace("vram_gb: 1", "vram_gb: -1"), 5, "needs.vram_gb", "at least 0"),
    Case("bytes for GB", model().replace("vram_gb: 1", "vram_gb: 24000"), 5, "needs.vram_gb", "at most 4096"),
    Case(
        "an unknown mode",
        model(more="memory_modes: [{mode: lowvram, vram_gb: 1, ram_gb: 1}]\n"),
        11,
        "memory_modes[0].mode",
        "",
    ),
    Case("a requirement of nothing", model(more="requires: [refocus]\n"), 11, "requires[0]", "node:, model:"),
    Case("baked by default", model().replace('"yes"', '"no"'), 3, "licence.bake", "expected 'yes' or 'ask'"),
]


def assert_one_sentence(error: DescriptionError, file: Path, case: Case) -> None:
    """Check the whole form, `file:line: key: what is wrong.`, and that no secret is repeated."""
    message = str(error)
    assert error.exit_code == 3
    assert "\n" not in message
    assert message.endswith((".", "?"))
    assert message.startswith(f"{file}:{case.line}: {case.key}: " if case.key else f"{file}:{case.line}: ")
    assert re.search(case.says, message), message
    assert len(message) < len(str(file)) + 300
    assert not re.search("Input should|valid dictionary|pydantic|Traceback|hunter2", message), message


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture(scope="module")
def shipped() -> dict[str, catalog.Entry]:
    return catalog.load()


@pytest.mark.parametrize("case", VARIANTS, ids=lambda case: case.name)
def test_a_malformed_variant(case: Case, shipped: dict[str, catalog.Entry], tmp_path: Path) -> None:
    file = written(tmp_path / "mine.yaml", case.text)
    with pytest.raises(DescriptionError) as raised:
        catalog.offered(variants.load(str(file)), shipped)
    assert_one_sentence(raised.value, file, case)


@pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)
def test_a_malformed_model(case: Case, tmp_path: Path) -> None:
    file = written(tmp_path / "mine.yaml", case.text)
    with pytest.raises(DescriptionError) as raised:
        catalog.load(tmp_path)
    assert_one_sentence(raised.value, file, case)


def test_the_models_that_the_cases_are_made_from_are_right(
    shipped: dict[str, catalog.Entry], tmp_path: Path
) -> None:
    """Each case is wrong for its own reason alone."""
    write(tmp_path / "models" / "mine.yaml", model())
    assert set(catalog.load(tmp_path / "models")) == {"mine"}
    file = write(tmp_path / "mine.yaml", variant(mine=model()))
    assert [offer.id for offer in catalog.offered(variants.load(str(file)), shipped)] == [
        "sdxl-base",
        "mine",
    ]
