"""The zoo's files and how names become entries."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.fetching.fetch_command import fetch_command
from tstitch_cli.schema import PlannedDenoiser
from tstitch_cli.zoo import registry
from tstitch_cli.zoo.controls import Control
from tstitch_cli.zoo.entry import class_numbers
from tstitch_cli.zoo.preflight import check
from tstitch_cli.zoo.registry import Zoo, is_here, path_of

FASHION = ("fashion-s", "fashion-b", "fashion-xl")
DISTILLED = ("bk-sdm-tiny", "bk-sdm-small", "bk-sdm-base", "sd14")
TRANSFORMERS = ("dit-s-256", "dit-b-256", "dit-xl-256")
U_NETS = ("ldm-s-256", "ldm-256")


@pytest.fixture(autouse=True)
def nobodys_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    for name in ("TSTITCH_ZOO", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)


def own_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Zoo:
    path = tmp_path / "mine" / "zoo.yaml"
    path.parent.mkdir()
    path.write_text("schema: tstitch/zoo/1\n" + text)
    monkeypatch.setenv("TSTITCH_ZOO", str(path))
    return Zoo.load()


def test_shipped_entries_stitch_within_their_families() -> None:
    zoo = Zoo.load()
    assert set(zoo.entries) >= {*FASHION, *DISTILLED, *TRANSFORMERS, *U_NETS, "u-vit-h-256"}
    assert zoo.remarks == ()
    for family in (FASHION, DISTILLED, TRANSFORMERS, U_NETS):
        entries = [zoo.resolve(name) for name in family]
        check(entries)
        sizes = [entry.parameters or 0 for entry in entries]
        assert sizes == sorted(sizes)
        assert sizes[0] > 0


def test_a_shipped_file_stands_by_itself() -> None:
    whole = Zoo.shipped().entries
    for family in {entry.family for entry in whole.values()}:
        names = [name for name, entry in whole.items() if entry.family == family]
        alone = Zoo.shipped(names).entries
        assert {name: alone[name] for name in names} == {name: whole[name] for name in names}
    assert Zoo.shipped([]).entries == {}


MOVABLE = {"dit-xl-256": "refs/pr/1"}
"""A pull request's ref is the one place where a repository has safetensors: no pin, as the README says."""


def test_a_pinned_revision_is_a_whole_commit() -> None:
    revisions = {name: entry.revision for name, entry in Zoo.load().entries.items() if entry.revision is not None}
    assert {*DISTILLED} <= {*revisions}
    assert {name: revision for name, revision in revisions.items() if not re.fullmatch("[0-9a-f]{40}", revision)} == (
        MOVABLE
    )


def test_parameters_of_the_bundled_family_are_those_of_the_models() -> None:
    import torch
    from diffusers import DiTTransformer2DModel

    zoo = Zoo.load()
    for name, width, depth, heads in (("fashion-s", 96, 3, 3), ("fashion-b", 160, 6, 4), ("fashion-xl", 256, 10, 4)):
        with torch.device("meta"):
            model = DiTTransformer2DModel(
                sample_size=8,
                patch_size=2,
                in_channels=4,
                out_channels=4,
                num_layers=depth,
                num_attention_heads=heads,
                attention_head_dim=width // heads,
                num_embeds_ada_norm=10,
                norm_num_groups=4,
            )
        assert sum(p.numel() for p in model.parameters()) == zoo.entries[name].parameters


@pytest.mark.parametrize(
    ("typed", "meant"), [("fashion-m", "fashion-s"), ("sd16", "sd14"), ("bksdm-tiny", "bk-sdm-tiny")]
)
def test_a_mistyped_name_gets_the_near_ones(typed: str, meant: str) -> None:
    with pytest.raises(UsageError, match=typed) as caught:
        Zoo.load().resolve(typed)
    assert caught.value.hint is not None
    assert meant in caught.value.hint
    assert "tstitch zoo" in caught.value.hint


@pytest.mark.parametrize(
    "name", ["", "a/b/c", "..", "/", "~nobody-of-that-name", "bundled:fashion", "hub:", "a\0b", "ü/ü"]
)
def test_what_is_no_denoiser_is_refused_in_one_message(name: str) -> None:
    with pytest.raises((UsageError, BadFileError)):
        Zoo.load().resolve(name)


