"""The locality ledger, the book's spine: for every rule, what a synapse must know, and when.

A synapse has its own two neurons at hand (●). A value it must remember, or one number broadcast to a whole layer, is
within reach (◐); what other neurons, other layers or many other points know is far away (○). The marks say so without
colour, a dash stands where a rule says nothing yet, and the last column names what is still implausible.
"""

import html
import textwrap
from dataclasses import astuple, dataclass, fields

from biolearn_lite.show.figures import Shown

MARKS = {"●": "at hand", "◐": "within reach", "○": "far away"}
MARKED = ("pre", "post", "third_factor", "memory", "timing")


@dataclass(frozen=True)
class Row:
    """One rule: its two rates, the number that multiplies them, what is remembered, when, and what is left."""

    rule: str
    chapter: str
    pre: str
    post: str
    third_factor: str
    memory: str
    timing: str
    left: str

    def __post_init__(self) -> None:
        for name in MARKED:
            cell = getattr(self, name)
            if cell != "–" and cell[:2] not in {f"{mark} " for mark in MARKS}:
                raise ValueError(f"{self.rule}: {name} is {cell!r}; start it with {' or '.join(MARKS)} and a space")


ROWS = {
    "backprop": Row(
        rule="backprop",
        chapter="01",
        pre="● own rate",
        post="● own rate",
        third_factor="○ an error, private to each neuron, sent through the forward weights",
        memory="○ rates until the error is back: 2 × depth ticks",
        timing="○ two locked phases",
        left="weight transport, waiting, labels, copied weights",
    ),
    "rf": Row(
        rule="random feedback",
        chapter="02",
        pre="● own rate",
        post="● own rate",
        third_factor="○ an error, private to each neuron, sent through fixed random wires",
        memory="○ rates until the error is back: 2 × depth ticks",
        timing="○ two locked phases",
        left="waiting, labels, copied weights; deep networks do not align",
    ),
    "urf": Row(
        rule="updated random feedback",
        chapter="02",
        pre="● own rate",
        post="● own rate",
        third_factor="○ an error, private to each neuron, sent through wires that get the same increments",
        memory="○ rates until the error is back: 2 × depth ticks",
        timing="○ two locked phases",
        left="waiting, labels, copied weights; one increment at two synapses",
    ),
    "signs": Row(
        rule="sign symmetry",
        chapter="02",
        pre="● own rate",
        post="● own rate",
        third_factor="○ an error, private to each neuron, sent through the signs of the forward weights",
        memory="○ rates until the error is back: 2 × depth ticks",
        timing="○ two locked phases",
        left="transport of the signs, waiting, labels, copied weights",
    ),
    "hsic": Row(
        rule="HSIC objective",
        chapter="03",
        pre="–",
        post="○ all points, pairwise",
        third_factor="◐ same label or not",
        memory="○ m − 1 points",
        timing="● no other layer",
        left="what each synapse does; remembering a batch",
    ),
    "phsic": Row(
        rule="pHSIC objective",
        chapter="03",
        pre="–",
        post="◐ two points at a time",
        third_factor="◐ same label or not",
        memory="◐ one point and one running mean",
        timing="● no other layer",
        left="what each synapse does",
    ),
    "gaussian": Row(
        rule="pHSIC, Gaussian kernel",
        chapter="04",
        pre="◐ Δx between two points",
        post="◐ Δz between two points",
        third_factor="◐ M, one per layer",
        memory="◐ previous rates, one running mean",
        timing="◐ two moments",
        left="pairs of points; the label's similarity; wide layers see no neighbours",
    ),
    "grouped": Row(
        rule="pHSIC, grouped and divided",
        chapter="04",
        pre="◐ normalised rate r at two points",
        post="◐ normalised rate r at two points",
        third_factor="◐ M, one per group",
        memory="◐ previous rates, one running mean",
        timing="◐ two moments",
        left="pairs of points; the label's similarity; the variance of a group",
    ),
    "cosine": Row(
        rule="pHSIC, cosine kernel",
        chapter="04",
        pre="◐ x and Δx",
        post="◐ z and Δz",
        third_factor="○ three, for three kinds of plasticity in one synapse",
        memory="◐ previous rates, one running mean",
        timing="◐ two moments",
        left="three third factors; the length of the whole layer's activity",
    ),
    "online": Row(
        rule="pHSIC, one example at a time",
        chapter="05",
        pre="◐ now and one remembered value",
        post="◐ now and one remembered value",
        third_factor="◐ cells b₁ to b₄, one set per layer or group",
        memory="◐ one value per neuron, one mean per layer",
        timing="◐ the next example",
        left="cube root and product on dendrites; the label bit; a well-mixed world",
    ),
    "stack": Row(
        rule="pHSIC, layer by layer",
        chapter="06",
        pre="◐ as in the layer's rule",
        post="◐ as in the layer's rule",
        third_factor="◐ made in each layer, for itself",
        memory="◐ one layer's activity, at any depth",
        timing="● no layer waits for another",
        left="the label's similarity, told to every layer; the mean over a batch; copied weights in convolutions",
    ),
    "local_readout": Row(
        rule="a classifier in every layer",
        chapter="06",
        pre="● own rate",
        post="● own rate",
        third_factor="○ an error, private to each neuron, sent through the readout's own weights",
        memory="◐ rates until the layer's readout has answered",
        timing="● no layer waits for another",
        left="weight transport over one step; the exact label, in every layer; copied weights in convolutions",
    ),
    "simclr": Row(
        rule="SimCLR",
        chapter="07",
        pre="○ own rate, brought back when the batch is over",
        post="○ norms and inner products of whole embeddings",
        third_factor="○ a ratio over all pairs of a batch",
        memory="○ a batch: all embeddings, all rates of both views",
        timing="○ when the batch is over",
        left="the list itself; below the head, backprop; copied weights",
    ),
    "hinge": Row(
        rule="contrastive hinge",
        chapter="07",
        pre="● own rate",
        post="◐ the sign of remembered minus now",
        third_factor="◐ a gate, one threshold of the L1 distance for the whole embedding",
        memory="◐ one rate per neuron of the head, for 1 + T glances",
        timing="◐ the next glances",
        left="one loss on top: below the head, backprop; the bit same-or-other; copied weights",
    ),
    "random_layers": Row(
        rule="contrastive hinge, random layers",
        chapter="08",
        pre="● own rate",
        post="● own rate",
        third_factor="○ an error, private to each neuron, from the layer's own head: one matrix away",
        memory="◐ rates for the two ticks until the head has answered",
        timing="● no layer waits for another; any order",
        left="that matrix: transported, copied, or random and aligned only by growth; heads; copied weights",
    ),
    "dtp": Row(
        rule="difference targets",
        chapter="09",
        pre="● own rate",
        post="○ own rate minus a target, private to each neuron, sent down by the layer above",
        third_factor="● none; what comes down is an activity, through learned inverses",
        memory="○ rates until the target is back: about 2 × depth ticks",
        timing="○ a pass up, a pass down, and noise for the inverses, kept apart",
        left="labels or pairs; weight transport in the head; copied weights; who keeps the phases apart",
    ),
    "cpc": Row(
        rule="CPC",
        chapter="10",
        pre="○ rates at the glance that came and at all that did not",
        post="○ own rate minus its mean over glances not seen",
        third_factor="○ a softmax over all glances; the way back through the prediction's weights",
        memory="○ rates at every other glance, and the context",
        timing="○ when all glances are in",
        left="weight transport; end to end, backprop below; copied weights",
    ),
    "clapp": Row(
        rule="CLAPP",
        chapter="10",
        pre="◐ own rate, now and at the glance before",
        post="● slope × what the dendrite predicts",
        third_factor="◐ surprise: one of −1, 0, 1 for a whole layer",
        memory="◐ the context, and pre and slope at it, for one glance",
        timing="◐ the next glance",
        left="equal increments forth and back; who adds up the score; copied weights",
    ),
    "bptt": Row(
        rule="backprop through time",
        chapter="11",
        pre="○ own rate at every tick, brought back in reverse",
        post="○ own slope at every tick, brought back in reverse",
        third_factor="○ an error, private to each neuron and tick, sent back through the forward weights",
        memory="○ the whole film: grows with every tick",
        timing="○ when the sequence is over, and then backwards",
        left="weight transport at every tick; waiting; running backwards; where the error comes from",
    ),
    "eprop": Row(
        rule="e-prop",
        chapter="11",
        pre="● own rate, into the trace",
        post="● own slope and memory gate, into the trace",
        third_factor="◐ told now: surprise × dendrite, with CLAPP; from a readout, an error private to each neuron",
        memory="◐ a trace per synapse, however long the past; three synapses per pair of neurons",
        timing="● every tick, forwards",
        left="credit between neurons is lost; who tells; news that comes late needs the trace of then",
    ),
    "copied": Row(
        rule="convolution",
        chapter="13",
        pre="○ patches at all positions",
        post="○ errors at all positions",
        third_factor="–",
        memory="–",
        timing="○ one increment at all copies at once",
        left="a synapse that hears of all its copies",
    ),
    "uncopied": Row(
        rule="locally connected, any rule",
        chapter="13",
        pre="● what it sees at its own place",
        post="● own rate",
        third_factor="–",
        memory="–",
        timing="● nothing is copied",
        left="knows only what was shown at its own place; normalization over positions",
    ),
    "sleep": Row(
        rule="sleep: neurons of a module agree",
        chapter="14",
        pre="● own rate, while patterns repeat",
        post="● own rate above its bias, under inhibition",
        third_factor="● none",
        memory="◐ the weight at bedtime, one number per synapse",
        timing="◐ a phase of its own; layers in any order",
        left="who makes the patterns, and wires the modules; kernels of one size; private noise; what the day taught",
    ),
}


