"""Exercises: hidden solutions pass, wrong answers fail with a reason, empty ones are not answered yet.

A chapter's exercise is a code cell tagged `exercise` that ends in `check("03-1", answer)`. The markdown after it holds
its hints, `<summary>Hint 1</summary>`, and its solution: `<details class="solution" id="solution-03-1">` with a block
of Python that needs nothing but `import torch`. Wrong answers are kept in `wrong_answers/<chapter>.py`.
"""

import ast
import contextlib
import io
import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from biolearn_lite.show import exercises
from biolearn_lite.show.exercises import EXERCISES, check, demand, grade, parts, property_of
from biolearn_lite.show.exercises import expect as equals

CHAPTERS = sorted((Path(__file__).parents[2] / "book" / "chapters").glob("*.ipynb"))
WRONG = sorted((Path(__file__).parent / "wrong_answers").glob("*.py"))


def wrong_answers(chapter: str) -> dict[str, list[Any]]:
    path = Path(__file__).parent / "wrong_answers" / f"{chapter}.py"
    answers: dict[str, list[Any]] = runpy.run_path(str(path))["WRONG"]
    return answers


def exercises_of(notebook: Path) -> dict[str, tuple[str, str]]:
    """Key → the source of each exercise cell and the markdown up to the next exercise."""
    found: dict[str, tuple[str, str]] = {}
    key = ""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if "exercise" in cell["metadata"].get("tags", []):
            key = _call(source).args[0].value  # type: ignore[attr-defined]
            assert key not in found, f"two exercises {key}"
            found[key] = source, ""
        elif key and cell["cell_type"] == "markdown":
            found[key] = found[key][0], found[key][1] + source
    return found


def _call(source: str) -> ast.Call:
    """The `check(key, answer)` that ends an exercise cell."""
    last = ast.parse(source).body[-1]
    assert isinstance(last, ast.Expr), f"an exercise cell must end in check(key, answer):\n{source}"
    assert isinstance(last.value, ast.Call), f"an exercise cell must end in check(key, answer):\n{source}"
    return last.value


def solution(key: str, text: str) -> str:
    opening = f'<details class="solution" id="solution-{key}">'
    block = re.search(rf"{opening}.*?```python\n(.*?)```.*?</details>", text, re.DOTALL)
    assert block, f"no solution of exercise {key} after its cell: {opening} with a block of Python"
    return block[1]


def assert_discriminates(key: str, right: Any, wrong: list[Any]) -> None:
    """The check accepts the solution and turns down every wrong answer, with a reason and a hint."""
    assert grade(key, right).state == "correct", grade(key, right).message
    assert len(wrong) >= 3, f"exercise {key} has {len(wrong)} wrong answers, it needs three"
    for answer in wrong:
        verdict = grade(key, answer)
        assert verdict.state == "wrong", f"{key}: {getattr(answer, '__name__', answer)} is {verdict.state}"
        assert re.search(r"This should hold: .+\.\n  .+\n  Hint \d helps here\.", verdict.message, re.DOTALL)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_the_exercises_of_a_chapter(chapter: Path) -> None:
    number, wrong = chapter.name[:2], wrong_answers(chapter.name[:2])
    found = exercises_of(chapter)
    with contextlib.suppress(KeyError):
        grade(f"{number}-0", ...)  # loads the chapter's checks
    assert set(found) == set(wrong) == {key for key in EXERCISES if key.startswith(f"{number}-")}
    assert 3 <= len(found) <= 6
    for key, (source, text) in found.items():
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(source, {"torch": torch, "check": check})
        assert printed.getvalue() == f"… {key}: not answered yet.\n"
        names: dict[str, Any] = {"torch": torch}
        exec(solution(key, text), names)
        answer = eval(compile(ast.Expression(_call(source).args[1]), key, "eval"), names)
        assert_discriminates(key, answer, wrong[key])
        for prop in EXERCISES[key]:
            assert f"<summary>Hint {prop.hint}</summary>" in text, f"exercise {key} has no hint {prop.hint}"


@pytest.mark.parametrize("path", WRONG, ids=lambda path: path.stem)
def test_no_wrong_answer_passes(path: Path) -> None:
    answers = wrong_answers(path.stem)
    assert answers
    for key, wrong in answers.items():
        assert [grade(key, answer).state for answer in wrong] == ["wrong"] * len(wrong), key


