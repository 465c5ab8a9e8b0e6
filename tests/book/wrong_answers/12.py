"""Three or more wrong answers to each exercise of chapter 12, the likely ones; each must be told why it is wrong."""


def _ways(s, V):
    c = int(s.argmax())
    return c, [k for k in range(len(s)) if k != c]


def reach_of_the_second_best(s, V):
    c, rivals = _ways(s, V)
    k = max(rivals, key=lambda r: s[r])
    return (s[c] - s[k]) / (V[c] - V[k]).abs().max()


def reach_in_l2(s, V):
    c, rivals = _ways(s, V)
    return min((s[c] - s[k]) / (V[c] - V[k]).norm() for k in rivals)


def reach_in_l_infinity(s, V):  # the norms are exchanged
    c, rivals = _ways(s, V)
    return min((s[c] - s[k]) / (V[c] - V[k]).abs().sum() for k in rivals)


def reach_by_one_class(s, V):
    c, rivals = _ways(s, V)
    return min((s[c] - s[k]) / V[c].abs().max() for k in rivals)


def reach_is_the_lead(s, V):
    c, rivals = _ways(s, V)
    return min(s[c] - s[k] for k in rivals)


def _nearest(e, V, b):
    s = V @ e + b
    c, rivals = _ways(s, V)
    k = min(rivals, key=lambda r: (s[c] - s[r]) / (V[c] - V[r]).abs().max())
    return V[c] - V[k], s[c] - s[k]


def push_along_the_weights(e, V, b):  # shortest in L2
    w, lead = _nearest(e, V, b)
    return -lead * w / (w @ w)


def push_the_wrong_way(e, V, b):
    w, lead = _nearest(e, V, b)
    unit = int(w.abs().argmax())
    push = e * 0
    push[unit] = lead / w[unit]
    return push


def push_every_unit(e, V, b):
    w, lead = _nearest(e, V, b)
    return -lead / w.abs().sum() * w.sign()


def push_without_sign(e, V, b):
    w, lead = _nearest(e, V, b)
    unit = int(w.abs().argmax())
    push = e * 0
    push[unit] = -lead / w[unit].abs()
    return push


def push_past_the_second_best(e, V, b):
    s = V @ e + b
    c, rivals = _ways(s, V)
    w = V[c] - V[max(rivals, key=lambda r: s[r])]
    unit = int(w.abs().argmax())
    push = e * 0
    push[unit] = -(s[c] - s[max(rivals, key=lambda r: s[r])]) / w[unit]
    return push


def the_share_itself(distances, rho, margin):  # known only to whoever sees all distances
    return 1.0 if rho <= margin else float((distances >= rho).double().mean())


def bound_without_the_margin(distances, rho, margin):
    return 1.0 if rho <= margin else min(1.0, float(distances.mean() / rho))


def bound_over_the_reach(distances, rho, margin):
    return 1.0 if rho <= margin else min(1.0, float((distances - margin).clamp(min=0).mean() / rho))


def bound_above_one(distances, rho, margin):
    return float((distances - margin).clamp(min=0).mean() / (rho - margin))


def bound_with_negative_pulls(distances, rho, margin):
    return 1.0 if rho <= margin else min(1.0, max(0.0, float((distances - margin).mean() / (rho - margin))))


WRONG = {
    "12-1": [reach_of_the_second_best, reach_in_l2, reach_in_l_infinity, reach_by_one_class, reach_is_the_lead],
    "12-2": [
        push_along_the_weights,
        push_the_wrong_way,
        push_every_unit,
        push_without_sign,
        push_past_the_second_best,
    ],
    "12-3": [
        the_share_itself,
        bound_without_the_margin,
        bound_over_the_reach,
        bound_above_one,
        bound_with_negative_pulls,
    ],
    "12-4": [
        lambda counts: (counts.amax(1) / counts.sum(1).clamp(min=1)).mean(),  # families weighted alike
        lambda counts: counts.amax(0).sum() / counts.sum(),  # the best family of every class
        lambda counts: counts.sum(0).max() / counts.sum(),  # one answer for all
        lambda counts: 1 - counts.amin(1).sum() / counts.sum(),
    ],
}
