"""Wrong answers to the exercises of chapter 01, the likely ones: each must be turned down with a reason."""

import torch


def gradients_without_gate(W, w, x, t):
    error = w @ torch.relu(W @ x) - t
    return torch.outer(w * error, x), error * torch.relu(W @ x)


def gradients_as_steps(W, w, x, t):
    a = W @ x
    error = t - w @ torch.relu(a)
    return torch.outer((a > 0) * w * error, x), error * torch.relu(a)


def gradients_without_outgoing_weight(W, w, x, t):
    a = W @ x
    error = w @ torch.relu(a) - t
    return torch.outer((a > 0) * error, x), error * torch.relu(a)


def gradients_transposed(W, w, x, t):
    a = W @ x
    error = w @ torch.relu(a) - t
    return torch.outer(x, (a > 0) * w * error), error * torch.relu(a)


def gradients_with_sums_for_activities(W, w, x, t):
    a = W @ x
    error = w @ torch.relu(a) - t
    return torch.outer((a > 0) * w * error, x), error * a


def foreign_weights_only(widths, layer):
    depth = len(widths) - 1
    return (1 if layer == depth else widths[layer + 1]), 2 * (depth - layer) + 2


def foreign_of_its_own_layer(widths, layer):
    depth = len(widths) - 1
    return (1 if layer == depth else 2 * widths[layer]), 2 * (depth - layer) + 2


def foreign_without_the_comparison(widths, layer):
    depth = len(widths) - 1
    return (1 if layer == depth else 2 * widths[layer + 1]), 2 * (depth - layer)


def foreign_knows_it_all_at_the_top(widths, layer):
    depth = len(widths) - 1
    return (0 if layer == depth else 2 * widths[layer + 1]), 2 * (depth - layer) + 2


def angle(u, v):
    return torch.rad2deg(torch.arccos((u @ v / (u.norm() * v.norm())).clamp(-1, 1)))


def yardstick_of_single_angles(updates, reference):
    table = torch.stack([update.flatten() for update in updates])
    mean_angle = torch.stack([angle(update, reference.flatten()) for update in table]).mean()
    return mean_angle, table.mean(0).square().sum() / table.var(0).sum()


def yardstick_in_radians(updates, reference):
    table = torch.stack([update.flatten() for update in updates])
    mean = table.mean(0)
    return torch.deg2rad(angle(mean, reference.flatten())), mean.square().sum() / table.var(0).sum()


def yardstick_with_n(updates, reference):
    table = torch.stack([update.flatten() for update in updates])
    mean = table.mean(0)
    return angle(mean, reference.flatten()), mean.square().sum() / table.var(0, correction=0).sum()


def yardstick_noise_over_signal(updates, reference):
    table = torch.stack([update.flatten() for update in updates])
    mean = table.mean(0)
    return angle(mean, reference.flatten()), table.var(0).sum() / mean.square().sum()


def yardstick_for_vectors_only(updates, reference):
    table = torch.stack(updates)
    mean = table.mean(0)
    return angle(mean, reference), mean.square().sum() / table.var(0).sum()


def local_gradients_summed(x, delta, k):
    patches = x.unfold(1, k, 1).unfold(2, k, 1)
    return torch.einsum("frs,crsij->fcij", delta, patches)


def local_gradients_column_by_column(x, delta, k):
    patches = x.unfold(1, k, 1).unfold(2, k, 1)
    return torch.einsum("frs,crsij->srfcij", delta, patches).flatten(0, 1)


def local_gradients_as_mean(x, delta, k):
    patches = x.unfold(1, k, 1).unfold(2, k, 1)
    return torch.einsum("frs,crsij->rsfcij", delta, patches).flatten(0, 1) / delta[0].numel()


def local_gradients_mirrored(x, delta, k):
    patches = x.unfold(1, k, 1).unfold(2, k, 1)
    return torch.einsum("frs,crsij->rsfcij", delta, patches).flatten(0, 1).flip(-1)


GOOD = {(delay, fade): (5.0, 0.01 * fade**delay * (1 + fade)) for delay in (1, 4, 16) for fade in (0.5, 0.8, 0.95)}

WRONG = {
    "01-1": [
        gradients_without_gate,
        gradients_as_steps,
        gradients_without_outgoing_weight,
        gradients_transposed,
        gradients_with_sums_for_activities,
    ],
    "01-2": [
        foreign_weights_only,
        foreign_of_its_own_layer,
        foreign_without_the_comparison,
        foreign_knows_it_all_at_the_top,
    ],
    "01-3": [
        yardstick_of_single_angles,
        yardstick_in_radians,
        yardstick_with_n,
        yardstick_noise_over_signal,
        yardstick_for_vectors_only,
    ],
    "01-4": [
        local_gradients_summed,
        local_gradients_column_by_column,
        local_gradients_as_mean,
        local_gradients_mirrored,
    ],
    "01-5": [
        {key: value for key, value in GOOD.items() if key[0] != 4},  # two delays
        {key: value for key, value in GOOD.items() if key != (4, 0.8)},  # a pair is missing
        GOOD | {(1, 0.5): (float("nan"), 0.1)},
        {key: (60.0, snr) for key, (_, snr) in GOOD.items()},  # too few updates averaged
        {key: (5.0, 0.1) for key in GOOD},  # delay without effect
        {(d, f): (5.0, 0.1 / d / (1 + f)) for d, f in GOOD},  # the fastest trace is best at every delay
    ],
}
