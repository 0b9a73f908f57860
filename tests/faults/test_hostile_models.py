"""Models, LoRAs and zoo files made to run code, to hang or to eat memory: refused, and nothing of theirs is run."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.test_provenance import MADE
from tstitch_cli import components, lora, provenance
from tstitch_cli.errors import BadFileError, TstitchError, UsageError
from tstitch_cli.networks import checkpoints
from tstitch_cli.zoo import controls, folders, needed
from tstitch_cli.zoo.encoders import Encoder
from tstitch_cli.zoo.registry import Zoo

WEIGHTS = "diffusion_pytorch_model.safetensors"


class Trap:
    """Unpickled, it makes the file `sprung`."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.sprung,))


@pytest.fixture
def sprung(tmp_path: Path) -> Path:
    return tmp_path / "sprung"


def load(folder: Path) -> None:
    entry = folders.from_folder(folder)
    components.pipeline(entry, components.denoiser(entry, torch.float32), torch.float32)


@pytest.mark.parametrize("part", ["transformer", "vae"])
@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "pytorch_model.bin", "model.ckpt", "weights.pt"])
def test_a_pickle_is_never_opened(folder: Path, sprung: Path, part: str, name: str) -> None:
    (folder / part / name).write_bytes(pickle.dumps(Trap(sprung)))
    load(folder)  # what is loaded are the safetensors beside it
    (folder / part / WEIGHTS).unlink()
    with pytest.raises(BadFileError, match="nothing but safetensors") as caught:
        load(folder)
    assert name in caught.value.message
    assert not sprung.exists()


def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path, sprung: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.zeros(2), "trap": Trap(sprung)}, path)
    with pytest.raises(BadFileError, match="could run code"):
        checkpoints.read(path)
    path.write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(BadFileError):
        checkpoints.read(path)
    assert not sprung.exists()


CODE: list[tuple[str, dict[str, Any]]] = [
    ("model_index.json", {"vae": ["os", "system"]}),
    ("model_index.json", {"vae": ["evil", "AutoencoderKL"]}),
    ("model_index.json", {"scheduler": ["subprocess", "Popen"]}),
    ("model_index.json", {"transformer": ["torch", "load"]}),
    ("model_index.json", {"_class_name": ["evil", "Pipeline"]}),
    ("model_index.json", {"custom_pipeline": "evil/pipeline"}),
    ("model_index.json", {"feature_extractor": ["transformers", "pipeline"]}),
    ("transformer/config.json", {"_class_name": "Evil"}),
    ("transformer/config.json", {"auto_map": {"AutoModel": "evil.Model"}}),
    ("vae/config.json", {"auto_map": {"AutoModel": "evil.Model"}}),
    ("scheduler/scheduler_config.json", {"auto_map": {"AutoModel": "evil.Model"}}),
]


@pytest.mark.parametrize(("name", "change"), CODE)
def test_code_of_its_own_is_not_run(
    folder: Path, sprung: Path, monkeypatch: pytest.MonkeyPatch, name: str, change: Mapping[str, Any]
) -> None:
    for place in (folder, folder / "transformer", folder / "vae", folder / "scheduler"):
        (place / "evil.py").write_text(f"import pathlib; pathlib.Path({str(sprung)!r}).touch()")
        monkeypatch.syspath_prepend(str(place))
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(content | change))
    with pytest.raises((UsageError, BadFileError)):
        load(folder)
    assert not sprung.exists()
    assert "evil" not in sys.modules


def lora_file(path: Path, options: Mapping[str, Any] | None, name: str = "unet.attn.to_q") -> Path:
    header: dict[str, Any] = {
        f"{name}.lora_{side}.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [16 * i, 16 * i + 16]}
        for i, side in enumerate("AB")
    }
    if options is not None:
        header["__metadata__"] = {"lora_adapter_metadata": json.dumps(options)}
    told = json.dumps(header).encode()
    path.write_bytes(len(told).to_bytes(8, "little") + told + bytes(32))
    return path


SOUND: dict[str, Any] = {
    "unet.r": 2,
    "unet.lora_alpha": 4,
    "unet.target_modules": ["attn.to_q"],
    "unet.megatron_core": "megatron.core",
}


