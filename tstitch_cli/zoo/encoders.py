"""The way down of a U-Net: the feature maps it passes across, and which of a larger one's a smaller one has as well.

A ControlNet (Zhang et al., 2023) is a copy of one U-Net's way down, and adds to each of its feature maps. A U-Net that
was made of that one by removing blocks (BK-SDM, Kim et al., 2023, section 3; KOALA) has fewer of them: fewer layers in
each stage, and not the innermost stages. It is given what is added to the maps that it has as well. In a stage these
are counted from its end: what a stage ends with is what the smaller U-Net was taught to have in common with the larger
one (BK-SDM, section 3.2), and it goes to the layer of the way up that in the larger one takes the last layer's.
diffusers itself would give it the first so many of the list, which belong to other layers and stages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MOST_STAGES, MOST_LAYERS, MOST_CHANNELS = 16, 100, 100_000
"""Of a U-Net; a config that has more was not written for one."""
_ENTRY, _HALVED = "entry", "halved"


@dataclass(frozen=True)
class Encoder:
    """The stages of a U-Net (UNet2DConditionModel) on its way down, outermost first."""

    channels: tuple[int, ...]
    layers: tuple[int, ...]
    middle: bool = True
    """Whether there are blocks between the way down and the way up."""

    @property
    def sound(self) -> bool:
        """Whether it has some stages of some layers each, and not absurdly many."""
        return (
            0 < len(self.channels) <= MOST_STAGES
            and len(self.channels) == len(self.layers)
            and all(type(n) is int and 0 < n <= MOST_CHANNELS for n in self.channels)
            and all(type(n) is int and 0 < n <= MOST_LAYERS for n in self.layers)
        )

    def maps(self) -> dict[tuple[int, int | str], int]:
        """Channels of the feature maps, in the order in which a ControlNet adds to them, by (stage, where in it).

        One after the first convolution, one after each layer of a stage, told from its last one, -1, backwards, and one
        after each halving between stages.
        """
        found: dict[tuple[int, int | str], int] = {(0, _ENTRY): self.channels[0]}
        for stage, (width, count) in enumerate(zip(self.channels, self.layers, strict=True)):
            found |= {(stage, layer): width for layer in range(-count, 0)}
            if stage < len(self.channels) - 1:
                found[stage, _HALVED] = width
        return found

    @property
    def words(self) -> str:
        """Such as `3 feature maps of 320, 320, 640 channels`."""
        maps = self.maps().values()
        return f"{len(maps)} feature maps of {', '.join(map(str, maps))} channels"


@dataclass(frozen=True)
class Kept:
    """What a smaller U-Net has of a larger one's way down."""

    maps: tuple[int, ...]
    """The places of its feature maps among the larger one's."""
    middle: bool
    """Whether what is added after the middle is for it too: not where it has none there, or has it elsewhere."""
    whole: bool
    """Whether these are all that the larger one has, so that nothing has to be left out."""


def kept(larger: Encoder, smaller: Encoder) -> Kept | None:
    """What `smaller` has of `larger`; None where it has feature maps that `larger` has not."""
    theirs, own = larger.maps(), smaller.maps()
    if any(theirs.get(place) != width for place, width in own.items()):
        return None
    order = {place: index for index, place in enumerate(theirs)}
    middle = len(smaller.channels) == len(larger.channels) and (smaller.middle or not larger.middle)
    return Kept(tuple(order[place] for place in own), middle, len(own) == len(theirs) and middle)


def encoder_of(config: Mapping[str, Any]) -> Encoder:
    """The way down of a U-Net or ControlNet of diffusers, built from `config`.

    Raises ValueError where the config does not tell it.
    """
    channels, layers = config.get("block_out_channels", (320, 640, 1280, 1280)), config.get("layers_per_block", 2)
    if isinstance(layers, int) and isinstance(channels, list | tuple):
        layers = (layers,) * len(channels)
    if isinstance(channels, list | tuple) and isinstance(layers, list | tuple):
        found = Encoder(tuple(channels), tuple(layers), config.get("mid_block_type", "") is not None)
        if found.sound:
            return found
    raise ValueError("expected the channels and layers of every block")