# the machinery, on an exercise of our own: "write a function that doubles"


@pytest.fixture
def doubling(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(exercises, "EXERCISES", {})

    @property_of("99-1", hint=2)
    def doubles(answer: Any, generator: torch.Generator) -> None:
        """The answer doubles every number."""
        x = torch.randn(3, dtype=torch.float64, generator=generator)
        equals(answer(x), 2 * x, x=x)

    return "99-1"


@pytest.mark.parametrize("empty", [None, ..., lambda x: None, lambda x: ...])
def test_an_empty_answer_is_not_answered_yet(doubling: str, empty: Any, capsys: pytest.CaptureFixture[str]) -> None:
    check(doubling, empty)
    assert capsys.readouterr().out == "… 99-1: not answered yet.\n"


def test_a_stub_that_raises_is_not_answered_yet(doubling: str) -> None:
    def stub(x: Any) -> Any:
        raise NotImplementedError

    assert grade(doubling, stub).state == "not answered yet"


def test_a_wrong_answer_is_told_what_and_where(doubling: str) -> None:
    assert grade(doubling, lambda x: x + x).message == "✓ 99-1: correct."
    message = grade(doubling, lambda x: x**2).message.splitlines()
    assert message[0] == "✗ 99-1: not yet. This should hold: The answer doubles every number."
    assert re.fullmatch(r"  given    x = \((-?[\d.]+(, )?){3}\)", message[1])
    assert re.fullmatch(r"  expected \((-?[\d.]+(, )?){3}\)", message[2])
    assert re.fullmatch(r"  got      \((-?[\d.e]+(, )?){3}\)", message[3])
    assert message[4] == "  Hint 2 helps here."


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda x: 2 * x.sum(), r"expected a tensor of shape \(3,\), got a single number"),
        (lambda x: "six", r"expected a tensor of shape \(3,\), got str: 'six'"),
        (lambda x: x * float("nan"), r"got      \(nan, nan, nan\)"),
        (7, "your code stopped with TypeError: 'int' object is not callable"),
        (lambda x: x @ torch.zeros(9), "given    x = .*your code stopped with RuntimeError.*at       .*torch.zeros"),
    ],
)
def test_odd_answers_are_explained(doubling: str, answer: Any, says: str) -> None:
    verdict = grade(doubling, answer)
    assert verdict.state == "wrong"
    assert re.search(says, verdict.message, re.DOTALL), verdict.message


def test_an_answer_that_works_in_place_is_no_surprise(doubling: str) -> None:
    assert grade(doubling, lambda x: x.mul_(2)).state == "correct"


def test_a_rare_failure_is_found(doubling: str) -> None:
    assert grade(doubling, lambda x: 2 * x if x[0] < 0 else 2 * x + 1e-6).state == "wrong"


def test_an_answer_in_parts() -> None:
    assert parts((1, 2), "one", "two") == [1, 2]
    for answer in (None, (1, None), (1, ...)):
        with pytest.raises(exercises.Unanswered):
            parts(answer, "one", "two")
    for answer in (1, (1, 2, 3)):
        with pytest.raises(exercises.Mismatch, match=r"expected \(one, two\), got "):
            parts(answer, "one", "two")
    with pytest.raises(exercises.Mismatch, match="given    x = 2\ntoo small"):
        demand(False, "too small", x=2)


def test_a_check_that_accepts_everything_is_caught(doubling: str) -> None:
    def halves(x: torch.Tensor) -> torch.Tensor:
        return x / 2

    wrong = [halves, torch.square, torch.zeros_like]
    assert_discriminates(doubling, lambda x: 2 * x, wrong)
    monkeypatched = exercises.EXERCISES[doubling][0]
    exercises.EXERCISES[doubling] = [exercises.Property(monkeypatched.claim, lambda answer, generator: None, 1)]
    with pytest.raises(AssertionError, match="halves is correct"):
        assert_discriminates(doubling, lambda x: 2 * x, wrong)


def test_unknown_exercises_and_silent_properties_are_errors(doubling: str) -> None:
    with pytest.raises(KeyError, match="no exercise '99-2'; known: 99-1"):
        grade("99-2", None)
    with pytest.raises(ValueError, match="needs a docstring"):
        property_of("99-1", hint=1)(lambda answer, generator: None)
