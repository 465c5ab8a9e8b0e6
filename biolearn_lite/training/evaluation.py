"""What has a frozen encoder learned? Its features, computed once; a readout on them; the distances between them.

Learning without labels has no accuracy of its own. One freezes the encoder, teaches a linear readout its features with
labels, and counts (002, section 4: "linear evaluation"). The number depends on the readout, so there are three, all on
features that no gradient passes:

- `training.probes.linear_probe`, ridge regression, solved exactly: the book's yardstick on small data;
- `logistic_readout`, the minimum of the regularized cross-entropy, found by L-BFGS: what scikit-learn's
  LogisticRegression finds, on tens of thousands of features;
- `adam_readout`, a linear layer trained for some epochs, as the paper does.

    for z, z_test in zip(features(network, x), features(network, x_test), strict=True):      # layer by layer
        readout = logistic_readout(z, y, num_classes=10)
        score(readout, z_test, y_test)

Before any label one can look at the embeddings themselves: are two views of one thing nearer than two things
(`pair_distances`, 002, Fig. 5)? Do classes part on a map (`embed_2d`, Fig. 8)? And is anything left apart at all
(`check_collapse`)? Chapters 07, 08 and 12.
"""

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from biolearn_lite.training.probes import accuracy


def features(network: nn.Module, images: Tensor, *, batch_size: int = 500) -> Iterator[Tensor]:
    """The activity of every layer, (n, ...), bottom first, as its objective would see it.

    Each is computed once, in evaluation mode and without a graph, from the one below: no more than two are held at a
    time, if you keep none. The network is left as it was.
    """
    x: Tensor = images
    below: nn.Module = nn.Identity()
    for layer in cast(Any, network).layers:
        yield (z := _evaluated(network, partial(_activity, below=below, layer=layer), x, batch_size))
        x, below = z, layer.after


def _activity(x: Tensor, *, below: nn.Module, layer: Any) -> Tensor:
    return cast(Tensor, layer.activity(below(x)))


@torch.no_grad()
def _evaluated(network: nn.Module, function: Callable[[Tensor], Tensor], x: Tensor, batch_size: int) -> Tensor:
    training = network.training
    network.eval()
    try:
        return in_batches(function, x, batch_size=batch_size)
    finally:
        network.train(training)


@torch.no_grad()
def in_batches(function: Callable[[Tensor], Tensor], x: Tensor, *, batch_size: int = 500) -> Tensor:
    """function(x), a batch of rows at a time, without a graph; a result as large as memory needs no second copy."""
    if len(x) == 0:
        raise ValueError(f"x has shape {tuple(x.shape)}: give at least one example")
    results = torch.empty(0)
    for start, part in zip(range(0, len(x), batch_size), x.split(batch_size), strict=True):
        z = function(part)
        if start == 0:
            results = z.new_empty(len(x), *z.shape[1:])
        results[start : start + len(z)] = z
    return results


def logistic_readout(
    x: Tensor, y: Tensor, *, num_classes: int, ridge: float = 1e-3, iterations: int = 100, progress: bool = True
) -> nn.Linear:
    """The linear readout of least cross-entropy, by L-BFGS with line search, in float32.

    Args:
        x: features (n, ...). y: integer labels (n,).
        ridge: the mean cross-entropy + ridge/2 ‖W‖² is minimized, W on standardized features; the bias is free.
        iterations: at most; it stops where no slope exceeds 1e-5.

    Raises: ValueError: features and labels that do not match, are not finite, or exceed `num_classes`.
    """
    x = _checked(x, y, num_classes)
    std, mean = torch.std_mean(x, 0, correction=0)
    scale = torch.where(std > 1e-6 * std.max(), 1 / std, 0.0)  # features that never change teach nothing
    W = torch.zeros(num_classes, x.shape[1], device=x.device, requires_grad=True)
    b = torch.zeros(num_classes, device=x.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [W, b], max_iter=iterations, tolerance_grad=1e-5, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )
    bar = tqdm(total=optimizer.param_groups[0]["max_eval"], desc="readout", disable=not progress, leave=False)

    def loss() -> Tensor:
        optimizer.zero_grad()
        weight = W * scale
        cost = F.cross_entropy(F.linear(x, weight, b - weight @ mean), y) + ridge / 2 * W.square().sum()
        cost.backward()
        bar.update()
        return cost

    with torch.enable_grad(), bar:
        optimizer.step(loss)
    weight = (W * scale).detach()
    return _linear(weight, b.detach() - weight @ mean)


