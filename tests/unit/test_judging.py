"""What prompts tell, whether pictures show it, and what the text family is measured by: captions and statistics."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.garments import fashion_mnist_of_blocks
from tstitch_cli.quality import references
from tstitch_cli.quality.attributes import HEADS, AttributeClassifier
from tstitch_cli.quality.captions import NAMES, Scene, scenes, told, whole_wordings, wordings
from tstitch_cli.quality.features import ClassifierFeatures
from tstitch_cli.quality.judging import Judge, told_by_caption, told_by_class
from tstitch_cli.training import measured_by
from tstitch_cli.training.captioned import SEEN, UNSEEN, Captioned
from tstitch_cli.zoo.registry import Zoo

SCENE = ("garment", "colour", "background", "count")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fashion_mnist_of_blocks(tmp_path_factory.mktemp("fashion") / "data")


def test_every_wording_tells_what_is_true_of_its_scene_and_no_more() -> None:
    every = list(scenes())
    assert len(every) == len(set(every)) == 10 * 9 * 9 * 2
    for scene in every:
        for text in wordings(scene):
            known = told(text)
            assert {"garment", "count"} <= known.keys()
            assert known.items() <= scene.answers.items(), text
            # A colour is told by its name; where the garment's is the background's, one name may be either's.
            named = [word for word in text.split() if word in NAMES]
            assert len(known) == 2 + len(named), text
        assert all(told(text) == scene.answers for text in whole_wordings(scene))
        assert not any(told(text) == scene.answers for text in set(wordings(scene)) - set(whole_wordings(scene)))


def test_what_a_caption_tells_is_read_from_its_words() -> None:
    assert told("a sneaker") == {"garment": 7, "count": 0}
    assert told("Two  green handbags on ORANGE.") == {
        "garment": 8,
        "colour": NAMES.index("green"),
        "background": NAMES.index("orange"),
        "count": 1,
    }
    assert told("orange trousers") == {"garment": 1, "colour": NAMES.index("orange"), "count": 0}
    assert told("a sweater on a red background") == {"garment": 2, "background": NAMES.index("red"), "count": 0}
    for other in ("", "a fox", "sneaker a red", "a red sneaker on a green meadow", "7"):
        assert told(other) == {}


def test_whole_wordings_come_first() -> None:
    scene = Scene(8, "green", "orange", 1)
    assert wordings(scene)[: len(whole_wordings(scene))] == whole_wordings(scene)
    assert "green bag on orange" in whole_wordings(scene)


def test_hits_are_what_the_prompt_tells_and_the_picture_shows() -> None:
    entry = Zoo.shipped().entries["fashion-s"]
    judge = Judge({"garment": ("garment",), "background": ("background",), "alignment": SCENE}, told_by_caption)
    prompts = ["a red sneaker on a blue background", "a red sneaker", "a sneaker", "a fox"]
    seen = {
        "garment": torch.tensor([7, 7, 6, 7]),
        "colour": torch.tensor([NAMES.index("red"), NAMES.index("pink"), 0, 0]),
        "background": torch.tensor([NAMES.index("blue"), 0, 0, 0]),
        "count": torch.tensor([0, 0, 0, 0]),
    }
    assert judge.hits(entry, prompts, seen).tolist() == [[1, 1, 1], [1, -1, 0], [0, -1, 0], [-1, -1, -1]]
    assert judge.asking(entry, prompts) == {"garment": 3, "background": 1, "alignment": 3}
    none = Judge().hits(entry, prompts, seen)
    assert (none.shape, Judge().asking(entry, prompts)) == ((4, 0), {})


def test_classes_are_asked_for_by_name_or_number_where_there_are_classes() -> None:
    entry = Zoo.shipped().entries["fashion-s"]
    judge = Judge({"accuracy": ("class",)}, told_by_class)
    hits = judge.hits(entry, ["3", "sneaker", "bag"], {"class": torch.tensor([3, 7, 7])})
    assert hits[:, 0].tolist() == [1, 1, 0]
    text = replace(entry, conditioning=replace(entry.conditioning, kind="text"))
    assert judge.asking(text, ["3", "sneaker"]) == {"accuracy": 0}


@pytest.fixture(scope="module")
def extractor(tmp_path_factory: pytest.TempPathFactory) -> ClassifierFeatures:
    file = tmp_path_factory.mktemp("classifier") / "model.safetensors"
    torch.manual_seed(0)
    save_file(AttributeClassifier().state_dict(), file)
    return ClassifierFeatures("tiny-sd", file=file)


def test_the_classifier_answers_every_attribute(extractor: ClassifierFeatures, data: Path) -> None:
    made = extractor(Captioned(data, "test", 6).pixels(torch.arange(6)))
    assert {name: len(found) for name, found in made.answers.items()} == dict.fromkeys(HEADS, 6)
    assert made.probabilities is not None
    assert torch.equal(made.probabilities.argmax(1), made.answers["garment"])
    attributes = {name for looked_at in extractor.judge.metrics.values() for name in looked_at}
    assert attributes == set(HEADS)
    assert set(Scene(0, "red", "blue", 1).answers) == set(HEADS) - {"style"}


def test_captions_and_statistics_are_written_for_both_kinds_of_combinations(
    extractor: ClassifierFeatures, data: Path, tmp_path: Path
) -> None:
    measured_by.write(data, tmp_path, extractor, 40)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    names = {"reference.npz", "reference-unseen.npz", "reference-ink.npz", "captions-seen.txt", "captions-unseen.txt"}
    assert set(written) == names
    for name, held_out in ((SEEN, False), (UNSEEN, True)):
        lines = written[f"captions-{name}.txt"].decode().splitlines()
        pictures = Captioned(data, "test", 40, combinations=name)
        assert [told(line) for line in lines] == [pictures.scene(i).answers for i in range(40)]
        assert {pictures.scene(i).held_out for i in range(40)} == {held_out}
        assert 3 < sum(line.startswith("a photo of") for line in lines) < 25
        assert 3 < sum(line.split()[0] in NAMES for line in lines) < 25
    found = {
        name: references.read(tmp_path / name, extractor, tmp_path / "work") for name in written if name.endswith("npz")
    }
    seen = Captioned(data, "test", 40).pixels(torch.arange(40))
    expected = references.of_pictures(seen, extractor)
    assert torch.allclose(found["reference.npz"].gaussian.mean, expected.gaussian.mean)
    assert len({reference.digest for reference in found.values()}) == 3
