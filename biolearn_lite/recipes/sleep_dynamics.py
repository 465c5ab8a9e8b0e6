"""The recipe of Figures 4 and 5 of 004: how fast neurons agree in sleep, how far, and what inhibition costs.

100 neurons start from weights N(1, 1) and see one common input after the other. Nine curves per figure: kernels of
k × k for k = 3, 6 and 9, and a pull γ = 0.1, 0.01 and 0.001. Each is the mean of -log SNR (Eq. 6) over 10 runs, beside
the theory: Eq. 5 for these very weights, near 2 log(γ / (1 + γ)). The lower, the better they agree.

- "4A": the rule, Eq. 4, by descent with momentum, 2,000 inputs with rate 0.5 / (1000 + i).
- "5A": the rule that inhibition of strength α = 10 leaves, Eq. 21, with the same rate, 10,000 inputs.
- "4B, 5B": the circuit itself, Eq. 8, in steps of 1 ms, 10,000 inputs of 150 ms each. Activity is not reset between
  inputs, and the anti-Hebbian step -(r - b) x - γ (w - w_init), with the new r, comes every millisecond, too.

The text (A.5) and the published code differ in two points, and both are run:

- "text": inputs are N(1, 1). In the circuit's rate 0.0003 / √(1 + i/2), zero before i = 50, i counts inputs.
- "published": inputs are N(0, 1). There i counts milliseconds, so rates fall √150 times faster.

**How 1.5 million steps fit in a minute.** While an input x stays, learning adds nothing to the weights but multiples of
x, beside what momentum and pull do anyway. So, with y = w - w_init and its velocity v, the two numbers y·x and v·x of a
neuron follow from themselves (`Circuit.present`), and y and v are rebuilt only when x goes (`Module.learn`). A test has
the plain loop beside it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from tqdm.auto import tqdm

from biolearn_lite.recipes.engine import Metrics, Recipe, Scale, known, setting
from biolearn_lite.rules.weight_sharing import fixed_point, sleep_update, weight_snr
from biolearn_lite.training.checkpoint import Checkpoints

FIGURES: dict[str, dict[str, Any]] = {
    "4A": {"epochs": 2_000},
    "5A": {"epochs": 10_000, "inhibition": 10.0},
    "4B, 5B": {"epochs": 10_000, "inhibition": 10.0, "milliseconds": 150},
}

VARIANTS: dict[str, dict[str, Any]] = {
    "text": {"input_mean": 1.0, "rate_counts": "inputs"},
    "published": {"input_mean": 0.0, "rate_counts": "milliseconds"},
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One figure in one variant: all its curves."""

    input_mean: float = setting("mean of the inputs, whose variance is 1")
    rate_counts: str = setting("what the circuit's rate falls with: 'inputs' or 'milliseconds'")
    inhibition: float | None = setting("alpha; none: exact means, Eq. 4", default=None)
    milliseconds: int = setting("for which the circuit sees an input; 0: no circuit, Eq. 4 or 21 itself", default=0)
    tau: float = setting("time constant of the circuit's cells in ms", default=30.0)
    bias: float = setting("b, the drive that all cells have; they start silent", default=1.0)
    kernel_sizes: tuple[int, ...] = setting("k; neurons have k × k inputs", default=(3, 6, 9))
    decays: tuple[float, ...] = setting("gamma, the pull back to the first weights", default=(0.1, 0.01, 0.001))
    neurons: int = setting("in a module", default=100)
    runs: int = setting("with weights and inputs of their own", default=10)
    momentum: float = setting("of the descent", default=0.95)
    epochs: int = setting("inputs shown, one after the other")


def settings(row: str, column: str) -> Settings:
    """A figure in a variant."""
    return Settings(**known("figure", row, FIGURES), **known("variant", column, VARIANTS))


def train(settings: Settings, data: None, seed: int, progress: bool, checkpoints: Checkpoints | None) -> Metrics:
    """All curves of a figure. The history's lines: `epoch`, the inputs shown by then, and for every `curve` its mean,
    lowest and highest -log SNR over the runs and its mean weight (None once a run is lost). `theory`: Eq. 5, per curve;
    `biased_theory`: Eq. 24.
    """
    night = circuit_night if settings.milliseconds else rule_night
    history: list[Metrics] = []
    with tqdm(total=settings.epochs, disable=not progress, leave=False) as bar:
        for epoch, modules in night(settings, seed):
            moments = {
                curve(m.kernel_size, g): _moment(w)
                for m in modules
                for g, w in zip(settings.decays, m.weights(), strict=True)
            }
            history.append({"epoch": epoch} | moments)
            bar.update(epoch - bar.n)
    means = {name: [line[name]["mean"] for line in history if line[name]["mean"] is not None] for name in moments}
    return {
        "lowest": sum(map(min, means.values())) / len(means),
        "final": sum(values[-1] for values in means.values()) / len(means),
        "lost": [name for name, moment in moments.items() if moment["mean"] is None],
        "theory": theory(settings, seed),
        "biased_theory": theory(settings, seed, inhibition=settings.inhibition),
        "history": history,
    }