def test_user_entries_build_on_shipped_families_and_override_with_a_remark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo = own_zoo(
        tmp_path,
        monkeypatch,
        """
denoisers:
  sd14: {family: stable-diffusion, source: "folder:sd"}
  mine:
    family: stable-diffusion
    source: folder:sd
    subfolder: ""
    parts: hub:CompVis/stable-diffusion-v1-4
    defaults: {steps: 4, scheduler: lcm, guidance: 1, size: 256, batch_size: 2, dtype: float32}
""",
    )
    assert [remark.split(":")[0] for remark in zoo.remarks] == ["sd14"]
    # A folder is meant from where the zoo file is, whatever the working folder.
    assert zoo.entries["sd14"].source == f"folder:{(tmp_path / 'mine' / 'sd').resolve()}"
    assert zoo.entries["sd14"].parts == zoo.entries["sd14"].source
    assert zoo.entries["sd14"].subfolder == "unet"
    mine = zoo.entries["mine"]
    assert (mine.subfolder, mine.defaults.steps, mine.noise) == ("", 4, zoo.entries["bk-sdm-tiny"].noise)
    assert mine.title == "mine"


def test_the_users_file_is_found_in_the_configuration_folder(tmp_path: Path) -> None:
    import platformdirs

    path = Path(platformdirs.user_config_dir("tstitch")) / "zoo.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("schema: tstitch/zoo/1\ndenoisers: {mine: {family: fashion, source: 'hub:me/mine'}}\n")
    assert Zoo.load().entries["mine"].parts == "bundled:fashion"


def test_all_faults_of_a_zoo_file_are_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadFileError) as caught:
        own_zoo(
            tmp_path,
            monkeypatch,
            """
families:
  odd:
    component: unet
    pipeline: MyPipeline
    licence: MIT
    latent_space: {name: odd, channels: 0, downscale: 8, autoencoder: x}
    noise: {prediction: epsilon, beta_schedule: linear}
    conditioning: {kind: class}
    defaults: {steps: 20, scheduler: dddim, guidance: 1.5, size: 32, batch_size: 8, dtype: float32}
denoisers:
  a: {family: strange, source: "http://example.org/x"}
  b: {family: odd, source: "bundled:../../secret", parameters: -1}
""",
        )
    message = caught.value.message
    wanted = (
        "pipeline",
        "channels",
        "noise",
        "conditioning",
        "scheduler",
        "a.family",
        "a.source",
        "b.source",
        "parameters",
    )
    assert [what for what in wanted if what not in message] == []


def test_a_zoo_file_named_by_the_environment_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSTITCH_ZOO", str(tmp_path / "none.yaml"))
    with pytest.raises(BadFileError, match=r"none\.yaml"):
        Zoo.load()


def snapshot(tmp_path: Path, repository: str, revision: str) -> Path:
    folder = tmp_path / "huggingface" / "hub" / f"models--{repository.replace('/', '--')}" / "snapshots" / revision
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "config.json").write_text("{}")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    (folder / "model_index.json").write_text("{}")
    return folder


def test_a_hub_entry_is_here_when_its_own_revision_is_in_the_cache(tmp_path: Path) -> None:
    entry = Zoo.load().entries["sd14"]
    assert entry.revision is not None
    snapshot(tmp_path, "CompVis/stable-diffusion-v1-4", "0" * 40)
    assert not is_here(entry)
    folder = snapshot(tmp_path, "CompVis/stable-diffusion-v1-4", entry.revision)
    assert is_here(entry)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    assert not is_here(entry)


