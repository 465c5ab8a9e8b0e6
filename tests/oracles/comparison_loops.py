"""Paper 002's threshold circuit (Appendix A), and what Eq. 5 and 6 ask of it, as plain loops over floats."""


def halves(remembered, now):
    """The two half-sums of the L1 distance: where the memory is above the present, and where it is below."""
    above = sum(max(0.0, h - x) for h, x in zip(remembered, now, strict=True))
    below = sum(max(0.0, x - h) for h, x in zip(remembered, now, strict=True))
    return above, below


def printed(remembered, now, m1, m2):
    """Each half at a threshold of its own; what is passed on is the rectified difference."""
    above, below = halves(remembered, now)
    if above > m1 or below > m2:
        return [max(0.0, h - x) for h, x in zip(remembered, now, strict=True)]
    return [0.0 for _ in now]


def needed_from_partner(remembered, now, m1):  # -δ^b of Eq. 5
    distance = sum(abs(h - x) for h, x in zip(remembered, now, strict=True))
    return [float(distance > m1) * ((h > x) - (h < x)) for h, x in zip(remembered, now, strict=True)]


def needed_from_other(remembered, now, m2):  # -δ^b_t of Eq. 6
    distance = sum(abs(h - x) for h, x in zip(remembered, now, strict=True))
    return [-float(distance < m2) * ((h > x) - (h < x)) for h, x in zip(remembered, now, strict=True)]


def followed(rates, store, dt, tau):
    """Every cell by Euler's method: the lists (h, D⁺, D⁻, S⁺, S⁻) after each step."""
    n = len(rates[0])
    h, u, v, plus, minus = ([0.0] * n for _ in range(5))
    sum_plus = sum_minus = 0.0
    trace = []
    for x, opened in zip(rates, store, strict=True):
        change_plus, change_minus = sum(plus) - sum_plus, sum(minus) - sum_minus
        now = [
            (
                h[i] + dt / tau * opened * (x[i] - h[i]),
                u[i] + dt / tau * (x[i] - u[i]),
                v[i] + dt / tau * (h[i] - v[i]),
                plus[i] + dt / tau * (max(0.0, h[i] - u[i]) - plus[i]),
                minus[i] + dt / tau * (max(0.0, x[i] - v[i]) - minus[i]),
            )
            for i in range(n)
        ]
        h, u, v, plus, minus = (list(values) for values in zip(*now, strict=True))
        sum_plus, sum_minus = sum_plus + dt / tau * change_plus, sum_minus + dt / tau * change_minus
        trace.append((h, plus, minus, sum_plus, sum_minus))
    return trace
