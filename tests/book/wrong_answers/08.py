"""Three or more wrong answers to each exercise of chapter 08, the likely ones; each must be told why it is wrong."""

import math

import torch


def _right(kind, step, depth, updates, generator):
    if kind == "all":
        return list(range(depth))
    if kind == "greedy":
        return [step // updates] if step // updates < depth else []
    if kind == "random":
        return [int(torch.randint(depth, (), generator=generator))]
    return (torch.rand(depth, generator=generator) < 1 / depth).nonzero().flatten().tolist()


def greedy_that_never_ends(kind, step, depth, updates, generator):
    if kind == "greedy":
        return [min(step // updates, depth - 1)]
    return _right(kind, step, depth, updates, generator)


def greedy_that_keeps_learning(kind, step, depth, updates, generator):  # lower layers are not frozen
    if kind == "greedy":
        return list(range(min(step // updates + 1, depth)))
    return _right(kind, step, depth, updates, generator)


def round_robin(kind, step, depth, updates, generator):
    return [step % depth] if kind == "random" else _right(kind, step, depth, updates, generator)


def without_the_generator(kind, step, depth, updates, generator):
    return [int(torch.randint(depth, ()))] if kind == "random" else _right(kind, step, depth, updates, generator)


def top_starves(kind, step, depth, updates, generator):  # randint's high end is not drawn
    if kind == "random":
        return [int(torch.randint(depth - 1, (), generator=generator))]
    return _right(kind, step, depth, updates, generator)


def one_coin_for_all(kind, step, depth, updates, generator):
    if kind == "coins":
        return list(range(depth)) if float(torch.rand((), generator=generator)) < 1 / depth else []
    return _right(kind, step, depth, updates, generator)


def fair_coins(kind, step, depth, updates, generator):
    if kind == "coins":
        return (torch.rand(depth, generator=generator) < 0.5).nonzero().flatten().tolist()
    return _right(kind, step, depth, updates, generator)


def coins_are_a_draw(kind, step, depth, updates, generator):
    return _right("random" if kind == "coins" else kind, step, depth, updates, generator)


def passes_without_heads(partition):
    below = total = 0
    for size in partition:
        total, below = total + below + 3 * size, below + size
    return total


def passes_without_prefix(partition):
    return sum(3 * size + 2 for size in partition)


def passes_with_one_error_too_many(partition):
    below = total = 0
    for size in partition:
        total, below = total + below + 3 * size + 3, below + size
    return total


def passes_of_single_layers(partition):
    depth = sum(partition)
    return depth * (depth + 9) / 2


def passes_end_to_end(partition):
    return 3 * sum(partition) + 2


def _gate(x, W):
    return (x @ W.T > 0).to(x)


def update_without_gate(x, W, B, told):
    return (told @ B).T @ x


def update_of_the_wrong_sign(x, W, B, told):
    return -((_gate(x, W) * (told @ B)).T @ x)


def update_transposed(x, W, B, told):
    return x.T @ (_gate(x, W) * (told @ B))


def update_by_mean(x, W, B, told):
    return (_gate(x, W) * (told @ B)).T @ x / len(x)


def update_gated_by_error(x, W, B, told):
    return torch.relu(told @ B).T @ x


def growth_of_the_whole_square(B, V_0, length, degrees):  # ‖W‖², not half of it
    return 2 * (math.cos(math.radians(degrees)) * B.norm() * length - (B * V_0).sum())


def growth_from_zero(B, V_0, length, degrees):
    return math.cos(math.radians(degrees)) * B.norm() * length


def growth_at_the_length_of_birth(B, V_0, length, degrees):
    return math.cos(math.radians(degrees)) * B.norm() * V_0.norm() - (B * V_0).sum()


def growth_in_radians(B, V_0, length, degrees):
    return math.cos(degrees) * B.norm() * length - (B * V_0).sum()


WRONG = {
    "08-1": [
        greedy_that_never_ends,
        greedy_that_keeps_learning,
        round_robin,
        without_the_generator,
        top_starves,
        one_coin_for_all,
        fair_coins,
        coins_are_a_draw,
        lambda kind, step, depth, updates, generator: [step % depth],
    ],
    "08-2": [
        passes_without_heads,
        passes_without_prefix,
        passes_with_one_error_too_many,
        passes_of_single_layers,
        passes_end_to_end,
    ],
    "08-3": [
        update_without_gate,
        update_of_the_wrong_sign,
        update_transposed,
        update_by_mean,
        update_gated_by_error,
    ],
    "08-4": [
        lambda depth: depth,  # as in turn
        lambda depth: depth * math.log(depth),  # the large-number limit without its constant
        lambda depth: sum(1 / k for k in range(1, depth + 1)),
        lambda depth: sum(depth / k for k in range(2, depth + 1)),  # the last one is not waited for
        lambda depth: depth**2,
    ],
    "08-5": [
        growth_of_the_whole_square,
        growth_from_zero,
        growth_at_the_length_of_birth,
        growth_in_radians,
    ],
}
