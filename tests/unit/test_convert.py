"""Original checkpoints become models that compute what the original computes; what is no checkpoint is refused."""

from __future__ import annotations

import argparse
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests import originals, toys
from tstitch_cli import components
from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.networks import checkpoints
from tstitch_cli.networks.convert import CONVERSIONS, convert
from tstitch_cli.networks.models import model_class
from tstitch_cli.zoo import converted
from tstitch_cli.zoo.entry import Entry
from tstitch_cli.zoo.folders import from_folder
from tstitch_cli.zoo.registry import Zoo, is_here

CLASSES = toys.NULL_CLASS
T = torch.tensor([0.0, 501.5, 999.0])
Y = torch.tensor([3, CLASSES, 0])


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of one's own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


def latents(seed: int = 0) -> torch.Tensor:
    return torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def dit(seed: int = 1) -> originals.State:
    return originals.dit_state(seed, width=16, depth=2, classes=CLASSES)


def u_vit(seed: int = 1, *, final: bool = False) -> originals.State:
    return originals.u_vit_state(seed, width=16, depth=4, classes=CLASSES, final=final)


def ldm(seed: int = 1, rows: int = CLASSES + 1) -> originals.State:
    return originals.ldm_state(seed, widths=(8, 16, 16), context=8, rows=rows)


def vq(seed: int = 1) -> originals.State:
    return originals.vq_state(seed, widths=(8, 8, 8, 16), codes=16)


def within(state: originals.State, prefix: str) -> originals.State:
    return {prefix + name: value for name, value in state.items()}


def loaded(entry: Entry, checkpoint: Path, **more: Any) -> Any:
    convert(entry, checkpoint, **more)
    return components.denoiser(entry, torch.float32)


