"""Chapter 08, greedy and random layers. The formulas are written out anew here, independent of `rules`."""

from typing import Any

import torch
from torch import Generator, Tensor

from biolearn_lite.show.exercises import Unanswered, demand, expect, property_of

# 08-1: who_learns(kind, step, depth, updates, generator), the layers that learn at a step


def _integer(low: int, high: int, generator: Generator) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))


def _who(who_learns: Any, kind: str, step: int, depth: int, updates: int, generator: Generator) -> list[int]:
    got = who_learns(kind, step, depth, updates, generator)
    if got is None or got is ...:
        raise Unanswered
    demand(isinstance(got, (list, tuple, range)), f"expected a list of layers, got {type(got).__name__}", kind=kind)
    layers = [int(layer) for layer in got]
    demand(layers == sorted(set(layers)), f"layers are not ascending, or occur twice: {layers}", kind=kind)
    demand(all(0 <= layer < depth for layer in layers), f"no such layer: {layers}", kind=kind, depth=depth)
    return layers


def _shares(who_learns: Any, kind: str, depth: int, generator: Generator, *, steps: int = 600) -> tuple[Tensor, Tensor]:
    """How often each layer learned, and how many learned at each step."""
    chosen = torch.zeros(steps, depth)
    for step in range(steps):
        chosen[step, _who(who_learns, kind, step, depth, 7, generator)] = 1
    return chosen.mean(0), chosen.sum(1)


@property_of("08-1", hint=1)
def all_means_all(who_learns: Any, generator: Generator) -> None:
    """ "all": every layer, at every step."""
    depth, step = _integer(1, 6, generator), _integer(0, 40, generator)
    expect(torch.tensor(_who(who_learns, "all", step, depth, 3, generator)), torch.arange(depth), step=step)


@property_of("08-1", hint=1)
def greedy_takes_turns(who_learns: Any, generator: Generator) -> None:
    """ "greedy": bottom first, each for its number of steps, one at a time, and nobody afterwards."""
    depth, updates = _integer(2, 5, generator), _integer(1, 6, generator)
    found = [_who(who_learns, "greedy", step, depth, updates, generator) for step in range((depth + 1) * updates)]
    want = [[layer] for layer in range(depth) for _ in range(updates)] + [[]] * updates
    demand(found == want, f"expected {want}", found=found)


@property_of("08-1", hint=2)
def random_is_one_and_fair(who_learns: Any, generator: Generator) -> None:
    """ "random": one layer per step, each as often as the others, and not in turn."""
    depth = _integer(2, 5, generator)
    share, per_step = _shares(who_learns, "random", depth, generator)
    demand(bool((per_step == 1).all()), f"from {int(per_step.min())} to {int(per_step.max())} layers at a step")
    demand(bool((share - 1 / depth).abs().max() < 0.12), f"shares of {depth} layers: {share}")
    first = [_who(who_learns, "random", step, depth, 7, generator) for step in range(60)]
    again = [_who(who_learns, "random", step, depth, 7, generator) for step in range(60)]
    demand(first != again, "sixty draws came out the same twice: do they use the generator?")


@property_of("08-1", hint=2)
def a_seed_repeats(who_learns: Any, generator: Generator) -> None:
    """ "random" and "coins" draw from the generator and from nothing else: the same state, the same draws."""
    state = generator.get_state()
    for kind in ("random", "coins"):
        runs = []
        for _ in range(2):
            generator.set_state(state)
            runs.append([_who(who_learns, kind, step, 5, 7, generator) for step in range(40)])
        demand(runs[0] == runs[1], "the same generator gave other draws", kind=kind)


@property_of("08-1", hint=2)
def coins_are_independent(who_learns: Any, generator: Generator) -> None:
    """ "coins": each layer learns in a share 1/depth of all steps; sometimes nobody does, sometimes several do."""
    depth = _integer(3, 5, generator)
    share, per_step = _shares(who_learns, "coins", depth, generator)
    demand(bool((share - 1 / depth).abs().max() < 0.12), f"shares of {depth} layers: {share}")
    nobody, law = (per_step == 0).float().mean().item(), (1 - 1 / depth) ** depth
    demand(abs(nobody - law) < 0.12, f"nobody learned in a share {nobody:.2f} of the steps, expected {law:.2f}")
    several = (per_step > 1).float().mean().item()
    demand(several > 0.1, f"two or more learned in a share {several:.2f} of the steps")


# 08-2: passes_for(partition), to give every block one update


def _passes(partition: tuple[int, ...]) -> int:
    total = 0
    for b, size in enumerate(partition):
        block = range(sum(partition[:b]), sum(partition[: b + 1]))
        computes = sum(1 for _ in range(block.stop)) + 1
        learns = len(block) + 1
        sent = size  # the head sends into the top layer, every layer but the lowest into the one below it
        total += computes + learns + sent
    return total


