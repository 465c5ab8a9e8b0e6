"""Paper 002's losses and error signals as plain loops over floats. Imports nothing from the package."""

from math import exp, log, sqrt


def cosine(p, q):
    return sum(x * y for x, y in zip(p, q, strict=True)) / sqrt(sum(x * x for x in p) * sum(y * y for y in q))


def nt_xent_loops(a, b, temperature):  # Eq. 1
    total, n = 0.0, len(a)
    for own, other in ((a, b), (b, a)):
        for s in range(n):
            partner = exp(cosine(own[s], other[s]) / temperature)
            same_list = sum(exp(cosine(own[s], own[t]) / temperature) for t in range(n) if t != s)
            other_list = sum(exp(cosine(own[s], other[t]) / temperature) for t in range(n))
            total -= log(partner / (same_list + other_list))
    return total


def l1(p, q):
    return sum(abs(x - y) for x, y in zip(p, q, strict=True))


def sgn(x):
    return (x > 0) - (x < 0)


def neighbours(s, n, negatives):
    """N_s: the next `negatives` things of the batch, or all others."""
    return [t for t in range(n) if t != s and (negatives is None or s < t <= s + negatives)]


def hinge_loops(a, b, m1, m2, negatives):  # Eq. 2
    total = 0.0
    for s in range(len(a)):
        total += max(0.0, l1(a[s], b[s]) - m1)
        for t in neighbours(s, len(a), negatives):
            total += max(0.0, m2 - l1(a[s], b[t]))
    return total


def published_hinge_loops(a, b, m1, m2, count):
    """The published run's reading of `count` negatives: offsets 0 to count - 1, where 0 is the positive itself; every
    other offset at weight 1 / count."""
    total, n = 0.0, len(a)
    for offset in range(count):
        for s in range(n - offset):
            distance = l1(a[s], b[s + offset])
            total += max(0.0, distance - m1) if offset == 0 else max(0.0, m2 - distance) / count
    return total


def signals_loops(a, b, m1, m2, negatives, stop):  # Eq. 4-6, each with the minus of Eq. 3
    n, d = len(a), len(a[0])
    to_a, to_b = [[0.0] * d for _ in range(n)], [[0.0] * d for _ in range(n)]
    for s in range(n):
        for i in range(d):
            far = l1(a[s], b[s]) > m1
            to_a[s][i] -= far * sgn(a[s][i] - b[s][i])
            to_b[s][i] += far * sgn(a[s][i] - b[s][i])
            for t in neighbours(s, n, negatives):
                near = l1(a[s], b[t]) < m2
                to_a[s][i] += near * sgn(a[s][i] - b[t][i])
                to_b[t][i] -= near * sgn(a[s][i] - b[t][i])
    return ([[0.0] * d for _ in range(n)] if stop else to_a), to_b


def update_loops(pre_a, pre_b, weight, m1, m2, negatives, stop):  # Eq. 3 and 7, a dense head
    def embed(pre):
        return [[sum(w * x for w, x in zip(row, p, strict=True)) for row in weight] for p in pre]

    to_a, to_b = signals_loops(embed(pre_a), embed(pre_b), m1, m2, negatives, stop)
    dW = [[0.0] * len(weight[0]) for _ in weight]
    for i in range(len(weight)):
        for j in range(len(weight[0])):
            for s in range(len(pre_a)):
                dW[i][j] += to_a[s][i] * pre_a[s][j] + to_b[s][i] * pre_b[s][j]
    return dW
