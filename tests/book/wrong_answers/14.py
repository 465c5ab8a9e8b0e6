"""Three or more wrong answers to each exercise of chapter 14, the likely ones; each must be told why it is wrong."""

import torch


def shared_by_all(weights, q):
    return weights.mean(0).expand_as(weights)


def shared_in_blocks(weights, q):
    return torch.cat([block.mean(0).expand_as(block) for block in weights.split(q)])


def shared_by_whole_rounds(weights, q):
    rounds = weights[: len(weights) // q * q].view(-1, q, weights.shape[1]).mean(0)
    return rounds[torch.arange(len(weights)) % q]


def first_of_each_module(weights, q):
    return weights[torch.arange(len(weights)) % q]


def step(w, x, w_init, pull, kept, *, sign=-1):
    z = w @ x
    return sign * torch.outer(z - kept * z.mean(), x) - pull * (w - w_init)


def noisy_end(w_init, pull, alpha, s, *, kept=None):
    kept = alpha / (1 + alpha) if kept is None else kept
    mean = pull / (1 - kept + s + pull) * w_init.mean(0)
    return (kept * mean + pull * w_init) / (1 + s + pull)


def ratios(w):
    return w.mean(0) ** 2 / w.var(0, correction=0)


def waking(alpha, pull, *, fade=None, until=40.0):
    t = torch.linspace(0, until, 100_001, dtype=torch.float64)
    spread, fade = 1 + pull, 1 / (1 + alpha) + pull if fade is None else fade
    s = pull / spread + (1 - pull / spread) * torch.exp(-spread * t)
    m = pull / fade + (1 - pull / fade) * torch.exp(-fade * t)
    return t[(s / m).argmin()]


WRONG = {
    "14-1": [shared_by_all, shared_in_blocks, shared_by_whole_rounds, first_of_each_module],
    "14-2": [
        lambda w, x, w_init, pull, alpha: step(w, x, w_init, pull, 1.0),  # exact means, Eq. 13
        lambda w, x, w_init, pull, alpha: step(w, x, w_init, pull, alpha / (1 + alpha), sign=1),  # Hebbian
        lambda w, x, w_init, pull, alpha: step(w, x, w_init, pull, 1 / (1 + alpha)),  # what is left over
        lambda w, x, w_init, pull, alpha: step(w, x, 0 * w_init, pull, alpha / (1 + alpha)),  # pulled to zero
        lambda w, x, w_init, pull, alpha: step(w, x, w_init, -pull, alpha / (1 + alpha)),  # pushed away
    ],
    "14-3": [
        lambda w_init, pull, alpha, noise: noisy_end(w_init, pull, alpha, 0.0),  # Eq. 25
        lambda w_init, pull, alpha, noise: noisy_end(w_init, pull, alpha, noise**2),  # own noise not in the mean
        lambda w_init, pull, alpha, noise: noisy_end(w_init, pull, alpha, noise**2 * (1 - 1 / len(w_init))),
        lambda w_init, pull, alpha, noise: noisy_end(w_init, pull, alpha, noise**2 * (1 - 1 / len(w_init)), kept=1.0),
        lambda w_init, pull, alpha, noise: w_init.mean(0),
    ],
    "14-4": [
        lambda alpha, tau: tau / (1 + alpha),  # no overshoot
        lambda alpha, tau: 2 * tau,  # of a circuit without inhibition
        lambda alpha, tau: 2 * tau / alpha**0.5,
        lambda alpha, tau: 2 * tau - alpha,
    ],
    "14-5": [
        lambda w: ratios(w).mean(),  # Eq. 6
        lambda w: w.mean(0).square().sum() / w.var(0, correction=0).sum(),  # pooled: units matter
        lambda w: ratios(w).log().mean().exp(),  # geometric: the bad one drowns a little later
        lambda w: (w.var(0, correction=0) / w.mean(0) ** 2).mean(),  # not inverted
        lambda w: ratios(w).median(),
    ],
    "14-6": [
        lambda alpha, pull: 40.0,  # as long as possible
        lambda alpha, pull: torch.tensor(1.0 + alpha),  # the time constant of the mean
        lambda alpha, pull: waking(alpha, pull, fade=1 / (1 + alpha)),  # no pull on the mean
        lambda alpha, pull: waking(alpha, pull, until=2.0),  # too short a grid
        lambda alpha, pull: 1 / (1 + pull),
    ],
}