@property_of("08-2", hint=2)
def the_ends_are_known(passes_for: Any, generator: Generator) -> None:
    """One block is end to end, 3D + 2; blocks of one layer need D(D + 9)/2."""
    depth = _integer(1, 12, generator)
    expect(passes_for((depth,)), 3.0 * depth + 2, partition=(depth,))
    expect(passes_for((1,) * depth), depth * (depth + 9) / 2, layers=depth)


@property_of("08-2", hint=1)
def any_cut_is_counted(passes_for: Any, generator: Generator) -> None:
    """Any partition: forward up to the head, weights of the block and the head, errors into the block's layers."""
    cut = tuple(_integer(1, 4, generator) for _ in range(_integer(2, 5, generator)))
    expect(passes_for(cut), float(_passes(cut)), partition=cut)


# 08-3: layer_update(x, W, B, told), ΔW of a ReLU layer under a head with feedback B


def _problem(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    sizes = ((10, 5), (7, 5), (4, 7), (10, 4))
    x, W, B, told = (torch.randn(size, dtype=torch.float64, generator=generator) for size in sizes)
    return x, W, B, told.sign()


@property_of("08-3", hint=2)
def it_has_the_shape_of_W(layer_update: Any, generator: Generator) -> None:
    """ΔW has the shape of W."""
    x, W, B, told = _problem(generator)
    got = layer_update(x, W, B, told)
    if got is None or got is ...:
        raise Unanswered
    demand(tuple(got.shape) == tuple(W.shape), f"W has shape {tuple(W.shape)}, the result {tuple(got.shape)}")


@property_of("08-3", hint=1)
def with_the_heads_weights_it_is_backprop(layer_update: Any, generator: Generator) -> None:
    """With B = V it is minus the gradient of any loss whose derivative by the embedding is −told."""
    x, W, V, told = _problem(generator)
    leaf = W.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(-(told * (torch.relu(x @ leaf.T) @ V.T)).sum(), leaf)
    expect(layer_update(x, W, V, told), -gradient)


@property_of("08-3", hint=2)
def silent_neurons_stay(layer_update: Any, generator: Generator) -> None:
    """A neuron that is silent for all views does not learn."""
    x, W, B, told = _problem(generator)
    x, W[2] = x.abs(), -W[2].abs()
    expect(layer_update(x, W, B, told)[2], torch.zeros(5, dtype=torch.float64))


# 08-4: steps_until_all(depth), until every layer has been drawn once


@property_of("08-4", hint=2)
def as_a_chain(steps_until_all: Any, generator: Generator) -> None:
    """It is the mean time until the number of layers that wait, step after step, has come down to none."""
    depth = _integer(1, 12, generator)
    waiting = torch.zeros(depth + 1, dtype=torch.float64)
    waiting[depth], mean = 1.0, 0.0
    for _ in range(60 * depth):
        mean += 1.0 - float(waiting[0])
        served = waiting * torch.arange(depth + 1) / depth
        waiting = waiting - served + torch.cat([served[1:], torch.zeros(1, dtype=torch.float64)])
    expect(steps_until_all(depth), mean, depth=depth)


# 08-5: growth_needed(B, V_0, length, degrees), of ½‖W‖²


def _wires(generator: Generator) -> tuple[Tensor, Tensor, float]:
    B, V = torch.randn((2, 6, 8), dtype=torch.float64, generator=generator)
    return B, V, float(V.norm()) * (1 + float(torch.rand((), generator=generator)))


@property_of("08-5", hint=1)
def it_pays_for_the_angle(growth_needed: Any, generator: Generator) -> None:
    """What is there at birth, and the growth, make up ⟨B, V⟩ at that angle and that length."""
    B, V_0, length = _wires(generator)
    degrees = _integer(0, 89, generator)
    want = torch.cos(torch.deg2rad(torch.tensor(float(degrees), dtype=torch.float64))) * B.norm() * length
    expect(growth_needed(B, V_0, length, degrees), want - (B * V_0).sum(), degrees=degrees)


@property_of("08-5", hint=2)
def nothing_for_what_is_there(growth_needed: Any, generator: Generator) -> None:
    """If the head does not change, no growth is needed for the angle it has at birth."""
    B, V_0, _ = _wires(generator)
    cosine = (B * V_0).sum() / B.norm() / V_0.norm()
    degrees = float(torch.rad2deg(torch.acos(cosine)))
    expect(1 + growth_needed(B, V_0, float(V_0.norm()), degrees), 1.0, degrees=degrees)