def adam_readout(
    x: Tensor,
    y: Tensor,
    *,
    num_classes: int,
    rate: float = 1e-3,
    epochs: int = 200,
    batch_size: int = 500,
    seed: int = 0,
    progress: bool = True,
) -> nn.Linear:
    """A linear readout trained by Adam from PyTorch's initial weights, as in 002: neither penalty nor schedule.

    Args: as `logistic_readout`; seed: of the initial weights and of the order of examples.
    """
    x = _checked(x, y, num_classes)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        readout = nn.Linear(x.shape[1], num_classes).to(x.device)
    optimizer = torch.optim.Adam(readout.parameters(), lr=rate)
    with torch.enable_grad():
        for _ in tqdm(range(epochs), desc="readout", disable=not progress, leave=False):
            for index in torch.randperm(len(y), generator=generator).to(y.device).split(batch_size):
                F.cross_entropy(readout(x[index]), y[index]).backward()
                optimizer.step()
                optimizer.zero_grad()
    return readout.requires_grad_(False)


def score(readout: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> float:
    """Share of examples (0 to 1) whose label a readout finds in their features (n, ...)."""
    return accuracy(in_batches(readout, x.flatten(1), batch_size=5000), y)


def pair_distances(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """L1 distances of the embeddings of two views (n, ...): of every thing to itself (n,), and to all others (n(n−1),).

    Source: 002, Fig. 5.
    """
    if a.shape != b.shape or len(a) < 2:
        raise ValueError(f"a is {tuple(a.shape)}, b {tuple(b.shape)}: give two views of the same n > 1 things")
    distance = torch.cdist(a.detach().flatten(1), b.detach().flatten(1), p=1)
    others = ~torch.eye(len(a), dtype=torch.bool, device=a.device)
    return distance.diagonal(), distance[others]


def distance_histogram(a: Tensor, b: Tensor, *, bins: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """Edges (bins + 1,) from 0 to the greatest distance, and the shares of same and of other pairs between them."""
    same, other = (distances.cpu().double() for distances in pair_distances(a, b))
    edges = torch.linspace(0, max(same.max().item(), other.max().item()), bins + 1, dtype=torch.double)
    shares = (torch.histogram(distances, edges).hist / len(distances) for distances in (same, other))
    return edges, next(shares), next(shares)


def check_collapse(embeddings: Tensor, *, smallest: float) -> float:
    """The mean L1 distance between the embeddings (n, ...) of different things; warns if it is not above `smallest`.

    For the contrastive hinge, `smallest` is its greater margin: pushed apart, most things lie beyond it.
    """
    flat = embeddings.detach().flatten(1)
    if len(flat) < 2 or not torch.isfinite(flat).all():
        raise ValueError(f"embeddings {tuple(embeddings.shape)}: give at least two, without NaN and infinity")
    spread = torch.pdist(flat, p=1).mean().item()
    if not spread > smallest:
        warnings.warn(
            f"the embeddings have collapsed: different things lie {spread:.3g} apart on average, no more than "
            f"{smallest:g}; compare with more negatives, or choose margin_negative well above margin_positive",
            stacklevel=2,
        )
    return spread


def embed_2d(z: Tensor, *, perplexity: float = 30.0, seed: int = 0) -> Tensor:
    """A map of features: (n, ...) to (n, 2), by t-SNE; images are averaged over their positions first (002, Fig. 8).

    Neighbours stay neighbours, distances mean little. n must be above `perplexity`.
    """
    from sklearn.manifold import TSNE

    points = z.detach().flatten(2).mean(2) if z.dim() > 2 else z.detach()
    if not len(points) > perplexity:
        raise ValueError(f"perplexity={perplexity:g} must be below the number of points, {len(points)}")
    return torch.from_numpy(TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(points.cpu()))


def _checked(x: Tensor, y: Tensor, num_classes: int) -> Tensor:
    """Features (n, d), fit for a readout."""
    x = x.detach().flatten(1)
    if len(x) != len(y) or len(y) == 0:
        raise ValueError(f"x ({len(x)}) and y ({len(y)}) must hold the same examples, at least one")
    if not 0 <= int(y.min()) <= int(y.max()) < num_classes:
        raise ValueError(f"labels run from {int(y.min())} to {int(y.max())}; num_classes={num_classes} does not fit")
    if not torch.isfinite(x.sum()):
        raise ValueError("features hold NaN or infinity: the encoder has diverged; lower its learning rate")
    return x


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    readout = nn.Linear(weight.shape[1], weight.shape[0]).to(weight).requires_grad_(False)
    readout.weight.copy_(weight)
    readout.bias.copy_(bias)
    return readout
