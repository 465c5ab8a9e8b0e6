"""Three or more likely wrong answers to each exercise of chapter 04; every one must be told why it is wrong."""

import math

import torch


def _alike(distance, sigma):
    return math.exp(-(distance**2) / (2 * sigma**2))


def factor_without_minus(distance, same_class, sigma, balance, mean_similarity):
    alike, label = _alike(distance, sigma), 1 if same_class else -1
    return (balance * label - 2 * (alike - mean_similarity)) * alike / sigma**2


def factor_without_brake(distance, same_class, sigma, balance, mean_similarity):
    alike, label = _alike(distance, sigma), 1 if same_class else -1
    return -(balance * label - 2 * (alike - mean_similarity)) / sigma**2


def factor_without_centring(distance, same_class, sigma, balance, mean_similarity):
    alike, label = _alike(distance, sigma), 1 if same_class else -1
    return -(balance * label - 2 * alike) * alike / sigma**2


def factor_with_a_centred_brake(distance, same_class, sigma, balance, mean_similarity):
    alike, label = _alike(distance, sigma), 1 if same_class else -1
    return -(balance * label - 2 * (alike - mean_similarity)) * (alike - mean_similarity) / sigma**2


def factor_without_sigma(distance, same_class, sigma, balance, mean_similarity):
    alike, label = _alike(distance, sigma), 1 if same_class else -1
    return -(balance * label - 2 * (alike - mean_similarity)) * alike


def pairs_in_a_table(M, z, x):
    return torch.einsum("ij,ijn,ijp->np", M, z[:, None] - z, x[:, None] - x) / len(M) ** 2


def pairs_as_a_sum(M, z, x):
    return 2 * (M.sum(1, keepdim=True) * z - M @ z).T @ x


def pairs_without_two(M, z, x):
    return (M.sum(1, keepdim=True) * z - M @ z).T @ x / len(M) ** 2


def pairs_without_the_own_term(M, z, x):
    return -2 * (M @ z).T @ x / len(M) ** 2


def pairs_transposed(M, z, x):
    return 2 * x.T @ (M.sum(1, keepdim=True) * z - M @ z) / len(M) ** 2


def group_divided_by_the_deviation(deviation, u):
    return deviation / u[:, None] ** 0.5, 2 / deviation.shape[1]


def group_without_two(deviation, u):
    return deviation / u[:, None], 1 / deviation.shape[1]


def group_with_all_in_r(deviation, u):
    return 2 * deviation / (u[:, None] * deviation.shape[1]), 1.0


def group_with_all_in_the_constant(deviation, u):
    return deviation, 2 / (u[:, None] * deviation.shape[1])


def cosine_without_projection(a, b):
    return b / (a.norm() * b.norm())


def cosine_of_unit_vectors(a, b):
    a, b = a / a.norm(), b / b.norm()
    return b - (a @ b) * a


def cosine_by_the_other(a, b):
    a_unit, b_unit = a / a.norm(), b / b.norm()
    return (a_unit - (a_unit @ b_unit) * b_unit) / b.norm()


def cosine_uphill_down(a, b):
    return -cosine_of_unit_vectors(a, b) / a.norm()


WRONG = {
    "04-1": [
        factor_without_minus,
        factor_without_brake,
        factor_without_centring,
        factor_with_a_centred_brake,
        factor_without_sigma,
    ],
    "04-2": [pairs_in_a_table, pairs_as_a_sum, pairs_without_two, pairs_without_the_own_term, pairs_transposed],
    "04-3": [
        group_divided_by_the_deviation,
        group_without_two,
        group_with_all_in_r,
        group_with_all_in_the_constant,
        lambda deviation, u: deviation / u[:, None],
    ],
    "04-4": [cosine_without_projection, cosine_of_unit_vectors, cosine_by_the_other, cosine_uphill_down],
    "04-5": [
        {0.2: 0.6, 0.5: 0.0},  # two powers
        {0.2: 0.8, 0.35: 0.65, 0.5: 0.5, 0.8: 0.2},  # u taken for a deviation
        {0.2: 0.6, 0.35: 0.3, 0.5: float("nan"), 0.8: -0.6},
        {0.2: -0.6, 0.35: -0.3, 0.5: 0.0, 0.8: 0.6},  # the wrong way round
        [0.6, 0.3, 0.0, -0.6],
    ],
}