def ledger(*rules: str, highlight: str | None = None) -> Shown:
    """These rules of the ledger (all of them, if none is named) as a table; `highlight` points at the newest.

    Raises ValueError for a rule that is not in the ledger, naming those that are.
    """
    rules = rules or tuple(ROWS)
    unknown = {*rules, highlight} - {*ROWS, None}
    if unknown:
        raise ValueError(f"not in the ledger: {', '.join(sorted(map(str, unknown)))}; known: {', '.join(ROWS)}")
    if highlight and highlight not in rules:
        raise ValueError(f"highlight {highlight!r} is not among the rules shown: {', '.join(rules)}")
    legend = ", ".join(f"{mark} {meaning}" for mark, meaning in MARKS.items())
    caption = f"The locality ledger: what a synapse must know, and when ({legend})"
    names = ["still implausible" if field.name == "left" else field.name.replace("_", " ") for field in fields(Row)]
    heads = "".join(f'<th scope="col">{name}</th>' for name in names)
    body = "".join(_html_row(ROWS[rule], new=rule == highlight) for rule in rules)
    markup = (
        f'<div style="overflow-x:auto" tabindex="0"><table class="table" style="font-size:.85em">'
        f"<caption>{caption}</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )
    return Shown(markup, "\n".join([caption, *(_text_row(ROWS[rule], new=rule == highlight) for rule in rules)]))


def _html_row(row: Row, *, new: bool) -> str:
    rule, *cells = (html.escape(cell) for cell in astuple(row))
    for mark, meaning in MARKS.items():
        cells = [cell.replace(mark, f'<span role="img" aria-label="{meaning}:">{mark}</span>') for cell in cells]
    style, arrow = (' style="font-weight:bold"', "→ ") if new else ("", "")
    return f'<tr{style}><th scope="row">{arrow}{rule}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _text_row(row: Row, *, new: bool) -> str:
    cells = "; ".join(f"{name.replace('_', ' ')}: {getattr(row, name)}" for name in (*MARKED, "left"))
    title = f"{'→ ' if new else '  '}{row.rule} (chapter {row.chapter})"
    return "\n".join([title, *textwrap.wrap(cells, 110, initial_indent="    ", subsequent_indent="    ")])
