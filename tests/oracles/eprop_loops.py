"""003's GRU with blocked gates and its eligibility traces as plain loops over floats. Imports nothing from the package.

Weights are dictionaries: W["ir"][j][k], W["hz"][j][k], b["ir"][j], and so on, for gates r, z and the proposal n.
"""

from math import exp, tanh

GATES = ("r", "z", "n")


def sigmoid(a):
    return 1 / (1 + exp(-a))


def arrives(W, b, source, gate, values, j):  # one neuron's input to one gate
    return b[source + gate][j] + sum(w * v for w, v in zip(W[source + gate][j], values, strict=True))


def neuron(W, b, x, h, j):  # Eq. 18-20
    r = sigmoid(arrives(W, b, "i", "r", x, j) + arrives(W, b, "h", "r", h, j))
    z = sigmoid(arrives(W, b, "i", "z", x, j) + arrives(W, b, "h", "z", h, j))
    recurrent = arrives(W, b, "h", "n", h, j)
    n = tanh(arrives(W, b, "i", "n", x, j) + r * recurrent)
    return r, z, n, recurrent


def step(W, b, x, h):  # Eq. 21
    found = [neuron(W, b, x, h, j) for j in range(len(h))]
    return [(1 - z) * n + z * old for (_, z, n, _), old in zip(found, h, strict=True)]


def updates(W, b, xs, told, h, self_synapses=False):
    """Sum over time of what a neuron is told times the trace of each of its synapses, one synapse at a time."""
    units, inputs = len(h), len(xs[0])
    dW = {s + g: [[0.0] * (inputs if s == "i" else units) for _ in range(units)] for s in "ih" for g in GATES}
    db = {s + g: [0.0] * units for s in "ih" for g in GATES}
    for j in range(units):
        for source in "ih":
            for gate in GATES:
                for k in (*range(len(dW[source + gate][j])), None):  # None: the bias, whose pre is always 1
                    trace, state, total = 0.0, list(h), 0.0
                    for x, signal in zip(xs, told, strict=True):
                        r, z, n, recurrent = neuron(W, b, x, state, j)
                        pre = 1.0 if k is None else (x if source == "i" else state)[k]
                        slopes = {
                            "r": (1 - z) * (1 - n**2) * recurrent * r * (1 - r),
                            "z": (state[j] - n) * z * (1 - z),
                            "n": (1 - z) * (1 - n**2) * (r if source == "h" else 1.0),
                        }
                        keep = z
                        if self_synapses:
                            onto_n = (1 - z) * (1 - n**2) * r
                            keep += slopes["r"] * W["hr"][j][j] + slopes["z"] * W["hz"][j][j] + onto_n * W["hn"][j][j]
                        trace = keep * trace + slopes[gate] * pre
                        total += signal[j] * trace
                        state = step(W, b, x, state)
                    if k is None:
                        db[source + gate][j] = total
                    else:
                        dW[source + gate][j][k] = total
    return dW, db
