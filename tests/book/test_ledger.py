"""The locality ledger: its rows, its marks, its table."""

import re
from dataclasses import replace

import pytest

from biolearn_lite.show.ledger import MARKED, ROWS, ledger


def test_the_whole_ledger_is_one_accessible_table() -> None:
    shown = ledger(highlight="phsic")
    assert shown.html.count('<th scope="row">') == len(ROWS)
    assert shown.html.count('<th scope="col">') == 8
    assert "<caption>The locality ledger" in shown.html
    marks = re.findall(r'aria-label="(at hand|within reach|far away):">([●◐○])<', shown.html)
    assert {("at hand", "●"), ("within reach", "◐"), ("far away", "○")} == set(marks)
    assert len(marks) == sum(getattr(row, name) != "–" for row in ROWS.values() for name in MARKED)


def test_the_highlight_does_not_need_colour() -> None:
    shown = ledger("backprop", "phsic", highlight="phsic")
    assert shown.html.count("→") == shown.text.count("→") == 1
    assert "→ pHSIC objective (chapter 03)" in shown.text
    assert "HSIC objective (chapter" not in shown.text.replace("pHSIC objective", "")


def test_rows_are_in_the_order_of_the_chapters() -> None:
    chapters = [row.chapter for row in ROWS.values()]
    assert chapters == sorted(chapters)
    assert ROWS["backprop"].chapter == "01"


def test_what_the_chapter_claims() -> None:
    assert ROWS["hsic"].memory == "○ m − 1 points"
    assert ROWS["phsic"].memory.startswith("◐ one point")
    assert all(ROWS[rule].timing.startswith("●") for rule in ("hsic", "phsic"))


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"not in the ledger: magic; known: backprop, rf"):
        ledger("magic")
    with pytest.raises(ValueError, match="highlight 'hsic' is not among the rules shown: phsic"):
        ledger("phsic", highlight="hsic")
    with pytest.raises(ValueError, match=r"pre is 'own rate'; start it with ● or ◐ or ○"):
        replace(ROWS["phsic"], pre="own rate")