def test_a_bundled_entry_is_here_with_weights_and_parts_and_its_scaling_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = tmp_path / "zoo" / "bundled"
    bundled.mkdir(parents=True)
    monkeypatch.setattr(registry, "BUNDLED", bundled)
    # The shipped files stand beside the bundled folder, which has just moved.
    for path in Path(registry.__file__).parent.iterdir():
        if path.suffix in (".yaml", ".txt"):
            (bundled.parent / path.name).write_bytes(path.read_bytes())
    zoo = Zoo.load()
    assert not is_here(zoo.entries["fashion-s"])
    assert zoo.resolve("fashion-s").latent_space.scaling_factor is None
    weights = bundled / "fashion" / "fashion-s" / "transformer"
    weights.mkdir(parents=True)
    (weights / "config.json").write_text("{}")
    (weights / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    assert not is_here(zoo.entries["fashion-s"])
    (bundled / "fashion" / "model_index.json").write_text("{}")
    assert is_here(zoo.entries["fashion-s"])
    (bundled / "fashion" / "vae").mkdir()
    config = {"_class_name": "AutoencoderKL", "scaling_factor": 0.75}
    (bundled / "fashion" / "vae" / "config.json").write_text(json.dumps(config))
    assert zoo.resolve("fashion-s").latent_space.scaling_factor == 0.75


def test_path_of_stays_inside_the_bundle() -> None:
    assert path_of("bundled:fashion/fashion-s").parts[-3:] == ("bundled", "fashion", "fashion-s")
    assert path_of("folder:/some where") == Path("/some where")
    assert path_of("converted:dit-s-256").parts[-3:] == ("tstitch", "converted", "dit-s-256")
    for source in ("bundled:../../etc", "bundled:/etc", "hub:a/b", "bundled:", "fashion", "", "converted:../x"):
        with pytest.raises(UsageError):
            path_of(source)


def test_a_plans_denoiser_is_found_by_name_or_by_its_source() -> None:
    zoo = Zoo.load()
    known = zoo.planned(PlannedDenoiser("sd14", "hub:CompVis/stable-diffusion-v1-4", "a" * 40))
    assert (known.name, known.revision) == ("sd14", "a" * 40)
    with pytest.raises(UsageError):
        zoo.planned(PlannedDenoiser("fashion-s", "bundled:elsewhere", None))


def test_a_zoo_name_may_have_another_revision() -> None:
    zoo = Zoo.load()
    assert zoo.resolve("sd14@main") == replace(zoo.entries["sd14"], revision="main")
    with pytest.raises(UsageError, match="no denoiser 'fashion-s@main'"):
        zoo.resolve("fashion-s@main")


def test_the_command_that_fetches_names_what_the_command_line_takes() -> None:
    zoo = Zoo.load()
    sd14, dit = zoo.entries["sd14"], zoo.entries["dit-s-256"]
    other = replace(sd14, name="mine", source="hub:some/one", revision="b" * 40)
    entries = [zoo.entries["fashion-s"], sd14, replace(sd14, revision="a" * 40), other, dit]
    command = fetch_command(entries, "float16", Control("my net", "folder:/my net"), None)
    named = f"sd14 sd14@{'a' * 40} some/one@{'b' * 40} dit-s-256"
    assert command == f"tstitch fetch {named} --dtype float16 --control 'my net'"


def test_class_names_become_numbers_and_strange_ones_get_the_near() -> None:
    entry = Zoo.load().entries["fashion-s"]
    assert class_numbers(entry, ["ankle boot", " T-Shirt ", "BAG"]) == [9, 0, 8]
    with pytest.raises(UsageError, match="ankel boot") as caught:
        class_numbers(entry, ["bag", "ankel boot"])
    assert caught.value.hint == "did you mean ankle boot?"
    with pytest.raises(UsageError) as caught:
        class_numbers(entry, ["xyzzy"])
    assert "trouser" in str(caught.value.hint)


def test_the_zoo_is_listed_without_anything_heavy() -> None:
    code = (
        "import sys; from tstitch_cli.zoo.registry import Zoo, is_here\n"
        "assert [is_here(e) for e in Zoo.load().entries.values()]\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'huggingface_hub', 'PIL', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_class_names_may_stand_in_a_file_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = """
denoisers:
  mine:
    family: fashion
    source: hub:me/mine
    parts: hub:me/mine@refs/pr/1
    conditioning: {kind: class, labels_from: names.txt}
"""
    with pytest.raises(BadFileError, match=r"names\.txt"):
        own_zoo(tmp_path, monkeypatch, mine)
    names = tmp_path / "mine" / "names.txt"
    names.write_text("tench, Tinca tinca\n\n crane \n", encoding="utf-8")
    entry = Zoo.load().entries["mine"]
    assert entry.conditioning.labels == ("tench, Tinca tinca", "crane")
    assert entry.conditioning.labels_from is None
    for content in (b"", b"\xff\xfe\xff"):
        names.write_bytes(content)
        with pytest.raises(BadFileError, match=r"names\.txt"):
            Zoo.load()
