"""Exercises that check themselves: `check("03-2", my_function)` as the last line of an exercise's cell.

An exercise is a list of properties its answer must have, written in `checks/chNN.py`, away from the notebook, so that
no reader meets the answer by accident. A property is a function with a one-line docstring, the claim:

    @property_of("03-2", hint=1)
    def equals_the_trace_form(answer, generator):
        '''It equals tr(K H L H)/m².'''
        K, L = gram(generator), gram(generator)
        expect(answer(K, L), trace_form(K, L), K=K, L=L)

`check` tries each property on several random cases and prints what it found: not answered yet, correct, or the first
claim that fails, with the inputs, what was expected and which hint to open. It never raises: a notebook runs through
with its exercises empty.
"""

import importlib.util
import linecache
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

CASES = 5

Test = Callable[[Any, torch.Generator], None]


@dataclass(frozen=True)
class Property:
    """One claim about an answer, the function that tests it, and the hint that helps when it fails."""

    claim: str
    test: Test
    hint: int


@dataclass(frozen=True)
class Verdict:
    """`state` is "correct", "wrong" or "not answered yet"; `message` is what the reader sees."""

    state: str
    message: str


class Mismatch(AssertionError):
    """Raised by `expect`: the answer is not what the property claims. Its text is shown to the reader."""


class Unanswered(Exception):
    """Raised by `expect` for a result of None or `...`."""


EXERCISES: dict[str, list[Property]] = {}


def property_of(key: str, *, hint: int) -> Callable[[Test], Test]:
    """Decorator: adds a test to the exercise `key` ("03-2": chapter 03, exercise 2); its docstring is the claim."""

    def register(test: Test) -> Test:
        if not test.__doc__:
            raise ValueError(f"{test.__name__} needs a docstring: the claim that a reader sees when it fails")
        EXERCISES.setdefault(key, []).append(Property(test.__doc__.strip(), test, hint))
        return test

    return register


def expect(got: Any, expected: Any, *, tolerance: float = 1e-8, **given: Any) -> None:
    """Compare numbers or tensors; `given` are the inputs to show. Relative `tolerance`, absolute below size 1."""
    if got is None or got is ...:
        raise Unanswered
    want = torch.as_tensor(expected, dtype=torch.float64)
    have = _tensor(got, want, given)
    if not torch.allclose(have, want, rtol=tolerance, atol=tolerance):
        raise Mismatch(_report(given, f"expected {_show(want)}", f"got      {_show(have)}"))


def demand(condition: bool, problem: str, **given: Any) -> None:
    """Fail with `problem` unless the condition holds; `given` are the inputs to show."""
    if not condition:
        raise Mismatch(_report(given, problem))


def parts(answer: Any, *names: str) -> list[Any]:
    """The answer's parts, when it must be a tuple or list of as many as there are names; none of them unanswered."""
    if answer is None or answer is ...:
        raise Unanswered
    if not isinstance(answer, (tuple, list)) or len(answer) != len(names):
        raise Mismatch(f"expected ({', '.join(names)}), got {answer!r:.80}")
    if any(part is None or part is ... for part in answer):
        raise Unanswered
    return list(answer)


def demand_seeds(report: Any, number: str, pair: tuple[str, str]) -> None:
    """That a report is {whole number above 0: [two accuracies in % of each seed]}, at least three numbers and seeds."""
    demand(isinstance(report, dict), f"expected a dictionary, got {type(report).__name__}")
    demand(len(report) >= 3 and all(int(key) == key > 0 for key in report), f"each {number}: {list(report)}")
    for key, values in report.items():
        demand(isinstance(values, (list, tuple)) and len(values) >= 3, f"{number} {key}: {values!r:.80}")
        found = [float(part) for value in values for part in parts(value, *pair)]
        demand(all(2 < part <= 100 for part in found), f"{number} {key}: from {min(found)} to {max(found)}, not in %?")


