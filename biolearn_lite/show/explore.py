"""Explorables: one function that draws, a few controls, two lives.

    explore(draw, {"noise": np.linspace(0, 1, 20), "shape": ["line", "ring"]}, alt="What the figure shows.")

`draw(noise=..., shape=...)` returns a plotly figure and a readout, the numbers printed under it. In a live kernel the
object shows ipywidgets whose every move calls `draw` again. On a published page, where no kernel runs, the same object
is a piece of HTML that holds the figures for all values of its controls. Both come out of `_repr_mimebundle_`.
"""

import html
import inspect
import itertools
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any

import ipywidgets
import plotly.graph_objects as go

from biolearn_lite.show.fragment import fragment, html_table

MOST_FRAMES = 400

Readout = Mapping[str, float | str]
Draw = Callable[..., tuple[go.Figure, Readout]]


@dataclass(frozen=True)
class Control:
    """One choice among values: a slider for numbers, a dropdown for words (or always, with `dropdown=True`).

    `label` is what the reader sees, by default the name; `unit` follows each value; `start` is the first value shown.
    """

    values: Sequence[Any]
    label: str = ""
    unit: str = ""
    start: Any = None
    dropdown: bool = False

    @property
    def is_slider(self) -> bool:
        numeric = all(isinstance(value, Real) and not isinstance(value, bool) for value in self.values)
        return numeric and not self.dropdown

    @property
    def texts(self) -> list[str]:
        return [f"{number(value)} {self.unit}".strip() for value in self.values]

    @property
    def start_index(self) -> int:
        return 0 if self.start is None else list(self.values).index(self.start)


@dataclass(frozen=True)
class Frame:
    """What `draw` returned for one choice of the controls; the readout's numbers are already text."""

    figure: go.Figure
    readout: dict[str, str]


def explore(
    draw: Draw,
    controls: Mapping[str, Control | Sequence[Any]],
    *,
    alt: str,
    seed: int | None = None,
    id: str | None = None,
) -> "Explorable":
    """An explorable of `draw`, whose parameters are the names in `controls` (and `seed`, if one is given).

    controls: name → values, or `Control(values, label=..., unit=..., start=..., dropdown=...)`.
    alt: one or two sentences, what a reader who does not see the figure should know.
    seed: handed to `draw` as `seed`; fixed on the page, one more control in a live kernel.
    id: of the HTML element, for links; by default derived from the content.
    Raises ValueError for controls that cannot be drawn and TypeError where they do not fit `draw`.
    """
    return Explorable(draw, controls, alt=alt, seed=seed, id=id)


class Explorable:
    """See `explore`. `frame(**values)` draws once; `widgets` are the live controls, `output` holds the live figure."""

    def __init__(
        self,
        draw: Draw,
        controls: Mapping[str, Control | Sequence[Any]],
        *,
        alt: str,
        seed: int | None = None,
        id: str | None = None,
    ) -> None:
        self.draw, self.alt, self.seed, self.id = draw, alt, seed, id
        self.controls = {name: _control(name, values) for name, values in controls.items()}
        _check_controls(self.controls)
        _check_parameters(draw, [*self.controls, *([] if seed is None else ["seed"])])

    def frame(self, **values: Any) -> Frame:
        """The figure and readout for these values of the controls, freshly drawn."""
        try:
            drawn = self.draw(**values)
        except Exception as error:
            raise RuntimeError(f"{_name(self.draw)} failed for {values}: {error}") from error
        if not (isinstance(drawn, tuple) and len(drawn) == 2 and isinstance(drawn[0], go.Figure)):
            raise TypeError(f"{_name(self.draw)} must return (plotly figure, readout), not {type(drawn).__name__}")
        figure, readout = drawn
        if not isinstance(readout, Mapping) or not readout:
            raise TypeError(f"{_name(self.draw)}: the readout must be a dict of at least one name → number or text")
        return Frame(figure, {name: number(value) for name, value in readout.items()})

    @cached_property
    def frames(self) -> list[Frame]:
        """One frame per combination of the controls' values, the last control running fastest."""
        fixed = {} if self.seed is None else {"seed": self.seed}
        combinations = itertools.product(*(control.values for control in self.controls.values()))
        frames = [self.frame(**dict(zip(self.controls, values, strict=True)), **fixed) for values in combinations]
        if len(names := {tuple(frame.readout) for frame in frames}) > 1:
            raise ValueError(f"{_name(self.draw)}: the readout must have the same names in every frame, not {names}")
        return frames

    def html(self) -> str:
        """The piece of HTML for a page without a kernel."""
        return fragment(
            [frame.figure for frame in self.frames],
            alt=self.alt,
            controls=_html_controls(self.controls),
            readout='<output aria-live="polite"></output>',
            table=self._html_table(),
            name=self.id,
        )

    def _html_table(self) -> str:
        heads = [*(control.label for control in self.controls.values()), *self.frames[0].readout]
        choices = itertools.product(*(control.texts for control in self.controls.values()))
        rows = [[*texts, *frame.readout.values()] for texts, frame in zip(choices, self.frames, strict=True)]
        table = html_table(self.alt, heads, rows, row_heads=len(self.controls))
        return (
            f'<details><summary>All values as a table</summary><div class="scroll" tabindex="0">{table}</div></details>'
        )

    @cached_property
    def widgets(self) -> dict[str, ipywidgets.Widget]:
        """The live controls by name, each already wired to redraw."""
        widgets = {name: _widget(control) for name, control in self.controls.items()}
        if self.seed is not None:
            widgets["seed"] = ipywidgets.BoundedIntText(self.seed, min=0, max=9999, description="seed")
        for widget in widgets.values():
            widget.observe(lambda _: self._redraw(), names="value")
        return widgets

    @cached_property
    def output(self) -> ipywidgets.Output:
        return ipywidgets.Output()

    def _redraw(self) -> None:
        frame = self.frame(**{name: widget.value for name, widget in self.widgets.items()})
        said = " · ".join(f"{name} {text}" for name, text in frame.readout.items())
        page = fragment([frame.figure], alt=f"{self.alt} {said}.", readout=f"<output>{html.escape(said)}</output>")
        data = {"text/html": page, "text/plain": said}
        self.output.outputs = ({"output_type": "display_data", "data": data, "metadata": {}},)

    @cached_property
    def live(self) -> ipywidgets.VBox:
        """The widget shown in a live kernel: the controls in a row, the figure below."""
        self._redraw()
        row = ipywidgets.HBox(list(self.widgets.values()), layout=ipywidgets.Layout(flex_flow="row wrap"))
        return ipywidgets.VBox([row, self.output])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        bundle: dict[str, Any] = self.live._repr_mimebundle_()
        return bundle | {"text/html": self.html(), "text/plain": f"Explorable: {self.alt}"}


