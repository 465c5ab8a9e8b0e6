"""Wrong answers to the exercises of chapter 03, the likely ones: each must be turned down with a reason."""

import torch


def by_hand_without_diagonal(a, b):
    m, s, t, u = len(a), a.sum(), b.sum(), (a * b).sum()
    first = (u**2 - (a * a * b * b).sum()) / (m * (m - 1))
    second, third = s**2 * t**2 / m**4, s * t * u / m**3
    return first + second - 2 * third, first - second


def by_hand_with_third_once(a, b):
    m, s, t, u = len(a), a.sum(), b.sum(), (a * b).sum()
    first, second, third = u**2 / m**2, s**2 * t**2 / m**4, s * t * u / m**3
    return first + second - third, first - second


def by_hand_in_the_other_order(a, b):
    m, s, t, u = len(a), a.sum(), b.sum(), (a * b).sum()
    first, second, third = u**2 / m**2, s**2 * t**2 / m**4, s * t * u / m**3
    return first - second, first + second - 2 * third


def by_hand_with_a_plus_in_phsic(a, b):
    m, s, t, u = len(a), a.sum(), b.sum(), (a * b).sum()
    first, second, third = u**2 / m**2, s**2 * t**2 / m**4, s * t * u / m**3
    return first + second - 2 * third, first + second


def hsic_by_trace(K, L):
    m = len(K)
    H = torch.eye(m, dtype=K.dtype) - 1 / m
    return torch.trace(K @ H @ L @ H) / m**2


def hsic_with_one_over_m_minus_one(K, L):
    m = len(K)
    return ((K * L).mean() + K.mean() * L.mean() - 2 * (K.mean(0) * L.mean(0)).mean()) * m**2 / (m - 1) ** 2


def hsic_that_is_phsic(K, L):
    return (K * L).mean() - K.mean() * L.mean()


def hsic_by_triples(K, L):
    third = torch.einsum("ik,jk->ijk", K, L).mean()
    return (K * L).mean() + K.mean() * L.mean() - 2 * third


def matching_with_the_whole_balance(K, L, balance):
    K, L = K - K.mean(), L - L.mean()
    return ((K - balance * L) ** 2).mean(), balance**2 * (L**2).mean()


def matching_without_centring(K, L, balance):
    return ((K - balance / 2 * L) ** 2).mean(), balance**2 / 4 * (L**2).mean()


def matching_that_repeats_the_objective(K, L, balance):
    phsic = (K * K).mean() - K.mean() ** 2 - balance * ((L * K).mean() - L.mean() * K.mean())
    return phsic, torch.zeros(())


def matching_with_everything_in_the_constant(K, L, balance):
    phsic = (K * K).mean() - K.mean() ** 2 - balance * ((L * K).mean() - L.mean() * K.mean())
    return torch.zeros(()), -phsic


def matching_with_the_sign_of_the_constant(K, L, balance):
    K, L = K - K.mean(), L - L.mean()
    return ((K - balance / 2 * L) ** 2).mean(), -(balance**2) / 4 * (L**2).mean()


WRONG = {
    "03-1": [
        by_hand_without_diagonal,
        by_hand_with_third_once,
        by_hand_in_the_other_order,
        by_hand_with_a_plus_in_phsic,
        lambda a, b: 0.25,
    ],
    "03-2": [hsic_by_trace, hsic_with_one_over_m_minus_one, hsic_that_is_phsic, hsic_by_triples, lambda K, L: K * L],
    "03-3": [
        ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]),  # dependent, both positive
        ([0, 0, 0, 0, 3, -3], [-1, 1, -1, 1, 0, 0]),  # negative, but not below −0.01
        ([0, 0, 0, 3, -3], [-1, 1, 0, 0, 0]),  # five points
        ([0, 0, 0, 0, 3, float("nan")], [-1, 1, -1, 1, 0, 0]),
    ],
    "03-4": [
        matching_with_the_whole_balance,
        matching_without_centring,
        matching_that_repeats_the_objective,
        matching_with_everything_in_the_constant,
        matching_with_the_sign_of_the_constant,
    ],
    "03-5": [
        {0.9: (0.01, 0.2), 0.99: (0.002, 0.1)},  # two decay rates
        {0.9: (float("nan"), 0.2), 0.99: (0.01, 0.1), 0.5: (0.1, 0.3)},
        {0.9: (0.01, 0.2), 0.99: (0.002, 0.0), 0.5: (0.1, 0.3)},  # one stream at the slowest
        {0.9: (0.01, 0.1), 0.99: (0.01, 0.1), 0.5: (0.01, 0.1)},  # decay without effect
        {0.9: (0.01, 0.2), 1.5: (0.002, 0.1), 0.5: (0.1, 0.3)},
    ],
}
