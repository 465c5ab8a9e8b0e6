"""Images that look different every time: what `training.fit` takes for `inputs` in the place of a tensor.

`fit` asks for a batch with `inputs[index]`, and a data set may answer with anything made from these images: two views
of each (`data.views`), crops (`data.crops`), glances (`data.patches`). Draws are PyTorch's own, which `fit` seeds and
keeps with its checkpoints: the same seed gives the same images, also after an interruption.
"""

import torch
from torch import Tensor


class Drawn:
    """What all of these data sets share. images: (n, C, H, W), on the device of the run. A subclass says what is seen
    in `self[index]`."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    @property
    def device(self) -> torch.device:
        return self.images.device

    def dim(self) -> int:
        return self.images.dim()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Tensor) -> Tensor:
        raise NotImplementedError
