"""What captioned pictures show, the wordings true of it, what a wording tells, and what training never sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

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

    @property
    def answers(self) -> dict[str, int]:
        """What it shows, attribute by attribute, numbered as in the heads of the classifier."""
        return {
            "garment": self.garment,
            "colour": NAMES.index(self.colour),
            "background": NAMES.index(self.background),
            "count": self.count - 1,
        }


def scenes() -> Iterator[Scene]:
    """Every scene that words can tell; no picture shows those whose colours are the same."""
    for garment in range(len(NOUNS)):
        for colour in NAMES:
            for background in NAMES:
                for count in (1, 2):
                    yield Scene(garment, colour, background, count)


def wordings(scene: Scene) -> tuple[str, ...]:
    """Every caption that is true of `scene`, the ones that tell all of it first."""
    return whole_wordings(scene) + _partial_wordings(scene)


def whole_wordings(scene: Scene) -> tuple[str, ...]:
    """The captions that tell all of `scene`."""
    texts = []
    on_background, on_colour = _where(scene)
    for noun in NOUNS[scene.garment]:
        phrase = _phrase(scene, noun, scene.colour)
        texts += [phrase + on_background, phrase + on_colour, f"a photo of {phrase}{on_background}"]
        if scene.count == 1:
            texts.append(f"{scene.colour} {noun.one}{on_colour}")
    return tuple(texts)


def _partial_wordings(scene: Scene) -> tuple[str, ...]:
    texts = []
    for noun in NOUNS[scene.garment]:
        phrase, colourless = _phrase(scene, noun, scene.colour), _phrase(scene, noun, "")
        texts += [phrase, f"a photo of {phrase}", colourless + _where(scene)[0], colourless]
        if scene.count == 1:
            texts.append(f"{scene.colour} {noun.one}")
    return tuple(texts)


def _phrase(scene: Scene, noun: Noun, colour: str) -> str:
    return noun.double(colour) if scene.count == 2 else noun.single(colour)


def _where(scene: Scene) -> tuple[str, str]:
    a = "an" if scene.background == "orange" else "a"
    return f" on {a} {scene.background} background", f" on {scene.background}"


def told(text: str) -> dict[str, int]:
    """What a caption tells of its picture, as in `Scene.answers`; nothing where it is no wording of any scene.

    The inverse of `wordings`: what all scenes that `text` is true of have in common. Letter case, blanks and a full
    stop do not matter.
    """
    return dict(_meanings().get(" ".join(text.casefold().removesuffix(".").split()), {}))


@cache
def _meanings() -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for scene in scenes():
        answers = scene.answers
        for text in wordings(scene):
            known = found.setdefault(text, answers)
            found[text] = {name: answer for name, answer in known.items() if answers[name] == answer}
    return found


def vocabulary() -> tuple[str, ...]:
    """Every word of every wording, sorted."""
    return tuple(sorted({word for scene in scenes() for text in wordings(scene) for word in text.split()}))
