"""Three or more likely wrong answers to each exercise of chapter 09; every one must be told why it is wrong."""

import torch


def update_without_two(pre, post, slope, target):
    return ((target - post) * slope).T @ pre


def update_away_from_the_target(pre, post, slope, target):
    return 2 * ((post - target) * slope).T @ pre


def update_without_slope(pre, post, slope, target):
    return 2 * (target - post).T @ pre


def update_as_a_mean(pre, post, slope, target):
    return 2 * ((target - post) * slope).T @ pre / len(pre)


def only_the_step(step, numbers, reduction):
    return step / (numbers if reduction == "mean" else 1)


def the_mean_forgotten(step, numbers, reduction):
    return 2 * step


def the_mean_multiplies(step, numbers, reduction):
    return 2 * step * (numbers if reduction == "mean" else 1)


def targets_without_difference(activities, inverses, gradient, step):
    found = [activities[-1] - step * gradient]
    for inverse in reversed(inverses):
        found.append(inverse(found[-1]))
    return found[::-1]


def targets_up_the_loss(activities, inverses, gradient, step):
    return _walk(activities, inverses, activities[-1] + step * gradient, 1.0)


def targets_of_the_wrong_sign(activities, inverses, gradient, step):
    return _walk(activities, inverses, activities[-1] - step * gradient, -1.0)


def targets_top_first(activities, inverses, gradient, step):
    return _walk(activities, inverses, activities[-1] - step * gradient, 1.0)[::-1]


def _walk(activities, inverses, first, sign):
    found = [first]
    for i in reversed(range(len(inverses))):
        move = inverses[i](found[-1]) - inverses[i](activities[i + 1])
        found.append(activities[i] + sign * move)
    return found[::-1]


def angle_in_radians(s, delta):
    cosine = torch.nn.functional.cosine_similarity(delta / s, delta * s, dim=0)
    return cosine.clamp(-1, 1).arccos()


def angle_to_the_wish(s, delta):
    cosine = torch.nn.functional.cosine_similarity(delta, delta * s, dim=0)
    return cosine.clamp(-1, 1).arccos().rad2deg()


def angle_of_squares(s, delta):
    cosine = torch.nn.functional.cosine_similarity(delta / s**2, delta * s**2, dim=0)
    return cosine.clamp(-1, 1).arccos().rad2deg()


def _enlarged(pooled):
    return pooled.repeat_interleave(2, 0).repeat_interleave(2, 1)


def copies(pooled):
    return _enlarged(pooled)


def half_of_the_winner(pooled):
    return 0.5 * _enlarged(pooled)


def one_winner_and_zeros(pooled):
    guess = torch.zeros(2 * pooled.shape[0], 2 * pooled.shape[1], dtype=pooled.dtype)
    guess[::2, ::2] = pooled
    return guess


WRONG = {
    "09-1": [update_without_two, update_away_from_the_target, update_without_slope, update_as_a_mean],
    "09-2": [only_the_step, the_mean_forgotten, the_mean_multiplies],
    "09-3": [targets_without_difference, targets_up_the_loss, targets_of_the_wrong_sign, targets_top_first],
    "09-4": [angle_in_radians, angle_to_the_wish, angle_of_squares],
    "09-5": [copies, half_of_the_winner, one_winner_and_zeros],
}
