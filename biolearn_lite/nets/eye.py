"""An eye: where it looks next, and when it jumps to another thing.

All blocks of a network share one `Eye`. Whether it stays or jumps, and where to, is decided once per batch: a saccade
is one event, and every layer hears of it. (In the published run every layer, and each half of its loss, drew saccades
of its own; `independent=True` does.) Chapter 10.
"""

import weakref
from typing import Any, NamedTuple, cast, final

import torch
from torch import Tensor

from biolearn_lite.rules import predictive


class Event(NamedTuple):
    """What was seen, and what next: for one number of steps ahead, over a batch of m images.

    context: (m, columns, times), which glance of the batch each prediction is made from. target: the same, or
    (1 + N, m, columns, times), which glance followed. y: 1 for a fixation, -1 for a saccade, (m,) or (1 + N,).
    """

    context: Tensor
    target: Tensor
    y: Tensor


@final
class Eye:
    """Where the eye goes next: drawn once per batch, and the same for all who ask, unless `independent`.

    Args:
        grid: columns and rows of glances per image. steps: predict k = 1 ... steps. skip: see `predictive.ahead`.
        others: None: a coin decides for each image whether it stays or jumps, for all its glances, to the same place in
            another image of the batch (CLAPP). A number N: both cases at every step, with N other glances each, drawn
            with replacement from all that any context of the batch is followed by (CLAPP-s, CPC, Greedy InfoMax).
        independent: everybody who asks gets a draw of his own; with a coin, each k an own image to jump to, perhaps the
            same one. So the published run did for each layer and each half of the loss.

    All draws are PyTorch's own. Raises: ValueError. Source: 003, appendix B.1 and the published run.
    """

    def __init__(
        self,
        *,
        grid: tuple[int, int] = (7, 7),
        steps: int = 5,
        skip: int = 1,
        others: int | None = None,
        independent: bool = False,
    ) -> None:
        if min(grid) < 1 or steps < 1 or skip < 0 or steps + skip >= grid[1]:
            raise ValueError(f"grid={grid}, steps={steps}, skip={skip}: needs more than steps + skip rows")
        if others is not None and others < 1:
            raise ValueError(f"others={others}: give at least 1, or None for a coin")
        self.grid, self.steps, self.skip, self.others, self.independent = grid, steps, skip, others, independent
        self._seen: weakref.ref[object] | None = None
        self._events: list[Event] = []

    @property
    def glances(self) -> int:
        """Per image."""
        return self.grid[0] * self.grid[1]

    def look(self, images: int, batch: object, device: torch.device | str = "cpu") -> list[Event]:
        """One event per number of steps ahead, for a batch of so many images; new ones only for a new batch."""
        if self.independent or self._seen is None or self._seen() is not batch:
            self._events, self._seen = self._draw(images, torch.device(device)), weakref.ref(batch)
        return self._events

    def events(self, seen: Tensor, batch: object) -> list[Event]:
        """As `look`, for an activity (m · glances, features) of that batch."""
        images, rest = divmod(len(seen), self.glances)
        if rest:
            raise ValueError(f"{len(seen)} glances are no whole images of {self.grid}: tell the eye its grid")
        return self.look(images, batch, seen.device)

    def _draw(self, images: int, device: torch.device) -> list[Event]:
        here = torch.arange(images * self.glances).view(images, *self.grid, 1)
        pairs = [predictive.ahead(here, here, step=k, skip=self.skip) for k in range(1, self.steps + 1)]
        draw = self._jump(images) if self.others is None else self._contrast
        events = [draw(c.squeeze(-1), z.squeeze(-1)) for c, z in pairs]
        return [Event(*(part.to(device) for part in event)) for event in events]

    def _jump(self, images: int) -> Any:
        """A coin per image, and where it jumps to."""
        jumps = torch.rand(images) < 0.5
        one = self._elsewhere(images)

        def event(c: Tensor, z: Tensor) -> Event:
            elsewhere = self._elsewhere(images) if self.independent else one
            return Event(c, z[torch.where(jumps, elsewhere, torch.arange(images))], torch.where(jumps, -1, 1))

        return event

    def _elsewhere(self, images: int) -> Tensor:
        """For each image another one, if there is any; if `independent`, any."""
        if self.independent or images == 1:
            return torch.randint(images, (images,))
        return (torch.arange(images) + torch.randint(1, images, (images,))) % images

    def _contrast(self, c: Tensor, z: Tensor) -> Event:
        others = z.flatten()[torch.randint(z.numel(), (cast(int, self.others), *z.shape))]
        return Event(c, torch.cat([z.unsqueeze(0), others]), torch.tensor([1] + [-1] * len(others)))