def grade(key: str, answer: Any) -> Verdict:
    """What `check` prints, as an object. Raises KeyError, naming the known exercises, for an unknown key."""
    for prop in _exercise(key):
        for case in range(CASES):
            try:
                if answer is None or answer is ...:
                    raise Unanswered
                prop.test(_guarded(answer), torch.Generator().manual_seed(case))
            except (Unanswered, NotImplementedError):
                return Verdict("not answered yet", f"… {key}: not answered yet.")
            except Mismatch as mismatch:
                return _wrong(key, prop, str(mismatch))
            except Exception as error:
                return _wrong(key, prop, _story(prop, error))
    return Verdict("correct", f"✓ {key}: correct.")


def check(key: str, answer: Any) -> None:
    """Print whether `answer` solves the exercise and, if not, what to look at. Never raises for a wrong answer."""
    print(grade(key, answer).message)


def _exercise(key: str) -> list[Property]:
    chapter = f"biolearn_lite.show.checks.ch{key.split('-')[0]}"
    if importlib.util.find_spec(chapter):
        importlib.import_module(chapter)
    if key not in EXERCISES:
        raise KeyError(f"no exercise {key!r}; known: {', '.join(sorted(EXERCISES))}")
    return EXERCISES[key]


def _guarded(answer: Any) -> Any:
    """A function called on copies of its tensors, so that an answer that works in place changes no expected value."""
    if not callable(answer):
        return answer
    return lambda *args: answer(*(arg.clone() if isinstance(arg, torch.Tensor) else arg for arg in args))


def _wrong(key: str, prop: Property, problem: str) -> Verdict:
    lines = [
        f"✗ {key}: not yet. This should hold: {prop.claim}",
        *problem.splitlines(),
        f"Hint {prop.hint} helps here.",
    ]
    return Verdict("wrong", "\n  ".join(lines))


def _story(prop: Property, error: Exception) -> str:
    """An exception inside an answer, told with the inputs that caused it and the line that raised it."""
    frames = list(traceback.walk_tb(error.__traceback__))
    guard = max(i for i, (frame, _) in enumerate(frames) if frame.f_code.co_filename == __file__)
    inputs = frames[guard - 1][0].f_locals  # frame 0 is `grade`: without a guard, the last frame is the property's
    given = {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor | float)}
    lines = [f"your code stopped with {type(error).__name__}: {error}"]
    for frame, line in frames[guard + 1 : guard + 2] if guard else []:
        lines.append(f"at       {linecache.getline(frame.f_code.co_filename, line).strip()}")
    return _report(given, *lines)


def _tensor(got: Any, want: torch.Tensor, given: dict[str, Any]) -> torch.Tensor:
    try:
        have = torch.as_tensor(got, dtype=torch.float64).detach()
    except (TypeError, ValueError, RuntimeError):
        raise Mismatch(_report(given, f"expected {_kind(want)}, got {type(got).__name__}: {got!r:.80}")) from None
    if have.shape != want.shape:
        raise Mismatch(_report(given, f"expected {_kind(want)}, got {_kind(have)}"))
    return have


def _kind(tensor: torch.Tensor) -> str:
    return "a single number" if tensor.ndim == 0 else f"a tensor of shape {tuple(tensor.shape)}"


def _report(given: dict[str, Any], *lines: str) -> str:
    inputs = [f"given    {name} = {_show(value)}" for name, value in given.items()]
    return "\n".join([*inputs, *lines])


def _show(value: Any) -> str:
    """Short text of an input or a result, at most a few numbers of a large tensor."""
    if not isinstance(value, torch.Tensor):
        return f"{value:.4g}" if isinstance(value, float) else f"{value!r:.100}"
    if value.numel() > 36:
        return f"a tensor of shape {tuple(value.shape)}"
    rows = [f"{number:.4g}" for number in value.flatten().tolist()]
    if value.ndim == 0:
        return rows[0]
    if value.ndim == 1:
        return f"({', '.join(rows)})"
    width = value.shape[-1]
    return "[" + "; ".join(", ".join(rows[i : i + width]) for i in range(0, len(rows), width)) + "]"
