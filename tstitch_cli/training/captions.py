"""What a captioned picture shows, the wordings that are true of it, and the combinations that training never sees."""

from __future__ import annotations

from dataclasses import dataclass

COLOURS = {
    "red": (212, 38, 48),
    "orange": (245, 130, 30),
    "yellow": (250, 210, 50),
    "green": (48, 158, 76),
    "blue": (44, 96, 214),
    "purple": (124, 60, 178),
    "pink": (246, 138, 186),
    "black": (40, 40, 46),
    "white": (244, 244, 240),
}
"""sRGB, 0 to 255."""
NAMES = tuple(COLOURS)


@dataclass(frozen=True)
class Noun:
    """How a garment is called: one of it, two of it, and the words before the colour."""

    one: str
    many: str
    a: str = ""
    """What stands between the article and the colour: "pair of" trousers."""
    two: str = ""

    def single(self, colour: str) -> str:
        """With its article: "an orange bag", "a pair of red trousers"."""
        phrase = " ".join(filter(None, (self.a, colour, self.one)))
        return f"{'an' if phrase[0] in 'aeio' else 'a'} {phrase}"

    def double(self, colour: str) -> str:
        """ "two green bags", "two pairs of red trousers"."""
        return " ".join(filter(None, ("two", self.two, colour, self.many)))


# In the order of Fashion-MNIST's classes; what follows the first is a second name for the same thing.
NOUNS = (
    (Noun("t-shirt", "t-shirts"),),
    (Noun("trousers", "trousers", "pair of", "pairs of"),),
    (Noun("pullover", "pullovers"), Noun("sweater", "sweaters")),
    (Noun("dress", "dresses"),),
    (Noun("coat", "coats"),),
    (Noun("sandal", "sandals"),),
    (Noun("shirt", "shirts"),),
    (Noun("sneaker", "sneakers"),),
    (Noun("bag", "bags"), Noun("handbag", "handbags")),
    (Noun("ankle boot", "ankle boots"), Noun("boot", "boots")),
)
HELD_OUT = frozenset(
    {
        (0, "purple"),
        (1, "yellow"),
        (2, "orange"),
        (3, "green"),
        (4, "pink"),
        (5, "white"),
        (6, "black"),
        (7, "blue"),
        (8, "red"),
        (9, "orange"),
    }
)
"""(class, colour) of garments that no training picture shows: one in nine, every class and every colour among them."""


@dataclass(frozen=True)
class Scene:
    """One or two garments of one class and colour on a background of another colour."""

    garment: int
    colour: str
    background: str
    count: int

    @property
    def held_out(self) -> bool:
        """Whether training never sees a garment of this class in this colour."""
        return (self.garment, self.colour) in HELD_OUT


def wordings(scene: Scene) -> tuple[str, ...]:
    """Every caption that is true of `scene`, the ones that tell all of it first."""
    whole, partly = [], []
    where = (f" on a {scene.background} background", f" on {scene.background}")
    if scene.background == "orange":
        where = (" on an orange background", " on orange")
    for noun in NOUNS[scene.garment]:
        phrase = noun.double if scene.count == 2 else noun.single
        whole += [phrase(scene.colour) + tail for tail in where]
        whole.append(f"a photo of {phrase(scene.colour)}{where[0]}")
        partly += [phrase(scene.colour), f"a photo of {phrase(scene.colour)}", phrase("") + where[0], phrase("")]
        if scene.count == 1:
            partly.append(f"{scene.colour} {noun.one}")
            whole.append(f"{scene.colour} {noun.one}{where[1]}")
    return tuple(whole + partly)


def vocabulary() -> tuple[str, ...]:
    """Every word of every wording, sorted."""
    scenes = (
        Scene(garment, colour, background, count)
        for garment in range(len(NOUNS))
        for colour in NAMES
        for background in NAMES
        for count in (1, 2)
    )
    return tuple(sorted({word for scene in scenes for text in wordings(scene) for word in text.split()}))