def curve(kernel_size: int, decay: float) -> str:
    """The name of a curve."""
    return f"k = {kernel_size}, γ = {decay:g}"


def times(last: int) -> list[int]:
    """Some 200 moments from 0 to last: every hundredth part, and denser at the start."""
    early = {round(last ** (i / 100)) for i in range(101)}
    return sorted({0, *early, *(last * i // 100 for i in range(101))})


class Module:
    """The neurons of one kernel size, under every pull: weights w = w_init + y and velocities v.

    Shapes: w_init (runs, neurons, k²); y and v (pulls, runs, neurons, k²). Every pull has the same inputs.
    """

    def __init__(self, settings: Settings, kernel_size: int, seed: int, *, dtype: torch.dtype = torch.float64) -> None:
        self.settings, self.kernel_size, self.dtype = settings, kernel_size, dtype
        self.generator = torch.Generator().manual_seed(1000 * seed + kernel_size)
        self.w_init = 1 + self._normal(settings.runs, settings.neurons, kernel_size**2)
        self.y = torch.zeros(len(settings.decays), *self.w_init.shape, dtype=dtype)
        self.v = torch.zeros_like(self.y)

    def weights(self) -> Tensor:
        """(pulls, runs, neurons, k²)"""
        return self.w_init + self.y

    def next_input(self) -> Tensor:
        """x (runs, 1, k²), the same for all neurons of a run."""
        return self.settings.input_mean + self._normal(self.settings.runs, 1, self.kernel_size**2)

    def learn(self, x: Tensor, undriven: Tensor, gained: Tensor, speed: Tensor) -> None:
        """What an input's time changed: what would have come without x, and a multiple of x for each neuron.

        undriven: (2, 2, pulls, 1, 1), from `undriven`. gained, speed: (pulls, runs, neurons), in y and in v.
        """
        (a, b), (c, d) = undriven.unsqueeze(-1)
        old = self.y
        self.y = (a * old).addcmul_(b, self.v).addcmul_(gained.unsqueeze(-1), x)
        self.v = (c * old).addcmul_(d, self.v).addcmul_(speed.unsqueeze(-1), x)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=self.generator).to(self.dtype)


Night = Iterator[tuple[int, list[Module]]]
"""The modules, one per kernel size, at each of `times`, with the number of inputs shown."""


def rule_night(settings: Settings, seed: int) -> Night:
    """Descent by the rule, with momentum: v ← m v + rate Δw, w ← w + v. Source: 004, Eq. 4 and 21, A.5."""
    modules = [Module(settings, k, seed, dtype=torch.float32) for k in settings.kernel_sizes]
    moments = set(times(settings.epochs))
    yield 0, modules
    for i in range(settings.epochs):
        for module in modules:
            x = module.next_input()
            for y, v, decay in zip(module.y, module.v, settings.decays, strict=True):
                w = module.w_init + y
                dw = sleep_update(w, x, module.w_init, decay=decay, inhibition=settings.inhibition)
                v.mul_(settings.momentum).add_(dw, alpha=0.5 / (1000 + i))
                y.add_(v)
        if i + 1 in moments:
            yield i + 1, modules


def circuit_night(settings: Settings, seed: int) -> Night:
    """Learning in the circuit, millisecond by millisecond. Source: 004, Eq. 8, section 4.2, A.5."""
    modules, moments = [Module(settings, k, seed) for k in settings.kernel_sizes], set(times(settings.epochs))
    circuit = Circuit(settings)
    yield 0, modules
    for i in range(settings.epochs):
        rates, x = circuit_rates(settings, i), [module.next_input() for module in modules]
        length = torch.stack([now.square().sum(-1) for now in x]).unsqueeze(1)
        first = _answers([module.w_init.unsqueeze(0) for module in modules], x)
        seen, moving = _answers([m.y for m in modules], x), _answers([m.v for m in modules], x)
        alone = undriven(rates, settings)
        (a, b), (c, d) = alone
        without, without_speed = a * seen + b * moving, c * seen + d * moving
        seen, moving = circuit.present(rates, first, length, seen, moving)
        gained, speed = (seen - without) / length, (moving - without_speed) / length
        for module, now, *change in zip(modules, x, gained, speed, strict=True):
            module.learn(now, alone, *change)
        if i + 1 in moments:
            yield i + 1, modules


def circuit_rates(settings: Settings, i: int) -> list[float]:
    """The learning rate at every millisecond of input i."""
    start = i * settings.milliseconds
    counts = {
        "inputs": [i] * settings.milliseconds,
        "milliseconds": list(range(start, start + settings.milliseconds)),
    }
    return [0.0003 / (1 + n / 2) ** 0.5 if n >= 50 else 0.0 for n in known("count", settings.rate_counts, counts)]


def undriven(rates: Sequence[float], settings: Settings) -> Tensor:
    """What momentum and pull alone do in that time: y ↦ a y + b v, v ↦ c y + d v; ((a, b), (c, d)), one per pull."""
    found = []
    for decay in settings.decays:
        a, b, c, d = 1.0, 0.0, 0.0, 1.0
        for rate in rates:
            c, d = settings.momentum * c - rate * decay * a, settings.momentum * d - rate * decay * b
            a, b = a + c, b + d
        found.append([a, b, c, d])
    return torch.tensor(found, dtype=torch.float64).T.view(2, 2, -1, 1, 1)


@final
class Circuit:
    """Excitatory and inhibitory rates of all modules at once, (k, pulls, runs, neurons) and (k, pulls, runs, 1)."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        shape = len(settings.kernel_sizes), len(settings.decays), settings.runs, settings.neurons
        self.e = torch.full(shape, -settings.bias, dtype=torch.float64)  # r - b
        self.r_inh = torch.zeros(*shape[:-1], 1, dtype=torch.float64)
        self.decay = torch.tensor(settings.decays, dtype=torch.float64).view(-1, 1, 1)

    def present(
        self, rates: Sequence[float], first: Tensor, length: Tensor, seen: Tensor, moving: Tensor
    ) -> tuple[Tensor, Tensor]:
        """y·x and v·x after an input was there for as many ms as there are rates.

        Args: first, seen, moving: w_init·x, y·x and v·x before, shaped as the rates are. length: |x|².
        """
        share, inhibition, momentum = 1 / self.settings.tau, self.settings.inhibition, self.settings.momentum
        for rate in rates:
            drive = (first + seen).sub_(self.r_inh, alpha=inhibition)
            self.r_inh = torch.lerp(self.r_inh, self.e.mean(-1, keepdim=True), share)
            self.e = self.e.lerp_(drive, share)
            moving = (momentum * moving).addcmul_(length, self.e, value=-rate).addcmul_(self.decay, seen, value=-rate)
            seen = seen + moving
        return seen, moving


def theory(settings: Settings, seed: int, *, inhibition: float | None = None) -> dict[str, float]:
    """-log SNR where each curve should end, for its own first weights and the inputs' true second moment.

    Mean over the runs. Source: 004, Eq. 5, the best there is; Eq. 24 with inhibition.
    """
    ends = {}
    for k in settings.kernel_sizes:
        w_init = Module(settings, k, seed).w_init
        C = torch.eye(k**2, dtype=torch.float64) + settings.input_mean**2
        for decay in settings.decays:
            end = fixed_point(w_init, C, decay=decay, inhibition=inhibition)
            ends[curve(k, decay)] = -weight_snr(end).log().mean().item()
    return ends


def _answers(weights: Sequence[Tensor], x: Sequence[Tensor]) -> Tensor:
    """w·x of every neuron, (k, pulls, runs, neurons)."""
    return torch.stack([(w * now).sum(-1) for w, now in zip(weights, x, strict=True)])


def _moment(w: Tensor) -> dict[str, float | None]:
    """What is kept of the weights (runs, neurons, k²) of a curve."""
    value = -weight_snr(w).log()
    if not torch.isfinite(value).all():
        return dict.fromkeys(("mean", "low", "high", "weight"))
    numbers = {"mean": value.mean(), "low": value.min(), "high": value.max(), "weight": w.mean()}
    return {name: round(number.item(), 4) for name, number in numbers.items()}


RECIPES = (
    Recipe(
        name="sleep-dynamics",
        about="Figures 4 and 5 of 004: how fast and how far 100 neurons agree in sleep, by the rule and by its circuit",
        rows=tuple(FIGURES),
        scales=dict.fromkeys(("lite", "colab", "full"), Scale(tuple(VARIANTS), (0,))),
        settings=settings,
        load=lambda settings, device: None,
        random=lambda settings, steps: None,
        train=train,
        measures=("lowest", "final"),
        paper=lambda row, column: None,
    ),
)
