"""Paper 001 written out as loops over floats: slow, obvious, and independent of the package (it imports nothing of it).

A point is a list of floats, a set of points a list of points, a kernel matrix a list of rows. Equation numbers are the
paper's; Eq. 29 holds for centred variables, which the paper leaves unsaid.
"""

import math


def linear(a, b):  # Eq. 24
    return sum(x * y for x, y in zip(a, b, strict=True))


def cosine(a, b):  # Eq. 25; no direction, no similarity
    lengths = math.sqrt(linear(a, a)) * math.sqrt(linear(b, b))
    return linear(a, b) / lengths if lengths else 0.0


def gaussian(a, b, sigma):  # Eq. 26
    return math.exp(-sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / (2 * sigma**2))


def table(points, kernel):
    return [[kernel(a, b) for b in points] for a in points]


def centred_one_hot(label, num_classes):  # section 3, above Eq. 10
    return [(1.0 if c == label else 0.0) - 1 / num_classes for c in range(num_classes)]


def label_table(labels, num_classes):  # Eq. 35, left-hand side
    return table([centred_one_hot(y, num_classes) for y in labels], cosine)


def group_statistics(point, groups, offset):  # Eq. 13: deviations and smoothed variances, group by group
    size = len(point) // groups
    deviations, variances = [], []
    for g in range(groups):
        members = point[g * size : (g + 1) * size]
        mean = sum(members) / size
        deviations.append([x - mean for x in members])
        variances.append(offset / size + sum((x - mean) ** 2 for x in members) / size)
    return deviations, variances


def grouped(point, groups, power, offset):  # Eq. 14
    _, variances = group_statistics(point, groups, offset)
    strengths = [u ** (1 - power) for u in variances]
    return [s - sum(strengths) / groups for s in strengths]


def divided(point, groups, power, offset):  # Eq. 17: r
    deviations, variances = group_statistics(point, groups, offset)
    return [x / u**power for row, u in zip(deviations, variances, strict=True) for x in row]


def hsic_loops(K, L):  # Eq. 5
    m = len(K)
    every = range(m)
    first = sum(K[i][j] * L[i][j] for i in every for j in every) / m**2
    second = sum(K[i][j] for i in every for j in every) * sum(L[k][l] for k in every for l in every) / m**4
    third = sum(K[i][k] * L[j][k] for i in every for j in every for k in every) / m**3
    return first + second - 2 * third


def phsic_loops(K, L):  # Eq. 34
    m = len(K)
    every = range(m)
    first = sum(K[i][j] * L[i][j] for i in every for j in every) / m**2
    second = sum(K[i][j] for i in every for j in every) * sum(L[q][l] for q in every for l in every) / m**4
    return first - second


def centred(K, i, j):  # Eq. 11
    m = len(K)
    return K[i][j] - sum(sum(row) for row in K) / m**2


def objective_loops(K, L, balance, estimate=phsic_loops):  # Eq. 9
    return estimate(K, K) - balance * estimate(L, K)


def cross_covariance_norm(a, b):  # Eq. 29, with centred variables
    m = len(a)
    mean_a = [sum(p[i] for p in a) / m for i in range(len(a[0]))]
    mean_b = [sum(p[j] for p in b) / m for j in range(len(b[0]))]
    total = 0.0
    for i in range(len(a[0])):
        for j in range(len(b[0])):
            entry = sum((p[i] - mean_a[i]) * (q[j] - mean_b[j]) for p, q in zip(a, b, strict=True)) / m
            total += entry**2
    return total


def row_mean_variance(K):  # Eq. 32, right-hand side: 2 Var(μ)
    m = len(K)
    means = [sum(row) / m for row in K]
    centre = sum(means) / m
    return 2 * sum((mu - centre) ** 2 for mu in means) / m


def linear_label_signal(labels, i, j):  # Eq. 36, right-hand side, class frequencies from the labels
    n = len(labels)
    frequency = {c: labels.count(c) / n for c in labels}
    same = 1.0 if labels[i] == labels[j] else 0.0
    return same + sum(p**2 for p in frequency.values()) - frequency[labels[i]] - frequency[labels[j]]