@pytest.mark.parametrize("options", [None, {}, SOUND, {**SOUND, "unet.use_dora": False, "unet.eva_config": None}])
def test_a_lora_as_programs_save_them(tmp_path: Path, options: Mapping[str, Any] | None) -> None:
    path = lora_file(tmp_path / "a.safetensors", options)
    assert lora.read([f"{path}:0.5"])[0].scale == 0.5


@pytest.mark.parametrize(
    "change",
    [
        {"unet.megatron_config": {"a": 1}, "unet.megatron_core": "evil"},
        {"unet.auto_mapping": {"parent_library": "evil", "base_model_class": "Model"}},
        {"unet.layer_replication": [[0, 1000000]]},
        {"unet.target_modules": "(a+)+$"},
        {"unet.exclude_modules": "(a+)+$"},
        {"unet.target_modules": ["(a+)+$"]},
        {"unet.rank_pattern": {"(.*)*x": 4}},
        {"unet.alpha_pattern": {"(.*)*x": 4}},
        {"unet.something_new": "evil"},
    ],
)
def test_a_lora_that_asks_for_more_than_a_lora(tmp_path: Path, change: Mapping[str, Any]) -> None:
    with pytest.raises(BadFileError, match=r"a\.safetensors: "):
        lora.read([str(lora_file(tmp_path / "a.safetensors", {**SOUND, **change}))])


def test_a_lora_whose_layers_are_patterns(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match="is no name of a layer"):
        lora.read([str(lora_file(tmp_path / "a.safetensors", None, name="(a+)+$"))])


@pytest.mark.parametrize("layers", [2**31, -1, "2", [2] * 5, True, 10**30, [2, 2, 2, 1.5]])
def test_blocks_without_end(tmp_path: Path, layers: Any) -> None:
    """A ControlNet's config, or a U-Net's, that would take the memory of as many feature maps as it says."""
    content = {"_class_name": "ControlNetModel", "layers_per_block": layers}
    (tmp_path / "config.json").write_text(json.dumps(content))
    entry = Zoo.shipped().entries["sd14"]
    with pytest.raises(BadFileError, match="blocks"):
        controls.resolve((), str(tmp_path), entry)
    with pytest.raises(BadFileError, match="blocks"):
        controls.fit("canny", Encoder((320,), (2,)), "sd14", content)


@pytest.fixture
def zoo_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "zoo.yaml"
    monkeypatch.setenv("TSTITCH_ZOO", str(path))
    return path


def test_a_zoo_file_that_is_a_chain_without_end(zoo_file: Path) -> None:
    one = '  d{0}: {{family: fashion, source: "folder:x", architecture: {{like: d{1}}}}}\n'
    chain = "".join(one.format(i, i + 1) for i in range(2000))
    zoo_file.write_text(f"schema: tstitch/zoo/1\ndenoisers:\n{chain}")
    with pytest.raises(BadFileError, match="more than 20 times over"):
        Zoo.load()


def test_class_names_from_a_file_without_end(zoo_file: Path) -> None:
    conditioning = "conditioning: {kind: class, labels_from: /dev/zero}"
    zoo_file.write_text(
        f'schema: tstitch/zoo/1\ndenoisers:\n  a: {{family: fashion, source: "folder:x", {conditioning}}}\n'
    )
    with pytest.raises(BadFileError, match="/dev/zero: is larger than 4 MiB"):
        Zoo.load()


@pytest.mark.parametrize(
    "source", ["bundled:../../x", "hub:../../x", "hub:a/b/../../c", "converted:../x", "file:///etc", "folder:", "os"]
)
def test_sources_lead_nowhere_else(zoo_file: Path, source: str) -> None:
    zoo_file.write_text(f'schema: tstitch/zoo/1\ndenoisers:\n  a: {{family: fashion, source: "{source}"}}\n')
    with pytest.raises(BadFileError, match=r"a\.source: expected bundled:"):
        Zoo.load()


def test_a_picture_that_names_a_host_it_does_not_have() -> None:
    content = json.loads(provenance.to_json(MADE))
    content["setting"]["host"] = "evil"
    with pytest.raises(BadFileError, match="host"):
        provenance.from_json(json.dumps(content))


def test_what_is_needed_of_a_folder_never_leads_out_of_it() -> None:
    paths = ["model_index.json", "../../etc/passwd", "transformer/../../x.safetensors", "transformer/config.json"]
    with pytest.raises(TstitchError):
        needed.denoiser_files(paths, "transformer", "float32", "evil/model")
