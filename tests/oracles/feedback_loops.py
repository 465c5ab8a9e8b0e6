"""Feedback alignment by hand: a two-layer net over floats, after 002, Eq. 8 to 10. Imports nothing from the package."""

import math


def gradients(x, target, W1, W2, B2):
    """Gradients of ½ Σ (W2 tanh(W1 x) − target)² for one example, the error sent down through B2 in place of W2."""
    a = [sum(w * xi for w, xi in zip(row, x, strict=True)) for row in W1]
    z = [math.tanh(ai) for ai in a]
    y = [sum(w * zi for w, zi in zip(row, z, strict=True)) for row in W2]
    top = [yi - ti for yi, ti in zip(y, target, strict=True)]
    hidden = [(1 - z[j] ** 2) * sum(B2[i][j] * top[i] for i in range(len(top))) for j in range(len(z))]
    return [[d * xi for xi in x] for d in hidden], [[d * zi for zi in z] for d in top]


def convolution_sent_down(post, kernel, size, stride, padding):
    """What one output channel's post sends to one input channel of a size × size image through a kernel."""
    sent = [[0.0] * size for _ in range(size)]
    for r, row in enumerate(post):
        for c, p in enumerate(row):
            for i, weights in enumerate(kernel):
                for j, w in enumerate(weights):
                    y, x = r * stride + i - padding, c * stride + j - padding
                    if 0 <= y < size and 0 <= x < size:
                        sent[y][x] += p * w
    return sent
