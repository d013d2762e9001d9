"""nvidia-smi's XML and list, as a real H100 gives them and as nobody should."""

from __future__ import annotations

import time
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from pod.hardware import mig

H100 = Path(__file__).resolve().parents[3] / "fixtures" / "nvidia-smi" / "h100.xml"
UUID = "GPU-00000000-1111-2222-3333-444444444444"


def test_the_xml_of_a_real_card_without_slices() -> None:
    text = H100.read_text(encoding="utf-8")
    assert mig.slice_memory(text) == {UUID: {}}
    (card,) = mig._cards(text)
    assert mig.integer(card.findtext("fb_memory_usage/total")) == 81559


BOMB = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9)
)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.text(), st.binary().map(lambda data: data.decode("utf-8", errors="replace"))))
@example("")
@example("<")
@example("<gpu><uuid>GPU-1</uuid><mig_device><index>" + "9" * 5000 + "</index></mig_device></gpu>")
@example("<gpu><uuid>GPU-1</uuid><mig_device><index>²</index></mig_device></gpu>")
@example('<?xml version="1.0" encoding="no-such"?><a/>')
@example('<?xml version="1.0" encoding="utf-16"?><a/>')
@example(f"{BOMB}]><a>&j;</a>")
@example("<a>" * 100_000)
@example("\0")
@example("\ud800")
def test_any_xml_gives_an_answer(text: str) -> None:
    begun = time.process_time()
    assert isinstance(mig.slice_memory(text), dict)
    assert time.process_time() - begun < 5


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.none(), st.text()))
@example("4864 MiB")
@example("9" * 5000)
@example("٤")
@example("[N/A]")
def test_any_text_is_a_number_or_none(text: str | None) -> None:
    number = mig.integer(text)
    assert number is None or 0 <= number < 10**9


def test_a_list_without_end_takes_no_time() -> None:
    """The patterns look at the beginning of a line alone."""
    begun = time.process_time()
    for line in (
        "GPU 0: " + "(UUID: GPU-" * 200_000,
        "  MIG " + " " * 500_000,
        "  MIG a Device  " + "1" * 500_000,
    ):
        assert mig.parse_list(line, UUID) == []
    assert time.process_time() - begun < 5
