"""Chapter 07, the contrastive hinge loss. The formulas are written out anew here, independent of `rules`."""

import math
from typing import Any

import torch
from torch import Generator, Tensor

from biolearn_lite.show.exercises import demand, expect, parts, property_of


def _views(generator: Generator, count: int = 6, size: int = 4) -> tuple[Tensor, Tensor]:
    """Embeddings of two views, in quarters: exact in floating point, with ties between coordinates."""
    draw = torch.randn(2, count, size, dtype=torch.float64, generator=generator)
    a, b = ((2 * draw).round() / 4).unbind()
    return a, b


def _length(*numbers: float) -> float:
    return math.sqrt(sum(x * x for x in numbers))


# 07-1: simclr_loss(a, b, temperature), Eq. 1


def _simclr(a: Tensor, b: Tensor, temperature: float) -> float:
    e = [*a.tolist(), *b.tolist()]

    def alike(p: int, q: int) -> float:
        inner = sum(x * y for x, y in zip(e[p], e[q], strict=True))
        return math.exp(inner / (_length(*e[p]) * _length(*e[q]) * temperature))

    total = 0.0
    for p in range(len(e)):
        partner = (p + len(a)) % len(e)
        total -= math.log(alike(p, partner) / sum(alike(p, q) for q in range(len(e)) if q != p))
    return total


@property_of("07-1", hint=2)
def one_pair_costs_nothing(simclr_loss: Any, generator: Generator) -> None:
    """One pair alone has nothing to choose from: the loss is 0, at any temperature."""
    a, b = torch.randn(2, 1, 3, dtype=torch.float64, generator=generator).unbind()
    for temperature in (0.1, 1.0):
        expect(simclr_loss(a, b, temperature), 0.0, a=a, b=b, temperature=temperature)


@property_of("07-1", hint=1)
def lengths_do_not_count(simclr_loss: Any, generator: Generator) -> None:
    """Only directions count: views of other lengths give the same loss."""
    a, b = torch.randn(2, 5, 3, dtype=torch.float64, generator=generator).unbind()
    longer = torch.rand(5, 1, dtype=torch.float64, generator=generator) + 0.5
    expect(simclr_loss(longer * a, b, 0.5), _simclr(a, b, 0.5))


@property_of("07-1", hint=2)
def it_is_the_sum_over_all_views(simclr_loss: Any, generator: Generator) -> None:
    """It is the sum over all 2m views, with the partner in the denominator and the view itself left out."""
    a, b = torch.randn(2, 4, 3, dtype=torch.float64, generator=generator).unbind()
    for temperature in (0.2, 1.0):
        got = simclr_loss(a, b, temperature)
        expect(got, _simclr(a, b, temperature), a=a, b=b, temperature=temperature)


# 07-2: listen(glances, near, far), what neurons are told at each glance (Eq. 5 and 6)


def _told(glances: list[tuple[str, Tensor]], near: float, far: float) -> list[list[float]]:
    said, memory = [], [0.0]
    for role, embedding in glances:
        now = embedding.tolist()
        memory = now if role == "first" else memory
        distance = sum(abs(h - x) for h, x in zip(memory, now, strict=True))
        gate = {"first": 0, "partner": int(distance > near), "other": -int(distance < far)}[role]
        said.append([float(gate * ((h > x) - (h < x))) for h, x in zip(memory, now, strict=True)])
    return said


def _compare_told(listen: Any, glances: list[tuple[str, Tensor]], near: float, far: float) -> None:
    names = [f"glance {i} ({role})" for i, (role, _) in enumerate(glances, start=1)]
    wanted = _told(glances, near, far)
    answered = listen([(role, e.clone()) for role, e in glances], near, far)
    for name, got, want, (_, e) in zip(names, parts(answered, *names), wanted, glances, strict=True):
        expect(got, want, at=name, embedding=e, first=glances[0][1], near=near, far=far)


@property_of("07-2", hint=2)
def a_partner_is_pulled(listen: Any, generator: Generator) -> None:
    """After a first glance, a partner that is too far is told to move towards it, neuron by neuron."""
    a, b = _views(generator)
    for i in range(3):
        _compare_told(listen, [("first", a[i]), ("partner", b[i])], 1.0, 3.0)


@property_of("07-2", hint=2)
def others_are_pushed(listen: Any, generator: Generator) -> None:
    """Others that are too near are told to move away from the first glance, however many there are."""
    a, b = _views(generator)
    _compare_told(listen, [("first", a[0]), ("partner", b[0]), *(("other", b[i]) for i in range(1, 5))], 1.0, 3.0)


@property_of("07-2", hint=1)
def a_new_first_glance_replaces_the_old(listen: Any, generator: Generator) -> None:
    """A new first glance replaces the old one in memory; nothing is compared with the thing before."""
    a, b = _views(generator)
    glances = []
    for i in (0, 2, 4):
        glances += [("first", a[i]), ("partner", b[i]), ("other", b[i + 1])]
    _compare_told(listen, glances, 0.5, 5.0)


@property_of("07-2", hint=2)
def at_a_margin_nothing_is_taught(listen: Any, generator: Generator) -> None:
    """A pair exactly at its margin teaches nothing."""
    a, b = _views(generator)
    distance = sum(abs(x - y) for x, y in zip(a[0].tolist(), b[0].tolist(), strict=True))
    _compare_told(listen, [("first", a[0]), ("partner", b[0]), ("other", b[0])], distance, distance)


# 07-3: who_still_teaches(a, b, near, far, T), shares of positive and of negative pairs