WRAPPED: dict[str, Callable[[originals.State], Any]] = {
    "plain": lambda state: state,
    "training": lambda state: {
        "model": {name: value + 1 for name, value in state.items()},
        "ema": state,
        "opt": {"state": {}, "param_groups": [{"lr": 1e-4}]},
        "args": argparse.Namespace(model="DiT-S/2", epochs=1400),
    },
    "distributed": lambda state: {"state_dict": within(state, "module."), "epoch": 3},
    "parameters": lambda state: {name: torch.nn.Parameter(value) for name, value in state.items()},
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_a_converted_dit_computes_what_the_original_does(home: Path, kind: str) -> None:
    state, entry = dit(), toys.tiny("dit-s-256")
    model = loaded(entry, saved(home / "DiT-S-2.pt", WRAPPED[kind](state)))
    with torch.no_grad():
        found = model(latents(), timestep=T, class_labels=Y).sample
        assert torch.allclose(found, originals.dit(state, latents(), T, Y, heads=2), atol=1e-5, rtol=1e-5)
    assert found.std() > 0.1


def test_a_converted_u_vit_computes_what_the_original_does_at_its_own_count_of_timesteps(home: Path) -> None:
    for final in (False, True):
        state, entry = u_vit(final=final), toys.tiny("u-vit-h-256", final_convolution=final)
        model = loaded(entry, saved(home / "huge.pth", state), overwrite=True)
        with torch.no_grad():
            found = model(latents(), timestep=T, class_labels=Y).sample
            # The least noisy step is 0 in diffusers and 1 to the original network.
            assert torch.allclose(found, originals.u_vit(state, latents(), T + 1, Y, heads=2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("rows", [CLASSES, CLASSES + 1])
def test_a_converted_latent_diffusion_computes_what_the_original_does(home: Path, averaged: bool, rows: int) -> None:
    state, entry = ldm(rows=rows), replace(toys.tiny("ldm-s-256"), parts="converted:ldm-256")
    given: dict[str, Any] = dict(state)
    if averaged:
        nets = {name: value for name, value in state.items() if name.startswith("model.")}
        given |= {name: value * 2 for name, value in nets.items()}
        given |= {f"model_ema.{n.removeprefix('model.').replace('.', '')}": v for n, v in nets.items()}
        given |= {"model_ema.decay": torch.tensor(0.9999), "betas": torch.zeros(1000), "log_one": torch.zeros(1)}
    model = loaded(entry, saved(home / "ldm_s.ckpt", {"state_dict": given, "global_step": 400000}))
    table = model.label_embedding.weight
    assert len(table) == CLASSES + 1
    assert torch.equal(table[:rows], state["cond_stage_model.embedding.weight"])
    with torch.no_grad():
        found = model(latents(), timestep=T, class_labels=Y).sample
        wanted = originals.ldm(state, latents(), T, table[Y][:, None], head=4, groups=4)
        assert torch.allclose(found, wanted, atol=1e-5, rtol=1e-5)
    if rows == CLASSES:
        assert ((table[CLASSES] >= 0) & (table[CLASSES] < 1)).all()


@pytest.mark.parametrize("together", [False, True])
def test_the_autoencoder_of_latent_diffusion_is_converted_with_it(home: Path, together: bool) -> None:
    state, entry = vq(), toys.tiny("ldm-256")
    inside = within(state, "first_stage_model.") if together else {}
    checkpoint = saved(home / "ldm.ckpt", {"state_dict": ldm() | inside})
    apart = None if together else saved(home / "vq.ckpt", {"state_dict": state})
    folder = convert(entry, checkpoint, autoencoder=apart)
    model = components.denoiser(entry, torch.float32)
    pipeline = components.pipeline(entry, model, torch.float32)
    assert (pipeline.unet, pipeline.transformer) == (model, None)
    assert (pipeline.scheduler.config.beta_schedule, pipeline.scheduler.config.beta_end) == ("scaled_linear", 0.0195)
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    original = originals.VQ(state, groups=4)
    with torch.no_grad():
        assert torch.allclose(pipeline.vae.encode(pictures).latents, original.encode(pictures), atol=1e-5, rtol=1e-5)
        found = pipeline.vae.decode(latents()).sample
        assert torch.allclose(found, original.decode(latents()), atol=1e-5, rtol=1e-5)
    # The folder alone says what the zoo's entry says.
    described = from_folder(folder)
    assert described.latent_space.scaling_factor == entry.latent_space.scaling_factor
    assert (described.latent_space.autoencoder, described.component, described.pipeline) == (
        "VQ-f8",
        "unet",
        "ClassConditionalPipeline",
    )
    assert (described.noise, described.conditioning.labels) == (entry.noise, entry.conditioning.labels)


def test_after_conversion_the_name_works(home: Path) -> None:
    entry = toys.tiny("ldm-256")
    assert not is_here(entry)
    with pytest.raises(BadFileError, match="not been converted") as caught:
        converted.require([entry])
    assert "tstitch convert ldm-256 " in str(caught.value.hint)
    folder = convert(entry, saved(home / "x.ckpt", {"state_dict": ldm() | within(vq(), "first_stage_model.")}))
    converted.require([entry])
    assert is_here(entry)
    assert is_here(Zoo.load().entries["ldm-256"])
    assert sorted(path.name for path in folder.iterdir()) == ["model_index.json", "scheduler", "unet", "vae"]
    assert list(folder.rglob("*.bin")) == []
    assert components.digest_of(entry)


def test_safetensors_are_read_too(home: Path) -> None:
    save_file(dit(), home / "dit.safetensors")
    assert loaded(toys.tiny("dit-s-256"), home / "dit.safetensors").config.num_layers == 2


class Harmful:
    """Leaves a mark where its pickle is run."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_a_pickle_with_code_in_it_is_refused_in_one_sentence_and_not_run(home: Path) -> None:
    for content in (Harmful(home / "mark"), dit() | {"epoch": Harmful(home / "mark")}):
        for path in (saved(home / "a.pt", content), home / "b.pt"):
            if path.name == "b.pt":
                path.write_bytes(pickle.dumps(content))
            with pytest.raises(BadFileError) as caught:
                convert(toys.tiny("dit-s-256"), path)
            assert "\n" not in caught.value.message
            assert caught.value.hint
    assert "run code" in caught.value.message
    assert not (home / "mark").exists()
    assert nothing_left(home)


def nothing_left(home: Path) -> bool:
    return [*(home / "data").rglob("*")] == [] or not any(path.is_file() for path in (home / "data").rglob("*"))


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", b"\x80\x02}q\x00.", b"\x80\x02K\x01.", b"not a checkpoint", os.urandom(4096)],
    ids=["empty", "zip", "no tensors", "a number", "text", "noise"],
)
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_what_is_no_checkpoint_is_a_bad_file(home: Path, content: bytes, suffix: str) -> None:
    path = home / f"x.{suffix}"
    path.write_bytes(content)
    with pytest.raises(BadFileError, match=str(path)) as caught:
        convert(toys.tiny("dit-s-256"), path)
    assert "\n" not in caught.value.message
    assert nothing_left(home)


def test_a_cut_checkpoint_is_a_bad_file(home: Path) -> None:
    path = saved(home / "x.pt", dit())
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(BadFileError, match=r"x\.pt"):
        convert(toys.tiny("dit-s-256"), path)


def changed(state: originals.State, **changes: Any) -> originals.State:
    return {name: value for name, value in {**state, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (changed(dit(), **{"blocks.1.mlp.fc1.weight": None}), "missing: transformer_blocks.1.ff.net.0.proj.weight"),
        (changed(dit(), **{"blocks.0.extra.weight": torch.zeros(2)}), "not known: blocks.0.extra.weight"),
        (originals.dit_state(1, width=16, depth=3, classes=CLASSES), "not known: transformer_blocks.2"),
        (originals.dit_state(1, width=24, depth=2, classes=CLASSES, side=4), "pos_embed"),
        (originals.dit_state(1, width=16, depth=2, classes=7), r"embedding_table.weight \(8, 16\) where \(11, 16\)"),
        (originals.dit_state(1, width=16, depth=2, classes=CLASSES, learned=4), r"proj_out_2.weight \(16, 16\)"),
        (changed(dit(), pos_embed=torch.zeros(1, 16, 16)), "pos_embed is not the fixed table"),
        (
            changed(dit(), **{"final_layer.linear.bias": torch.zeros(32).long()}),
            "no floating-point numbers: proj_out_2",
        ),
        (changed(dit(), **{"blocks.0.attn.qkv.bias": torch.tensor(1.0)}), "missing: .*attn1.to_q.bias"),
        (u_vit(), "missing: .*not known: "),
    ],
)
def test_what_does_not_fit_is_named(home: Path, state: originals.State, told: str) -> None:
    with pytest.raises(BadFileError, match=told) as caught:
        convert(toys.tiny("dit-s-256"), saved(home / "x.pt", state))
    assert "x.pt" in caught.value.message
    assert len(caught.value.message) < 1200
    assert nothing_left(home)


def test_latent_diffusion_that_does_not_fit_is_named(home: Path) -> None:
    odd = within({"input_blocks.1.0.odd.weight": torch.zeros(1)}, "model.diffusion_model.")
    for state, told in (
        (originals.ldm_state(1, widths=(8, 16), context=8, rows=11), "missing: "),
        (ldm() | odd, "not known: .*odd.weight"),
        (ldm(rows=5), r"label_embedding.weight \(5, 8\) where \(11, 8\)"),
        (dit(), "missing: "),
    ):
        with pytest.raises(BadFileError, match=told):
            convert(replace(toys.tiny("ldm-s-256"), parts="hub:a/b"), saved(home / "x.ckpt", state))
    with pytest.raises(BadFileError, match="VQModel; missing: "):
        convert(toys.tiny("ldm-256"), saved(home / "x.ckpt", ldm()), autoencoder=saved(home / "y.ckpt", dit()))
    assert nothing_left(home)


def test_what_cannot_be_meant_is_refused(home: Path) -> None:
    with pytest.raises(UsageError, match="hub:facebook"):
        convert(Zoo.load().entries["dit-xl-256"], home / "none.pt")
    with pytest.raises(UsageError, match="no autoencoder") as caught:
        convert(toys.tiny("ldm-256"), saved(home / "x.ckpt", ldm()))
    assert "--autoencoder" in str(caught.value.hint)
    with pytest.raises(UsageError, match="takes its autoencoder from"):
        convert(toys.tiny("dit-s-256"), saved(home / "x.pt", dit()), autoencoder=home / "x.pt")
    with pytest.raises(BadFileError, match="no such file"):
        convert(toys.tiny("dit-s-256"), home / "none.pt")
    with pytest.raises(BadFileError, match=f"{home}: is a directory"):
        convert(toys.tiny("dit-s-256"), home)


def test_what_is_missing_in_a_pickle_is_told_with_its_name(home: Path) -> None:
    path = home / "x.pt"
    path.write_bytes(b"\x80\x02h\x65.")  # asks for what was put away under 101, where nothing was
    with pytest.raises(BadFileError, match=r"can be read: KeyError: 101"):
        convert(toys.tiny("dit-s-256"), path)


def test_what_is_there_is_kept_unless_told_otherwise_and_whatever_fails(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, path = toys.tiny("dit-s-256"), saved(home / "x.pt", dit(1))
    folder = convert(entry, path)
    before = components.digest_of(entry)
    with pytest.raises(BadFileError, match="exists already"):
        convert(entry, path)
    saved(path, dit(2))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("diffusers.ModelMixin.save_pretrained", full)
        with pytest.raises(BadFileError, match="No space left"):
            convert(entry, path, overwrite=True)
    assert components.digest_of(entry) == before
    convert(entry, path, overwrite=True)
    assert components.digest_of(entry) != before
    assert [each.name for each in folder.parent.iterdir()] == [folder.name]


def full_size() -> dict[str, originals.State]:
    """The shapes of the published checkpoints."""
    dits: dict[str, Any] = {"depth": 12, "classes": 1000, "side": 16}
    return {
        "dit-s-256": originals.dit_state(None, width=384, **dits),
        "dit-b-256": originals.dit_state(None, width=768, **dits),
        "u-vit-h-256": originals.u_vit_state(None, width=1152, depth=28, classes=1000, side=16),
        "ldm-256": originals.ldm_state(None, widths=(256, 512, 1024), context=512, rows=1001),
        "ldm-s-256": originals.ldm_state(None, widths=(64, 128, 256), context=256, rows=1001),
    }


def test_the_zoos_architectures_are_those_of_the_published_checkpoints() -> None:
    for name, state in full_size().items():
        entry = Zoo.load().entries[name]
        parts = [(entry.architecture, state)]
        if name == "ldm-256":
            parts.append((entry.components["vae"], originals.vq_state(None, widths=(128, 256, 256, 512), codes=16384)))
        for component, original in parts:
            assert component is not None
            with torch.device("meta"):
                wanted = model_class(component.model)(**component.config).state_dict()
            original.pop("pos_embed" if component.model == "OriginalDiT" else "", None)
            found = CONVERSIONS[component.model](original, component.config)
            assert {n: v.shape for n, v in found.items()} == {n: v.shape for n, v in wanted.items()}


def test_the_averaged_weights_are_preferred(home: Path) -> None:
    path = saved(home / "x.pt", {"model": {"a": torch.zeros(1)}, "ema": {"a": torch.ones(1)}})
    assert checkpoints.read(path)["a"] == 1


FLUX_ONCE = {"img_in": 1, "txt_in": 1, "final_layer.linear": 1, "final_layer.adaLN_modulation.1": 2} | {
    f"{name}.{layer}_layer": 1 for name in ("time_in", "guidance_in", "vector_in") for layer in ("in", "out")
}
FLUX_DOUBLE = {"mod.lin": 6, "attn.qkv": 3, "attn.proj": 1, "mlp.0": 4, "mlp.2": 1}
FLUX_SINGLE = {"modulation.lin": 3, "linear1": 7, "linear2": 1}


def flux_state(width: int, inputs: int, double: int, single: int) -> originals.State:
    """All that black-forest-labs/flux calls its parameters; every matrix has `inputs` columns."""
    rows = {name: times * width for name, times in FLUX_ONCE.items()}
    scales = []
    for stream in ("img", "txt"):
        for n in range(double):
            block = f"double_blocks.{n}.{stream}_"
            rows |= {block + name: times * width for name, times in FLUX_DOUBLE.items()}
            scales += [f"{block}attn.norm.{of}_norm.scale" for of in ("query", "key")]
    for n in range(single):
        rows |= {f"single_blocks.{n}.{name}": times * width for name, times in FLUX_SINGLE.items()}
        scales += [f"single_blocks.{n}.norm.{of}_norm.scale" for of in ("query", "key")]
    random = torch.Generator().manual_seed(0)
    state = {f"{name}.weight": torch.randn(count, inputs, generator=random) for name, count in rows.items()}
    state |= {f"{name}.bias": torch.randn(count, generator=random) for name, count in rows.items()}
    return state | {name: torch.randn(4, generator=random) for name in scales}


def test_flux_is_converted_as_diffusers_converts_it() -> None:
    """Diffusers knows one width alone; that of the columns it does not look at."""
    from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers

    state = flux_state(width=3072, inputs=2, double=2, single=1)
    made = CONVERSIONS["FluxTransformer2DModel"](state, {"num_attention_heads": 24, "attention_head_dim": 128})
    expected = convert_flux_transformer_checkpoint_to_diffusers(dict(state))
    assert made.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in made.items())


def test_a_converted_flux_has_every_parameter_of_the_model() -> None:
    architecture = Zoo.shipped().entries["flux-mini"].architecture
    assert architecture is not None
    with torch.device("meta"):
        model = model_class(architecture.model)(**architecture.config)
    made = CONVERSIONS[architecture.model](flux_state(16, 2, 5, 10), model.config)
    assert made.keys() == model.state_dict().keys()