def number(value: Any) -> str:
    """Three significant digits, whole numbers in full, anything else as it prints; with true minus signs."""
    if not isinstance(value, bool | str) and hasattr(value, "__float__"):
        value = f"{value:.0f}" if float(value).is_integer() else f"{float(value):.3g}"
    return re.sub(r"(?<!\w)-(?=\d)", "−", str(value))


def _control(name: str, values: Control | Sequence[Any]) -> Control:
    control = values if isinstance(values, Control) else Control(values)
    plain = [value.item() if hasattr(value, "item") else value for value in control.values]
    control = Control(plain, control.label or name.replace("_", " "), control.unit, control.start, control.dropdown)
    if len(plain) < 2:
        raise ValueError(f"control {name!r} has the values {plain}: give at least two")
    if len(set(control.texts)) < len(plain):
        raise ValueError(f"control {name!r}: two of its values read the same: {control.texts}")
    if control.start is not None and control.start not in plain:
        raise ValueError(f"control {name!r}: start {control.start!r} is none of its values {plain}")
    return control


def _check_controls(controls: Mapping[str, Control]) -> None:
    labels = [control.label for control in controls.values()]
    if not labels or len(set(labels)) < len(labels):
        raise ValueError(f"controls must be at least one, each with its own label, not {labels}")
    sizes = {name: len(control.values) for name, control in controls.items()}
    if math.prod(sizes.values()) > MOST_FRAMES:
        raise ValueError(f"controls make more than {MOST_FRAMES} frames, too many for a page: {sizes}")


def _check_parameters(draw: Draw, names: list[str]) -> None:
    parameters = list(inspect.signature(draw).parameters)
    if sorted(parameters) != sorted(names):
        raise TypeError(
            f"{_name(draw)} takes {parameters}, the controls give {names}: "
            "they must be the same names (`seed` is given only with explore(..., seed=0))"
        )


def _name(draw: Draw) -> str:
    return f"{getattr(draw, '__name__', 'draw')}()"


def _html_controls(controls: Mapping[str, Control]) -> str:
    sliders = [control for control in controls.values() if control.is_slider]
    main = max(sliders, key=lambda control: len(control.values), default=None)
    parts = [_html_slider(c, c is main) if c.is_slider else _html_select(c) for c in controls.values()]
    play = '<button type="button" class="play">Play</button>' if main else ""
    return f'<div class="controls" style="display:none">{"".join(parts)}{play}</div>'


def _html_slider(control: Control, main: bool) -> str:
    texts = html.escape(json.dumps(control.texts, ensure_ascii=False))
    return (
        f'<label>{html.escape(control.label)} <input type="range" min="0" max="{len(control.values) - 1}" '
        f'value="{control.start_index}" data-texts="{texts}"{" data-main" if main else ""}>'
        f'<span aria-hidden="true">{html.escape(control.texts[control.start_index])}</span></label>'
    )


def _html_select(control: Control) -> str:
    options = "".join(
        f"<option{' selected' if i == control.start_index else ''}>{html.escape(text)}</option>"
        for i, text in enumerate(control.texts)
    )
    return f"<label>{html.escape(control.label)} <select>{options}</select></label>"


def _widget(control: Control) -> ipywidgets.Widget:
    options = list(zip(control.texts, control.values, strict=True))
    kind = ipywidgets.SelectionSlider if control.is_slider else ipywidgets.Dropdown
    live = {"continuous_update": False} if control.is_slider else {}
    style = {"description_width": "initial"}
    value = control.values[control.start_index]
    return kind(options=options, value=value, description=control.label, style=style, **live)
