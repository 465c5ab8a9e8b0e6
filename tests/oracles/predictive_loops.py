"""Paper 003's losses and rules as plain loops over floats. Imports nothing from the package."""

from math import exp, log


def dot(p, q):
    return sum(x * y for x, y in zip(p, q, strict=True))


def times(W, x):
    return [dot(row, x) for row in W]


def transposed(W):
    return [list(column) for column in zip(*W, strict=True)]


def score(c, z, W_pred):  # Eq. 2
    return sum(z[j] * W_pred[j][k] * c[k] for j in range(len(z)) for k in range(len(c)))


def info_nce(c, z, W_pred):  # Eq. 2: one context, the true glance first
    scores = [score(c, candidate, W_pred) for candidate in z]
    top = max(scores)
    return log(sum(exp(u - top) for u in scores)) + top - scores[0]


def hinge(c, z, y, W_pred):  # Eq. 3: one event
    return max(0.0, 1 - y * score(c, z, W_pred))


def gamma(c, z, y, W_pred):  # Eq. 4
    return y if y * score(c, z, W_pred) < 1 else 0


def mean_of_kinds(values, events):
    """The mean over fixations plus the mean over saccades; without any, 0."""
    total = 0.0
    for kind in (1, -1):
        found = [value for value, y in zip(values, events, strict=True) if y == kind]
        total += sum(found) / len(found) if found else 0.0
    return total


def split_hinge(c, z, events, W_pred, W_retro):
    """Twice Eq. 14: both halves' losses, the second with W_retro transposed."""
    back = transposed(W_retro)
    halves = [[hinge(*event, W) for event in zip(c, z, events, strict=True)] for W in (W_pred, back)]
    return sum(mean_of_kinds(half, events) for half in halves)


def relu(a):
    return [max(0.0, x) for x in a]


def clapp_event(x_c, x_z, y, W, W_pred, W_retro=None, one_gate=False):
    """Eq. 6, 7 and 8 for one event and a dense layer of rectified neurons: ΔW^z, ΔW^c, ΔW_pred, ΔW_retro."""
    a_c, a_z = times(W, x_c), times(W, x_z)
    c, z = relu(a_c), relu(a_z)
    back = W_retro or transposed(W_pred)
    g = gamma(c, z, y, W_pred)
    g_c = g if one_gate else gamma(c, z, y, transposed(back))
    dendrite, retrodiction = times(W_pred, c), times(back, z)
    dW_z = [[g * dendrite[j] * (a_z[j] > 0) * x for x in x_z] for j in range(len(W))]
    dW_c = [[g_c * retrodiction[j] * (a_c[j] > 0) * x for x in x_c] for j in range(len(W))]
    dW_pred = [[g * z[j] * c[k] for k in range(len(c))] for j in range(len(z))]
    dW_retro = [[g_c * c[k] * z[j] for j in range(len(z))] for k in range(len(c))]
    return dW_z, dW_c, dW_pred, dW_retro


def cpc_context(x_c, x_z, W, W_pred):
    """Eq. 10-12 for one context and a dense layer of rectified neurons: ascent of log π for W_pred, W^z and W^c."""
    a_c, a_z = times(W, x_c), [times(W, x) for x in x_z]
    c, z = relu(a_c), [relu(a) for a in a_z]
    weights = [exp(score(c, candidate, W_pred)) for candidate in z]
    pi = [w / sum(weights) for w in weights]
    neurons, inputs = range(len(W)), range(len(x_c))
    expected = [sum(p * candidate[j] for p, candidate in zip(pi, z, strict=True)) for j in neurons]
    deviation = [z[0][j] - expected[j] for j in neurons]
    transported, dendrite = times(transposed(W_pred), deviation), times(W_pred, c)
    dW_pred = [[c[k] * deviation[j] for k in neurons] for j in neurons]

    def averaged(j, i):
        return sum(p * (a[j] > 0) * x[i] for p, a, x in zip(pi, a_z, x_z, strict=True))

    dW_z = [[dendrite[j] * ((a_z[0][j] > 0) * x_z[0][i] - averaged(j, i)) for i in inputs] for j in neurons]
    dW_c = [[transported[j] * (a_c[j] > 0) * x_c[i] for i in inputs] for j in neurons]
    return dW_pred, dW_z, dW_c


def pairs_ahead(rows, step, skip):
    """(context, target) places along a sequence: the target is step + skip later."""
    return [(t, t + step + skip) for t in range(rows) if t + step + skip < rows]
