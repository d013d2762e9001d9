"""Any bytes in the file of a description are data or one sentence with file and line, and soon."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

from descriptions import MODEL, VARIANT
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from podkiln.config import document
from podkiln.config.model import Model
from podkiln.errors import DescriptionError

if TYPE_CHECKING:
    from pathlib import Path

MOST_MEMORY = 64 << 20
COMMON = settings(
    max_examples=150,
    deadline=5000,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SCALARS = st.sampled_from(
    [
        "a",
        "5",
        "1.5",
        "true",
        "null",
        "~",
        "!!int 5",
        "&x a",
        "*x",
        "'q'",
        '"\\ud800"',
        "|\n  b",
        "0x1F",
        "<<",
        "é",
    ]
)
LINES = st.builds(
    "{}{}{}: {}".format,
    st.sampled_from(["", "  ", "    ", "- ", "? ", "\t"]),
    st.sampled_from("abc"),
    st.just(""),
    SCALARS,
)


def read(folder: Path, content: bytes) -> None:
    path = folder / "any.yaml"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        found = document.load(path)
        found.parse(Model)
    except DescriptionError as error:
        said = str(error)
    else:
        return
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < MOST_MEMORY
    assert said.startswith(str(path))
    assert "\n" not in said
    assert len(said) < 1000


@given(content=st.binary(max_size=300))
@COMMON
@example(content=b"")
@example(content=b"\xff\xfea\x00")
@example(content=b"a: " + b"[" * 20_000)
@example(content=b"a: " + b"{" * 20_000)
@example(content=b"- " * 50_000)
@example(content=b"a: &a [*a]\n")
@example(content=b"? [a]\n: b\n")
@example(content=b"a: !!int abc\n")
@example(content=b"port: !!float x\n")
@example(content=b"a: !!bool 5\n")
@example(content=b"a: !!map b\n")
@example(content=b"a: !!python/object:os.system x\n")
@example(content=b'a: "\\U99999999"\n')
@example(content=b"%YAML " + b"9" * 5000 + b".1\n---\na: b\n")
@example(content=b"title: " + b"9" * 6000 + b"\n")
@example(content=b"#" * (300 << 10))
def test_any_bytes_are_a_description_or_one_sentence(content: bytes, tmp_path: Path) -> None:
    read(tmp_path, content)


@given(text=st.text(max_size=200))
@COMMON
def test_any_text_after_a_right_beginning_is_a_description_or_one_sentence(text: str, tmp_path: Path) -> None:
    read(tmp_path, (MODEL + text).encode("utf-8", "surrogatepass"))


@given(lines=st.lists(LINES, max_size=12), start=st.sampled_from(["", MODEL, VARIANT]))
@COMMON
def test_any_lines_of_yaml_are_a_description_or_one_sentence(
    lines: list[str], start: str, tmp_path: Path
) -> None:
    read(tmp_path, (start + "\n".join(lines)).encode("utf-8", "surrogatepass"))
