"""Three or more wrong answers to each exercise of chapter 07, the likely ones; each must be told why it is wrong."""

import torch
import torch.nn.functional as F


def _table(a, b, temperature):
    e = F.normalize(torch.cat([a, b]), dim=1)
    m = len(a)
    return e @ e.T / temperature, torch.arange(2 * m), torch.arange(2 * m).roll(m)


def simclr_with_itself(a, b, temperature):
    c, rows, partner = _table(a, b, temperature)
    return (c.logsumexp(1) - c[rows, partner]).sum()


def simclr_without_the_partner(a, b, temperature):
    c, rows, partner = _table(a, b, temperature)
    right = c[rows, partner].clone()
    c[rows, partner] = -100.0
    return (c.fill_diagonal_(-100.0).logsumexp(1) - right).sum()


def simclr_mean(a, b, temperature):
    c, rows, partner = _table(a, b, temperature)
    return (c.fill_diagonal_(float("-inf")).logsumexp(1) - c[rows, partner]).mean()


def simclr_of_lengths(a, b, temperature):
    e, m = torch.cat([a, b]), len(a)
    c = (e @ e.T / temperature).fill_diagonal_(float("-inf"))
    return (c.logsumexp(1) - c[torch.arange(2 * m), torch.arange(2 * m).roll(m)]).sum()


def simclr_one_list(a, b, temperature):
    c = F.normalize(a) @ F.normalize(b).T / temperature
    return (c.logsumexp(1) - c.diagonal()).sum()


def _listen(glances, near, far, tell):
    told, memory = [], None
    for role, e in glances:
        memory = e if role == "first" else memory
        apart = memory - e
        told.append(tell(role, apart, apart.abs().sum()))
    return told


def _gate(role, distance, near, far):
    return {"first": 0.0, "partner": float(distance > near), "other": -float(distance < far)}[role]


def listen_graded(glances, near, far):
    return _listen(glances, near, far, lambda r, u, d: _gate(r, d, near, far) * u)


def listen_delta(glances, near, far):  # the error signal in place of what is told
    return _listen(glances, near, far, lambda r, u, d: -_gate(r, d, near, far) * u.sign())


def listen_without_gates(glances, near, far):
    sides = {"first": 0, "partner": 1, "other": -1}
    return _listen(glances, near, far, lambda r, u, d: sides[r] * u.sign())


def listen_at_the_edge(glances, near, far):
    def tell(role, apart, distance):
        gate = {"first": 0.0, "partner": float(distance >= near), "other": -float(distance <= far)}[role]
        return gate * apart.sign()

    return _listen(glances, near, far, tell)


def listen_by_mean(glances, near, far):
    return _listen(glances, near, far, lambda r, u, d: _gate(r, d / len(u), near, far) * u.sign())


def listen_to_the_last(glances, near, far):  # compares with the glance before
    told, memory = [], glances[0][1]
    for role, e in glances:
        apart = memory - e
        told.append(_gate(role, apart.abs().sum(), near, far) * apart.sign())
        memory = e
    return told


def listen_to_the_very_first(glances, near, far):
    memory = glances[0][1]
    return [_gate(r, (memory - e).abs().sum(), near, far) * (memory - e).sign() for r, e in glances]


def shares_of_all(a, b, near, far, T):
    distance = torch.cdist(a, b, p=1)
    others = distance[~torch.eye(len(a), dtype=torch.bool)]
    return (distance.diagonal() > near).double().mean(), (others < far).double().mean()


def _diagonals(a, b, T):
    return torch.cat([torch.cdist(a, b, p=1).diagonal(t) for t in range(1, T + 1)])


def shares_by_T(a, b, near, far, T):  # as if every anchor had T negatives
    taught = (_diagonals(a, b, T) < far).double().sum() / (len(a) * T)
    return ((a - b).abs().sum(1) > near).double().mean(), taught


def shares_wrapped(a, b, near, far, T):
    others = torch.stack([(a - b.roll(-t, 0)).abs().sum(1) for t in range(1, T + 1)])
    return ((a - b).abs().sum(1) > near).double().mean(), (others < far).double().mean()


def shares_backwards(a, b, near, far, T):
    before = torch.cat([torch.cdist(a, b, p=1).diagonal(-t) for t in range(1, T + 1)])
    return ((a - b).abs().sum(1) > near).double().mean(), (before < far).double().mean()


def shares_at_the_edge(a, b, near, far, T):
    return ((a - b).abs().sum(1) >= near).double().mean(), (_diagonals(a, b, T) <= far).double().mean()


def shares_euclidean(a, b, near, far, T):
    return ((a - b).norm(dim=1) > near).double().mean(), (_diagonals(a, b, T) < far).double().mean()


def mended_by_either(D_plus, D_minus, S_plus, S_minus, near):
    return ((S_plus > near) | (S_minus > near)) * ((D_plus > 0).double() - (D_minus > 0).double())


def mended_graded(D_plus, D_minus, S_plus, S_minus, near):
    return (S_plus + S_minus > near) * (D_plus - D_minus)


def mended_upwards(D_plus, D_minus, S_plus, S_minus, near):
    return (S_plus + S_minus > near) * (D_plus > 0).double()


def mended_the_wrong_way(D_plus, D_minus, S_plus, S_minus, near):
    return (S_plus + S_minus > near) * ((D_minus > 0).double() - (D_plus > 0).double())


def _size(s, d, D, near, far):
    return s, max(s * d - near, 0.0) + max(far - s * D, 0.0)


WRONG = {
    "07-1": [simclr_with_itself, simclr_without_the_partner, simclr_mean, simclr_of_lengths, simclr_one_list],
    "07-2": [
        listen_graded,
        listen_delta,
        listen_without_gates,
        listen_at_the_edge,
        listen_by_mean,
        listen_to_the_last,
        listen_to_the_very_first,
    ],
    "07-3": [
        shares_of_all,
        shares_by_T,
        shares_wrapped,
        shares_backwards,
        shares_at_the_edge,
        shares_euclidean,
    ],
    "07-4": [mended_by_either, mended_graded, mended_upwards, mended_the_wrong_way],
    "07-5": [
        lambda d, D, near, far: _size(far / D, d, D, near, far),  # always out of the way
        lambda d, D, near, far: _size(near / d, d, D, near, far),  # never beyond the partner's margin
        lambda d, D, near, far: _size(max(near / d, far / D), d, D, near, far),
        lambda d, D, near, far: (far / D if d < D else near / d, 0.0),  # as if both could always be kept
    ],
    "07-6": [
        {"any": [78.0, 79.0, 77.0]},
        {"any": [78.0, 79.0], "same": [76.0, 77.0]},
        {"any": [0.78, 0.79, 0.77], "same": [0.76, 0.75, 0.77]},
        {"any": [78.0, 78.0, 78.0], "same": [76.0, 76.0, 76.0]},
        {"any": [99.0, 98.5, 98.8], "same": [98.0, 98.2, 98.1]},  # upright digits
        {"any": [12.0, 11.0, 10.0], "same": [10.0, 11.0, 9.0]},  # collapsed
    ],
}