def _shares(a: Tensor, b: Tensor, near: float, far: float, T: int) -> tuple[float, float]:
    def apart(i: int, j: int) -> float:
        return float(sum(abs(x - y) for x, y in zip(a[i].tolist(), b[j].tolist(), strict=True)))

    m = len(a)
    positive = [apart(i, i) > near for i in range(m)]
    negative = [apart(i, j) < far for i in range(m) for j in range(i + 1, min(i + T, m - 1) + 1)]
    return sum(positive) / len(positive), sum(negative) / len(negative)


@property_of("07-3", hint=1)
def the_share_of_positives(who_still_teaches: Any, generator: Generator) -> None:
    """The first share counts the partners that are farther apart than `near`, in L1 distance."""
    a, b = _views(generator)
    distance = (a - b).abs().sum(1)
    for near in (1.0, distance[0].item()):  # the second is met exactly
        got, _ = parts(who_still_teaches(a, b, near, 3.0, 2), "positives", "negatives")
        expect(got, _shares(a, b, near, 3.0, 2)[0], a=a, b=b, near=near)


@property_of("07-3", hint=2)
def the_share_of_negatives(who_still_teaches: Any, generator: Generator) -> None:
    """The second counts those of the next T things that are nearer than `far`, out of the pairs there are."""
    a, b = _views(generator)
    for T in (1, 2, 4):
        for far in (2.0, (a[0] - b[1]).abs().sum().item()):
            _, got = parts(who_still_teaches(a, b, 1.0, far, T), "positives", "negatives")
            expect(got, _shares(a, b, 1.0, far, T)[1], a=a, b=b, far=far, T=T)


# 07-4: mended(D_plus, D_minus, S_plus, S_minus, near), Eq. 5 from the circuit's cells


def _cells(remembered: Tensor, now: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    up, down = (remembered - now).clamp_min(0), (now - remembered).clamp_min(0)
    return up, down, up.sum(), down.sum()


@property_of("07-4", hint=1)
def halves_are_added_first(mended: Any, generator: Generator) -> None:
    """(0, 0.8) against (0.8, 0) is 1.6 apart: with near = 1 it is told (−1, 1), in any two neurons."""
    size = 0.55 + 0.4 * torch.rand((), dtype=torch.float64, generator=generator)
    zero = torch.zeros((), dtype=torch.float64)
    remembered, now = torch.stack([zero, size]), torch.stack([size, zero])
    expect(mended(*_cells(remembered, now), 1.0), [-1.0, 1.0], remembered=remembered, now=now)


@property_of("07-4", hint=2)
def signs_without_size(mended: Any, generator: Generator) -> None:
    """Every neuron is told a sign, up or down, or 0 where nothing differs; nothing if the partner is near enough."""
    a, b = _views(generator, count=12)
    for remembered, now in zip(a, b, strict=True):
        for near in (1.0, 3.0):
            want = _told([("first", remembered), ("partner", now)], near, 0.0)[1]
            expect(mended(*_cells(remembered, now), near), want, remembered=remembered, now=now, near=near)


# 07-5: best_size(d, D, near, far), the smallest scale with the least loss, and that loss


def _loss(s: float, d: float, D: float, near: float, far: float) -> float:
    return max(s * d - near, 0.0) + max(far - s * D, 0.0)


def _case(generator: Generator, *, farther: bool) -> tuple[float, float, float, float]:
    one, more, near, ratio = (1 + 2 * torch.rand(4, generator=generator, dtype=torch.float64)).tolist()
    small, large = one, one * more
    d, D = (small, large) if farther else (large, small)
    return d, D, near, near * (1 + ratio)


def _best(best_size: Any, d: float, D: float, near: float, far: float) -> None:
    kinks = sorted((near / d, far / D))
    want = min(kinks, key=lambda s: (round(_loss(s, d, D, near, far), 12), s))
    s, loss = parts(best_size(d, D, near, far), "s", "loss")
    given = {"d": d, "D": D, "near": near, "far": far}
    expect(loss, _loss(want, d, D, near, far), **given)
    expect(s, want, **given)


@property_of("07-5", hint=1)
def if_the_other_is_farther(best_size: Any, generator: Generator) -> None:
    """If the other is farther away than the partner, it is the smallest s with the least loss, and that loss."""
    _best(best_size, *_case(generator, farther=True))
    _best(best_size, 1.0, 10.0, 1.0, 2.0)  # both margins can be kept


@property_of("07-5", hint=2)
def if_the_other_is_nearer(best_size: Any, generator: Generator) -> None:
    """If the other is nearer than the partner, too."""
    _best(best_size, *_case(generator, farther=False))


# 07-6 (research): {"any": [...], "same": [...]}, readouts of the embedding on deformed test digits, in %


@property_of("07-6", hint=1)
def both_kinds_of_negatives(report: Any, generator: Generator) -> None:
    """The report is {"any": [...], "same": [...]}, three starts or more each, as many of one as of the other."""
    demand(isinstance(report, dict) and set(report) == {"any", "same"}, f"expected any and same, got {report!r:.80}")
    counts = [len(list(values)) for values in report.values()]
    demand(min(counts) >= 3 and counts[0] == counts[1], f"numbers of starts: {counts}")


@property_of("07-6", hint=2)
def in_percent_from_different_starts(report: Any, generator: Generator) -> None:
    """Accuracies are in %, and starts differ."""
    for name, values in report.items():
        numbers = [float(value) for value in values]
        demand(all(2 < number <= 100 for number in numbers), f"{name}: from {min(numbers)} to {max(numbers)}")
        demand(len(set(numbers)) > 1, f"{name}: all starts give {numbers[0]}")


@property_of("07-6", hint=2)
def something_was_learned(report: Any, generator: Generator) -> None:
    """Both kinds learn: on average over 65 %, and less than 97 %, which would be upright digits."""
    for name, values in report.items():
        mean = sum(map(float, values)) / len(values)
        demand(65 < mean < 97, f"{name}: mean {mean:.1f} %")
