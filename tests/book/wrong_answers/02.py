"""Wrong answers to the exercises of chapter 02, the likely ones: each must be turned down with a reason."""

import torch


def ghost(t):
    return t - t.detach()


def dense_that_is_backprop(x, weight, feedback):
    return x @ weight.T


def dense_that_computes_with_both(x, weight, feedback):
    return x.detach() @ weight.T + x @ feedback.T


def dense_that_sends_both(x, weight, feedback):
    return x @ weight.T + ghost(x @ feedback.T)


def dense_with_a_feedback_that_never_learns(x, weight, feedback):
    return x.detach() @ weight.T + ghost(x @ feedback.detach().T)


def dense_that_blocks_the_weight(x, weight, feedback):
    return x.detach() @ weight.detach().T + ghost(x @ feedback.T)


def chain_with_the_other_feedback(w, b):
    return w[0] ** 2 - 2 * b[1] * w[1], w[1] ** 2 - 2 * b[0] * w[2]


def chain_twice_the_same(w, b):
    first = w[0] ** 2 - 2 * b[0] * w[1]
    return first, 3 * first


def chain_without_the_two(w, b):
    return w[0] ** 2 - b[0] * w[1], w[1] ** 2 - b[1] * w[2]


def chain_of_backprop(w, b):
    return w[0] ** 2 - w[1] ** 2, w[1] ** 2 - w[2] ** 2


def chain_of_constants(w, b):
    return b[0], b[1]


def step_with_the_sign_last(weight, gradient, velocity, rate, momentum, decay):
    velocity = momentum * velocity + gradient + decay * weight
    return weight - rate * velocity.sign(), velocity


def step_that_decays_before_the_sign(weight, gradient, velocity, rate, momentum, decay):
    velocity = momentum * velocity + (gradient + decay * weight).sign()
    return weight - rate * velocity, velocity


def step_with_the_gradient_itself(weight, gradient, velocity, rate, momentum, decay):
    velocity = momentum * velocity + gradient + decay * weight
    return weight - rate * velocity, velocity


def step_that_moves_at_zero(weight, gradient, velocity, rate, momentum, decay):
    sign = torch.where(gradient >= 0, 1.0, -1.0)
    velocity = momentum * velocity + sign + decay * weight
    return weight - rate * velocity, velocity


def step_uphill(weight, gradient, velocity, rate, momentum, decay):
    velocity = momentum * velocity + gradient.sign() + decay * weight
    return weight + rate * velocity, velocity


def feedback_left_alone(B, pre, error):
    return torch.zeros_like(B)


def feedback_that_only_decays(B, pre, error):
    return -0.01 * B


def feedback_of_the_wrong_sign(B, pre, error):
    return -0.2 * error.T @ pre / len(pre) - 0.01 * B


def feedback_that_wanders(B, pre, error):
    return 0.01 * torch.randn(B.shape, dtype=B.dtype, generator=torch.Generator().manual_seed(0))


def feedback_of_the_wrong_shape(B, pre, error):
    return 0.2 * pre.T @ error / len(pre)


WRONG = {
    "02-1": [
        dense_that_is_backprop,
        dense_that_computes_with_both,
        dense_that_sends_both,
        dense_with_a_feedback_that_never_learns,
        dense_that_blocks_the_weight,
    ],
    "02-2": [
        chain_with_the_other_feedback,
        chain_twice_the_same,
        chain_without_the_two,
        chain_of_backprop,
        chain_of_constants,
    ],
    "02-3": [
        ((0.5, -0.5), (0.0, -3.0)),  # the two exchanged
        ((0.0, -3.0), (0.0, 0.0)),  # the saddle itself, already answered
        ((0.0, -3.0), (1.0, 1.0)),  # nothing to learn
        ((0.0, -30.0), (0.5, -0.5)),  # outside the square
        ((0.0, 0.2), (0.5, -0.5)),
    ],
    "02-4": [
        step_with_the_sign_last,
        step_that_decays_before_the_sign,
        step_with_the_gradient_itself,
        step_that_moves_at_zero,
        step_uphill,
    ],
    "02-5": [
        feedback_left_alone,
        feedback_that_only_decays,
        feedback_of_the_wrong_sign,
        feedback_that_wanders,
        feedback_of_the_wrong_shape,
    ],
}
