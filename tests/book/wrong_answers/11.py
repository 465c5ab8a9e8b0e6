"""Three or more likely wrong answers to each exercise of chapter 11; every one must be told why it is wrong."""

import torch


def trace_that_never_fades(z, new):
    return new.cumsum(0)


def _traces(keep, let_in):
    e, kept = torch.zeros_like(let_in[0]), []
    for share, arrives in zip(keep, let_in, strict=True):
        e = share * e + arrives
        kept.append(e)
    return torch.stack(kept)


def trace_as_mean(z, new):
    return _traces(z, (1 - z) * new)


def trace_with_the_gate_of_before(z, new):
    return _traces(torch.cat([z[:1], z[:-1]]), new)


def trace_with_the_other_gate(z, new):
    return _traces(1 - z, new)


def trace_that_leaks_at_once(z, new):
    return _traces(z, z * new)


def slopes_with_z_reversed(r, z, n, recurrent, h):
    to_n = (1 - z) * (1 - n**2)
    return to_n * recurrent * r * (1 - r), (n - h) * z * (1 - z), to_n


def slopes_without_the_mixture(r, z, n, recurrent, h):
    to_n = 1 - n**2
    return to_n * recurrent * r * (1 - r), (h - n) * z * (1 - z), to_n


def slopes_by_the_gates_themselves(r, z, n, recurrent, h):
    to_n = (1 - z) * (1 - n**2)
    return to_n * recurrent, h - n, to_n


def slopes_in_another_order(r, z, n, recurrent, h):
    to_n = (1 - z) * (1 - n**2)
    return to_n, (h - n) * z * (1 - z), to_n * recurrent * r * (1 - r)


def learns_from_the_last_news_alone(x, L, z):
    return L[-1] * _traces([z] * len(x), (1 - z) * x)[-1]


def learns_without_a_trace(x, L, z):
    return (L[:, None] * (1 - z) * x).sum(0)


def learns_from_before(x, L, z):
    earlier = torch.cat([torch.zeros_like(x[:1]), x[:-1]])
    return (L[:, None] * _traces([z] * len(x), (1 - z) * earlier)).sum(0)


def learns_all_of_the_input(x, L, z):
    return (L[:, None] * _traces([z] * len(x), x)).sum(0)


def surprised_by_the_way_forth(c, e, z, y, W_pred, W_retro):
    return y * (y * (z @ W_pred @ c) < 1) * (W_retro @ z)[:, None] * e


def surprised_by_transport(c, e, z, y, W_pred, W_retro):
    dendrite = z @ W_pred
    return y * (y * (c @ dendrite) < 1) * dendrite[:, None] * e


def always_surprised(c, e, z, y, W_pred, W_retro):
    return y * (W_retro @ z)[:, None] * e


def surprised_without_sign(c, e, z, y, W_pred, W_retro):
    return (y * (c @ W_retro @ z) < 1) * (W_retro @ z)[:, None] * e


def surprised_without_a_dendrite(c, e, z, y, W_pred, W_retro):
    return y * (y * (c @ W_retro @ z) < 1) * e


def memory_for_ever(d):
    return 1.0


def memory_of_the_delay(d):
    return 1 - 1 / d if d else 0.0


def memory_of_a_third(d):
    return d / (d + 2)


def memory_of_a_half(d):
    return 0.5 if d else 0.0


WRONG = {
    "11-1": [
        trace_that_never_fades,
        trace_as_mean,
        trace_with_the_gate_of_before,
        trace_with_the_other_gate,
        trace_that_leaks_at_once,
    ],
    "11-2": [
        slopes_with_z_reversed,
        slopes_without_the_mixture,
        slopes_by_the_gates_themselves,
        slopes_in_another_order,
    ],
    "11-3": [
        learns_from_the_last_news_alone,
        learns_without_a_trace,
        learns_from_before,
        learns_all_of_the_input,
    ],
    "11-4": [
        surprised_by_the_way_forth,
        surprised_by_transport,
        always_surprised,
        surprised_without_sign,
        surprised_without_a_dendrite,
    ],
    "11-5": [memory_for_ever, memory_of_the_delay, memory_of_a_third, memory_of_a_half],
}
