"""Paper 004's sleep as loops over floats: nothing of the package. w is [neuron][weight], x is [input][weight]."""


def dot(a, b):
    return sum(p * q for p, q in zip(a, b, strict=True))


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def objective(w, x, w_init, decay):  # Eq. 11, the double sum as printed
    disagreement = 0.0
    for pattern in x:
        z = [dot(row, pattern) for row in w]
        disagreement += sum((a - b) ** 2 for a in z for b in z)
    pull = sum((a - b) ** 2 for row, start in zip(w, w_init, strict=True) for a, b in zip(row, start, strict=True))
    return disagreement / (4 * len(x) * len(w)) + decay / 2 * pull


def update(w, x, w_init, decay, inhibition=None):  # Eq. 13, 21; x[m][n] is what neuron n sees
    kept = 1.0 if inhibition is None else inhibition / (1 + inhibition)
    change = [[-decay * (a - b) for a, b in zip(row, start, strict=True)] for row, start in zip(w, w_init, strict=True)]
    for pattern in x:
        z = [dot(row, own) for row, own in zip(w, pattern, strict=True)]
        for n, own in enumerate(pattern):
            for p, rate in enumerate(own):
                change[n][p] -= (z[n] - kept * mean(z)) * rate / len(x)
    return change


def snr(w):  # Eq. 6
    total = 0.0
    for column in zip(*w, strict=True):
        total += mean(column) ** 2 / mean((a - mean(column)) ** 2 for a in column)
    return total / len(w[0])


def share(weight, kernel_size):  # weight[row][column] is a list of floats; section 5
    height, width = len(weight), len(weight[0])
    shared = [[None] * width for _ in range(height)]
    for h in range(height):
        for w in range(width):
            module = [
                weight[r][c]
                for r in range(height)
                for c in range(width)
                if (r - h) % kernel_size == 0 and (c - w) % kernel_size == 0
            ]
            shared[h][w] = [mean(column) for column in zip(*module, strict=True)]
    return shared


def circuit(drive, inhibition, dt, tau, bias, r, r_inh):  # Eq. 8, both derivatives from the old rates
    history = []
    for z in drive:
        new = [a + dt / tau * (-a + zi - inhibition * r_inh + bias) for a, zi in zip(r, z, strict=True)]
        r_inh += dt / tau * (-r_inh + mean(r) - bias)
        r = new
        history.append((list(r), r_inh))
    return history
