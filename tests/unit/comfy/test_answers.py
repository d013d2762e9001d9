"""Any answer of a server becomes a value or one sentence: no other error, no endless work."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from comfy import answers
from comfy.failure import FAILED, ComfyError

KEYS = st.sampled_from(
    [
        *("outputs", "status", "status_str", "messages", "images", "text", "filename", "subfolder", "type"),
        *("node_errors", "errors", "message", "details", "class_type", "dependent_outputs", "error"),
        *("queue_running", "queue_pending", "data", "node", "display_node", "prompt_id", "max", "value", "3"),
    ]
)
WORDS = st.sampled_from(
    ["success", "error", "execution_error", "execution_interrupted", "executing", "output"]
)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), WORDS)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(KEYS, st.text(max_size=4)), inner, max_size=5)
    ),
    max_leaves=25,
)
FUZZ = settings(max_examples=100, deadline=5000)
PNG = b"\x89PNG\r\n\x1a\n"


def outcome(record: Any) -> answers.Outcome | str:
    """Return the outcome, or the sentence in its place."""
    try:
        return answers.outcome("id", record)
    except ComfyError as error:
        return f"{error} {error.exit_code}"


def with_metadata(data: Any) -> bytes:
    text = json.dumps(data).encode()
    return struct.pack(">II", 4, len(text)) + text + PNG


@FUZZ
@given(JSON)
@example(
    {"status": {"status_str": "error", "messages": [["execution_error", {"exception_message": {"a": []}}]]}}
)
@example({"status": {"status_str": "success"}, "outputs": {"4": {"images": {"filename": "a"}}}})
@example({"status": {"status_str": "success"}, "outputs": {"4": {"images": [{"filename": ["a"]}]}}})
@example({"outputs": [], "status": []})
@example({"outputs": {"4": {"text": "one"}}, "status": {"status_str": "success"}})
def test_any_record_of_the_history_is_an_outcome_or_a_sentence(record: Any) -> None:
    found = outcome(record)
    if isinstance(found, str):
        assert found.isprintable()
        assert found.endswith(f". {FAILED}")
        return
    assert all(isinstance(output.filename, str) and output.filename for output in found.outputs)
    assert all(problem.says.isprintable() for problem in found.problems)
    json.dumps(found.texts)


@FUZZ
@given(JSON, st.integers())
@example(
    {"node_errors": {"1\n": {"errors": [{"message": "\x1b", "details": ["\n"]}], "dependent_outputs": [7]}}},
    400,
)
@example({"error": "\u202e", "node_errors": []}, 200)
def test_any_answer_to_a_prompt_is_words(answer: Any, status: int) -> None:
    assert answers.refusal(answer, status).isprintable()
    assert all(problem.says.isprintable() for problem in answers.refused(answer))


@FUZZ
@given(JSON)
def test_any_queue_holds_a_prompt_or_not(queue: Any) -> None:
    assert answers.is_queued(queue, "id") in (True, False)


@FUZZ
@given(
    st.one_of(
        st.text(),
        JSON.map(json.dumps),
        st.builds(lambda data: json.dumps({"type": "executing", "data": data}), JSON),
    )
)
@example("[" * 100_000)
@example('{"a": ' * 50_000)
@example("9" * 6000)
@example("NaN")
def test_any_text_is_an_event_or_none(text: str) -> None:
    found = answers.event(text)
    assert found is None or (found.node is None or isinstance(found.node, str))
    assert found is None or found.is_last in (True, False)


@FUZZ
@given(
    st.one_of(
        st.binary(max_size=64),
        st.builds(
            lambda kind, rest: struct.pack(">I", kind) + rest, st.integers(0, 5), st.binary(max_size=64)
        ),
        JSON.map(with_metadata),
    )
)
@example(struct.pack(">II", 4, 0xFFFFFFFF) + b"{}")
@example(b"")
@example(struct.pack(">II", 1, 2))
@example(struct.pack(">II", 4, 50_000) + b"[" * 50_000 + PNG)
def test_any_bytes_are_a_picture_or_none(message: bytes) -> None:
    found = answers.frame(message)
    assert found is None or found.suffix in ("png", "jpg", "webp")


def test_too_many_files_are_a_sentence() -> None:
    files = [{"filename": f"{number}.png"} for number in range(20_000)]
    record = {"status": {"status_str": "success"}, "outputs": {"4": {"images": files}}}
    with pytest.raises(ComfyError, match="names 20000 files"):
        answers.outcome("id", record)


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        (
            [["execution_interrupted", {"node_id": "3", "node_type": "K"}]],
            "the prompt was interrupted in node 3 (K)",
        ),
        (
            [
                ["execution_start", {}],
                ["execution_error", {"node_id": "3", "node_type": "K", "exception_type": "E"}],
            ],
            "the prompt failed in node 3 (K): E: ",
        ),
        ([], "the prompt failed; ComfyUI's log says why"),
        (None, "the prompt failed; ComfyUI's log says why"),
        ([7, ["execution_error"], ["execution_error", 7]], "the prompt failed; ComfyUI's log says why"),
    ],
)
def test_a_failure_is_told_with_what_came_out_before(messages: Any, said: str) -> None:
    record = {
        "status": {"status_str": "error", "messages": messages},
        "outputs": {"4": {"images": [{"filename": "a.png"}]}},
    }
    found = answers.outcome("id", record)
    assert [problem.says for problem in found.problems] == [said]
    assert [output.filename for output in found.outputs] == ["a.png"]
