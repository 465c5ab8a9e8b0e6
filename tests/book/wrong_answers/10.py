"""Three or more likely wrong answers to each exercise of chapter 10; every one must be told why it is wrong."""

import torch


def gate_of_the_error(u, y):
    return y * (1 - y * u).clamp(min=0)


def gate_without_sign(u, y):
    return (y * u < 1).double()


def gate_at_zero(u, y):
    return y * (y * u < 0)


def gate_that_lets_the_edge_through(u, y):
    return y * (y * u <= 1)


def increment_down(c, z, W_pred):
    pi = torch.softmax(z @ W_pred @ c, 0)
    return torch.outer(pi @ z - z[0], c)


def increment_without_the_true_one(c, z, W_pred):
    pi = torch.softmax(z[1:] @ W_pred @ c, 0)
    return torch.outer(z[0] - pi @ z[1:], c)


def increment_of_plain_means(c, z, W_pred):
    return torch.outer(z[0] - z.mean(0), c)


def increment_transposed(c, z, W_pred):
    pi = torch.softmax(z @ W_pred @ c, 0)
    return torch.outer(c, z[0] - pi @ z)


def _parts(x_c, x_z, y, W, forth, back, score_z, score_c):
    a_c, a_z = W @ x_c, W @ x_z
    gate_z, gate_c = (y * (y * u < 1) for u in (score_z, score_c))
    part_z = torch.outer(gate_z * (forth @ torch.relu(a_c)) * (a_z > 0), x_z)
    part_c = torch.outer(gate_c * (back @ torch.relu(a_z)) * (a_c > 0), x_c)
    return part_z, part_c


def _scores(x_c, x_z, W, W_pred, W_retro):
    c, z = torch.relu(W @ x_c), torch.relu(W @ x_z)
    return z @ W_pred @ c, c @ W_retro @ z


def rule_with_one_gate(x_c, x_z, y, W, W_pred, W_retro):
    u, _ = _scores(x_c, x_z, W, W_pred, W_retro)
    return sum(_parts(x_c, x_z, y, W, W_pred, W_retro, u, u))


def rule_of_the_new_glance_alone(x_c, x_z, y, W, W_pred, W_retro):
    return _parts(x_c, x_z, y, W, W_pred, W_retro, *_scores(x_c, x_z, W, W_pred, W_retro))[0]


def rule_with_a_half(x_c, x_z, y, W, W_pred, W_retro):
    return sum(_parts(x_c, x_z, y, W, W_pred, W_retro, *_scores(x_c, x_z, W, W_pred, W_retro))) / 2


def rule_with_retro_transposed(x_c, x_z, y, W, W_pred, W_retro):
    return sum(_parts(x_c, x_z, y, W, W_pred, W_retro.T, *_scores(x_c, x_z, W, W_pred, W_retro)))


def _won(a):
    pooled = a.unfold(0, 2, 2).unfold(1, 2, 2).amax((2, 3))
    return a == pooled.repeat_interleave(2, 0).repeat_interleave(2, 1), pooled.numel()


def winners_without_a_share(a):
    return _won(a)[0].double()


def winners_over_all_places(a):
    return _won(a)[0].double() / a.numel()


def everybody_wins(a):
    return torch.ones_like(a) / a.numel()


WRONG = {
    "10-1": [gate_of_the_error, gate_without_sign, gate_at_zero, gate_that_lets_the_edge_through],
    "10-2": [increment_down, increment_without_the_true_one, increment_of_plain_means, increment_transposed],
    "10-3": [
        rule_with_one_gate,
        rule_of_the_new_glance_alone,
        rule_with_a_half,
        rule_with_retro_transposed,
    ],
    "10-4": [winners_without_a_share, winners_over_all_places, everybody_wins],
    "10-5": [(2, 2), (1, 1), (2, 0.5), (0.5, 1)],
}
