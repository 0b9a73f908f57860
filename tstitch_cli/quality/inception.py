"""Inception-v3 as the Frechet distance is defined by it: Szegedy et al., 2015, with the weights of 2015-12-05.

TensorFlow's network of that date differs from later ones: its average pooling leaves the padding out, its last block
pools by the maximum, it tells 1,008 classes apart and sees pictures resized bilinearly with corners, not centres, of
pixels at the same place. The parameters are named as in the published conversion of the weights to PyTorch.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from tstitch_cli.errors import BadFileError
from tstitch_cli.quality.features import INCEPTION, Features, digest_of_file
from tstitch_cli.quality.judging import Judge

FEATURES, CLASSES, SIDE = 2048, 1008, 299
SHA256 = "6726825d"
"""How the digest of the weights begins, which is also in their name."""
FILES = ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth")
"""Names under which other programs keep the same file in torch's cache."""
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILES[0]}"

Kernel = int | tuple[int, int]
Layer = tuple[str, int, Kernel]
"""A convolution's name, channels and kernel."""


class InceptionFeatures:
    """The extractor of the Frechet inception distance and of the Inception score."""

    name = INCEPTION
    classes = CLASSES
    judge = Judge()
    side = SIDE

    def __init__(self, device: torch.device | str = "cpu") -> None:
        """Raises BadFileError, with the command that fetches the weights, where they are not here or broken."""
        file = weights_file()
        digest = digest_of_file(file)
        if not digest.startswith(SHA256):
            raise BadFileError(f"{file}: is not the file it should be", hint=f"fetch it again: {fetch_command()}")
        self.digest = digest
        self.device = torch.device(device)
        self.model = Inception()
        try:
            self.model.load(torch.load(file, map_location="cpu", weights_only=True))
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, AttributeError) as error:
            why = f"{file}: cannot be loaded: {str(error)[:200]}"
            raise BadFileError(why, hint=f"fetch it again: {fetch_command()}") from error
        self.model.eval().requires_grad_(False).to(self.device)

    @torch.inference_mode()
    def __call__(self, pictures: torch.Tensor) -> Features:
        """Features (B, 2048) and probabilities (B, 1008) of `pictures` (B, 3, H, W) uint8 of any size.

        The classes' probabilities are without the last layer's bias, as in the Inception score.
        """
        features = self.model(resized(pictures.to(self.device).float(), SIDE) / 128.0 - 1.0)
        return Features(features, (features @ self.model.fc.weight.T).softmax(1))


def weights_file() -> Path:
    """Where the weights are in torch's cache; raises BadFileError with the command that fetches them."""
    for name in FILES:
        if (file := _folder() / name).is_file():
            return file
    raise BadFileError(
        "the weights of Inception-v3, which the Fréchet inception distance is defined by, are not here",
        hint=f"fetch them (95 MB): {fetch_command()}",
    )


def fetch_command() -> str:
    """The one command that fetches the weights."""
    import shlex

    return f"curl -fL --create-dirs -o {shlex.quote(str(_folder() / FILES[0]))} {URL}"


def _folder() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def resized(pictures: torch.Tensor, side: int) -> torch.Tensor:
    """(B, C, H, W) to (B, C, side, side) bilinearly, as TensorFlow 1 does it.

    Pixel i of the result is at i * H / side of the source, between the two nearest there.
    """
    down, across = (_interpolation(length, side, pictures) for length in pictures.shape[-2:])
    return down @ pictures @ across.T


def _interpolation(length: int, side: int, like: torch.Tensor) -> torch.Tensor:
    """(side, length): what every place of the result takes of every place of the source."""
    places = torch.arange(side, dtype=torch.float64) * length / side
    before = places.floor().long()
    share = (places - before).to(torch.float64)
    rows, matrix = torch.arange(side), torch.zeros(side, length, dtype=torch.float64)
    matrix[rows, before] += 1.0 - share
    matrix[rows, (before + 1).clamp(max=length - 1)] += share
    return matrix.to(like)


