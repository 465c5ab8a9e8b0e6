"""Paper 002's Algorithm 1 on dense tanh layers without bias, as plain loops over floats. Imports nothing from the
package."""

from math import tanh


def layer(W, x):
    return [tanh(sum(w * v for w, v in zip(row, x, strict=True))) for row in W]


def linear(W, x):
    return [sum(w * v for w, v in zip(row, x, strict=True)) for row in W]


def forward(weights, x):  # lines 5-7
    seen = []
    for W in weights:
        x = layer(W, x)
        seen.append(x)
    return seen


def head_gradient(head, z, label):
    """∂L/∂z and ∂L/∂head of L = ½ ‖head z - e_label‖², one example."""
    error = [y - (i == label) for i, y in enumerate(linear(head, z))]
    down = [sum(error[i] * head[i][j] for i in range(len(head))) for j in range(len(z))]
    return down, [[e * v for v in z] for e in error]


def targets(seen, inverses, gradient, step):  # lines 14-17; inverses[l] from layer l + 1 to layer l
    found = [[z - step * g for z, g in zip(seen[-1], gradient, strict=True)]]
    for l in range(len(seen) - 2, -1, -1):
        old, new = layer(inverses[l], seen[l + 1]), layer(inverses[l], found[0])
        found.insert(0, [z - o + n for z, o, n in zip(seen[l], old, new, strict=True)])
    return found


def local_update(W, pre, target):
    """-∂‖f(pre) - target‖²/∂W (line 20), f = tanh(W pre), one example; for an inverse (line 10) the target is what the
    layer was given."""
    z = layer(W, pre)
    return [[2 * (t - v) * (1 - v * v) * x for x in pre] for t, v in zip(target, z, strict=True)]


def step(weights, head, inverses, noise, data, eta, rate, inverse_rate):
    """Weights, head and inverses after one step of gradient descent on a batch; the inverses' losses are means.

    noise[n][l] is added to what layer l + 1 is given, where its inverse learns. Everything is computed with the
    weights from before the step.
    """
    sums = {"weights": zeros(weights), "inverses": zeros(inverses), "head": zeros([head])}
    for (x, label), of_example in zip(data, noise, strict=True):
        seen = forward(weights, x)
        gradient, of_head = head_gradient(head, seen[-1], label)
        wanted = targets(seen, inverses, gradient, eta)
        for l, W in enumerate(weights):
            add(sums["weights"][l], local_update(W, seen[l - 1] if l else x, wanted[l]), rate)
        for l, V in enumerate(inverses):
            given = [z + e for z, e in zip(seen[l], of_example[l], strict=True)]
            change = local_update(V, layer(weights[l + 1], given), given)
            add(sums["inverses"][l], change, inverse_rate / (len(data) * len(given)))
        add(sums["head"][0], of_head, -rate)
    for old, new in ((weights, sums["weights"]), (inverses, sums["inverses"]), ([head], sums["head"])):
        for W, change in zip(old, new, strict=True):
            add(W, change, 1)
    return weights, head, inverses


def zeros(matrices):
    return [[[0.0] * len(row) for row in W] for W in matrices]


def add(W, change, factor):
    for row, of_row in zip(W, change, strict=True):
        for j, value in enumerate(of_row):
            row[j] += factor * value