class Inception(nn.Module):
    """(B, 3, 299, 299) in [-1, 1] to features (B, 2048)."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Convolution(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = _Convolution(32, 32, 3)
        self.Conv2d_2b_3x3 = _Convolution(32, 64, 3, padded=True)
        self.Conv2d_3b_1x1 = _Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = _Convolution(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _block_a(192, 32), _block_a(256, 64), _block_a(288, 64)
        self.Mixed_6a = _reduction_b(288)
        self.Mixed_6b, self.Mixed_6c = _block_c(768, 128), _block_c(768, 160)
        self.Mixed_6d, self.Mixed_6e = _block_c(768, 160), _block_c(768, 192)
        self.Mixed_7a = _reduction_d(768)
        self.Mixed_7b, self.Mixed_7c = _block_e(1280, _average), _block_e(2048, _maximum)
        self.fc = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features (B, 2048)."""
        x = _halved(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = _halved(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)
        return x.mean((2, 3))

    def load(self, weights: dict[str, torch.Tensor]) -> None:
        """Takes the parameters; raises RuntimeError where they are not this network's."""
        missing, unexpected = self.load_state_dict(weights, strict=False)
        # Counters of training, which some conversions leave out.
        missing = [name for name in missing if not name.endswith("num_batches_tracked")]
        if missing or unexpected:
            raise RuntimeError(f"these parameters are not of this network: {', '.join([*missing, *unexpected][:3])}")


class _Convolution(nn.Module):
    """A convolution, its batch normalisation and the rectifier."""

    def __init__(self, inputs: int, outputs: int, kernel: Kernel, *, stride: int = 1, padded: bool = False) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if padded else 0
        self.conv = nn.Conv2d(inputs, outputs, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, h, w) to (B, outputs, h', w')."""
        return F.relu(self.bn(self.conv(x)))


class _Block(nn.Module):
    """Branches side by side, their outputs one after the other: convolutions in turn, then perhaps two at once.

    `pool` is the last branch's beginning; what comes of it goes through `branch_pool` where that has channels.
    """

    def __init__(
        self,
        inputs: int,
        branches: Sequence[Sequence[Layer | tuple[Layer, Layer]]],
        pool: Callable[[torch.Tensor], torch.Tensor],
        pooled: int = 0,
        *,
        halves: bool = False,
    ) -> None:
        """`halves`: the last convolution of every branch has stride 2 and no padding."""
        super().__init__()
        self._paths: list[list[list[str]]] = []
        self._pool = pool
        for branch in branches:
            width, path = inputs, []
            for place, stage in enumerate(branch):
                last = halves and place == len(branch) - 1
                layers: Sequence[Layer] = [stage] if isinstance(stage[0], str) else stage
                for name, outputs, kernel in layers:
                    self.add_module(
                        name, _Convolution(width, outputs, kernel, stride=1 + last, padded=not last and kernel != 1)
                    )
                width = layers[-1][1]
                path.append([name for name, _, _ in layers])
            self._paths.append(path)
        self.branch_pool = _Convolution(inputs, pooled, 1) if pooled else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) to (B, sum of the branches' channels, h', w')."""
        outputs = []
        for path in self._paths:
            reached = [x]
            for names in path:
                reached = [self.get_submodule(name)(reached[0]) for name in names]
            outputs += reached
        pooled = self._pool(x)
        outputs.append(pooled if self.branch_pool is None else self.branch_pool(pooled))
        return torch.cat(outputs, dim=1)


def _average(x: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _maximum(x: torch.Tensor) -> torch.Tensor:
    return F.max_pool2d(x, 3, stride=1, padding=1)


def _halved(x: torch.Tensor) -> torch.Tensor:
    return F.max_pool2d(x, 3, stride=2)


def _block_a(inputs: int, pooled: int) -> _Block:
    five = [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)]
    three = [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)]
    return _Block(inputs, [[("branch1x1", 64, 1)], five, three], _average, pooled)


def _reduction_b(inputs: int) -> _Block:
    three = [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)]
    return _Block(inputs, [[("branch3x3", 384, 3)], three], _halved, halves=True)


def _block_c(inputs: int, width: int) -> _Block:
    seven: list[Layer] = [("branch7x7_1", width, 1), ("branch7x7_2", width, (1, 7)), ("branch7x7_3", 192, (7, 1))]
    twice: list[Layer] = [
        ("branch7x7dbl_1", width, 1),
        ("branch7x7dbl_2", width, (7, 1)),
        ("branch7x7dbl_3", width, (1, 7)),
        ("branch7x7dbl_4", width, (7, 1)),
        ("branch7x7dbl_5", 192, (1, 7)),
    ]
    return _Block(inputs, [[("branch1x1", 192, 1)], seven, twice], _average, 192)


def _reduction_d(inputs: int) -> _Block:
    three: list[Layer] = [("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3)]
    seven: list[Layer] = [
        ("branch7x7x3_1", 192, 1),
        ("branch7x7x3_2", 192, (1, 7)),
        ("branch7x7x3_3", 192, (7, 1)),
        ("branch7x7x3_4", 192, 3),
    ]
    return _Block(inputs, [three, seven], _halved, halves=True)


def _block_e(inputs: int, pool: Callable[[torch.Tensor], torch.Tensor]) -> _Block:
    three = [("branch3x3_1", 384, 1), (("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1)))]
    twice = [
        ("branch3x3dbl_1", 448, 1),
        ("branch3x3dbl_2", 384, 3),
        (("branch3x3dbl_3a", 384, (1, 3)), ("branch3x3dbl_3b", 384, (3, 1))),
    ]
    return _Block(inputs, [[("branch1x1", 320, 1)], three, twice], pool, 192)  # type: ignore[list-item]
