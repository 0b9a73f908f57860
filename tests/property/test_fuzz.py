"""Ten thousand damaged files: each is read or refused in a sentence, in bounded time and memory, and harms nothing.

    TSTITCH_FUZZ_SEED=7 TSTITCH_FUZZ_EACH=100000 python -m pytest tests/property/test_fuzz.py

draws other files, and more of them.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.builders import measured
from tests.property import mutations
from tests.property.archives import ARCHIVES
from tests.property.kinds import Kind
from tests.property.models import MODELS
from tests.unit.test_folders import FILES
from tests.unit.test_provenance import MADE
from tstitch_cli import documents, inputs, lora, provenance, quantities
from tstitch_cli.commands import show
from tstitch_cli.commands.terminal import printable
from tstitch_cli.errors import BadFileError, TstitchError, UsageError
from tstitch_cli.images import save_picture
from tstitch_cli.jobs import prompts
from tstitch_cli.plan import make_plan
from tstitch_cli.schema import PLAN_SCHEMA, PROFILE_SCHEMA, Setting
from tstitch_cli.zoo import controls, folders, registry, weights
from tstitch_cli.zoo.registry import Zoo

SEED = os.environ.get("TSTITCH_FUZZ_SEED", "2402.14167")
EACH = int(os.environ.get("TSTITCH_FUZZ_EACH", "500"))
"""Files of each kind."""
MEMORY = 512 << 20
"""Bytes that all readers together may take beyond what there was before."""
SECONDS = 10
"""Of the processor, for one file; a reader that needs more hangs."""
ROOT = Path(__file__).parents[2]


def _profiles(folder: Path) -> list[bytes]:
    made = [measured(), measured(10, (0.1, 0.2), flops=False)]
    found = [documents.render(each, PROFILE_SCHEMA).encode() for each in made]
    return found + [path.read_bytes() for path in sorted((ROOT / "profiles").glob("rtx3090-*.yaml"))]


def _read_profile(path: Path) -> object:
    profile = documents.read_profile(path)
    return make_plan(profile, budget=quantities.parse_budget("100%"))


def _plans(folder: Path) -> list[bytes]:
    made = [make_plan(measured(10, (0.1, 0.3)), budget=quantities.parse_budget(budget)) for budget in ("70%", "2s")]
    return [documents.render(plan, PLAN_SCHEMA).encode() for plan in made]


def _read_plan(path: Path) -> object:
    plan = documents.read_plan(path)
    again = documents.parse(documents.render(plan, PLAN_SCHEMA), "", type(plan), PLAN_SCHEMA, lambda _: ())
    assert again == plan
    return again


OWN_ZOO = b"""schema: tstitch/zoo/1
families:
  odd:
    component: unet
    pipeline: StableDiffusionPipeline
    licence: MIT
    latent_space: {name: odd, channels: 4, downscale: 8, autoencoder: x}
    noise: {prediction: epsilon, beta_schedule: linear, beta_start: 0.0001, beta_end: 0.02}
    conditioning: {kind: class, labels: [cat, dog], labels_from: null}
    defaults: {steps: 20, scheduler: ddim, guidance: 1.5, size: 32, batch_size: 8, dtype: float32}
denoisers:
  a: {family: odd, source: "hub:me/mine", revision: main, parameters: 1000}
  b: {family: fashion, source: "folder:b", title: mine, subfolder: "", parts: "bundled:fashion"}
  c: {family: fashion, source: "folder:c", architecture: {like: dit-s-256, config: {num_layers: 3}}}
controls:
- {name: canny, source: "hub:me/canny", pipeline: StableDiffusionPipeline, width: 768,
   encoder: {channels: [320, 640], layers: [2, 2]}}
"""


def _zoos(folder: Path) -> list[bytes]:
    return [OWN_ZOO, *((ROOT / "tstitch_cli/zoo" / name).read_bytes() for name in ("fashion.yaml", "controls.yaml"))]


def _read_zoo(path: Path) -> object:
    zoo = Zoo.load()
    entries = list(zoo.entries.values())[-3:]
    return [controls.resolve(zoo.controls, "canny", entry) for entry in entries if entry.conditioning.width == 768]


def _class_names(folder: Path) -> list[bytes]:
    return ["tench\nхаски, husky\n\n 狐 \n".encode(), b"T-shirt\r\nbag\r\n"]


def _read_class_names(path: Path) -> object:
    naming = path.with_name("zoo.yaml")
    naming.write_text(
        "schema: tstitch/zoo/1\ndenoisers:\n"
        f'  a: {{family: fashion, source: "folder:a", conditioning: {{kind: class, labels_from: {path.name}}}}}\n'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TSTITCH_ZOO", str(naming))
        return [printable(label) for label in Zoo.load().entries["a"].conditioning.labels]


def _pictures_made(folder: Path) -> list[bytes]:
    for index, size in enumerate((2, 8)):
        save_picture(folder / f"{index}.png", Image.new("RGB", (size, size)), MADE, overwrite=True)
    return [path.read_bytes() for path in sorted(folder.glob("*.png"))]


def _show(path: Path) -> object:
    made = provenance.read(path)
    shown = [printable(value) for _, value in show._facts(made)]
    assert all("\x1b" not in value for value in shown)
    return json.loads(provenance.to_json(made)), provenance.parameters_text(made)


def _pictures(folder: Path) -> list[bytes]:
    image = Image.effect_noise((24, 16), 60).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    found = []
    for kind in ("PNG", "JPEG", "WEBP", "BMP"):
        written = io.BytesIO()
        image.save(written, kind, **({} if kind == "BMP" else {"exif": exif}))
        found.append(written.getvalue())
    palette = io.BytesIO()
    image.quantize(16).save(palette, "PNG", transparency=3, icc_profile=b"\0" * 128)
    return [*found, palette.getvalue()]


def _read_picture(path: Path) -> object:
    setting = Setting(20, "ddim", 1.5, 1, 32, "float32", "cpu", strength=0.5)
    return inputs.read(setting, path, None, None)


def _prompts(folder: Path) -> list[bytes]:
    return ["a red fox\n\n  снег, 雪, ثلج \n".encode(), b"\xef\xbb\xbfbag\r\ndress\n", b"prompt,seed\nbag,1\n"]


def _csv_prompts(folder: Path) -> list[bytes]:
    return [b'prompt,seed,count\nbag,1,\n"a ""red""\nfox",,3\n', b"negative_prompt,prompt\r\n,bag\r\nblue,dress\r\n"]


def _json_lines_prompts(folder: Path) -> list[bytes]:
    return ['{"prompt": "снег", "seed": 7}\n\n{"prompt": "bag", "negative_prompt": "red", "count": 2}\n'.encode()]


def _read_prompts(path: Path) -> object:
    found = prompts.read(path)
    provenance.refuse_untellable([each.text for each in found])
    return found


def _safetensors(folder: Path) -> list[bytes]:
    def file(metadata: dict[str, str] | None) -> bytes:
        names = [f"unet.down_blocks.0.attn.to_q.lora_{side}.weight" for side in "AB"]
        header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
        for index, name in enumerate(names):
            header[name] = {"dtype": "F32", "shape": [4, 2], "data_offsets": [32 * index, 32 * index + 32]}
        told = json.dumps(header).encode()
        return len(told).to_bytes(8, "little") + told + bytes(64)

    options = {"unet.r": 4, "unet.lora_alpha": 4, "unet.target_modules": ["to_q"], "unet.rank_pattern": {"to_q": 4}}
    return [file(None), file({"lora_adapter_metadata": json.dumps(options)})]


def _read_safetensors(path: Path) -> object:
    with contextlib.suppress(BadFileError):
        weights.parameters_in(path.parent)
    return lora.read([f"{path}:0.5"])


def _configs(name: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: [json.dumps(FILES[name]).encode()]


def _read_folder(path: Path) -> object:
    folder = path if path.is_dir() else path.parent if path.name == "model_index.json" else path.parent.parent
    for name, content in FILES.items():
        if not (folder / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(json.dumps(content))
    entry = folders.from_folder(folder)
    if path.parent.name == "unet":
        folders.refuse_foreign_denoiser(path)
    return entry, registry.is_here(entry)


CONTROL = {"_class_name": "ControlNetModel", "layers_per_block": 2, "cross_attention_dim": 768}


def _read_control(path: Path) -> object:
    zoo = Zoo.shipped()
    found = controls.resolve((), str(path.parent), zoo.entries["sd14"])
    controls.check(found, [zoo.entries["sd14"]])
    return found


def _amounts(folder: Path) -> list[bytes]:
    return [b"2.5s", b"1m30s", b"60%", b"1.5x", b"6.5 GiB", b"dit-s=1.6s", b"0.01"]


def _read_amount(path: Path) -> object:
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    found = []
    for parse in (
        quantities.parse_budget,
        quantities.parse_duration,
        quantities.parse_share,
        quantities.parse_bytes,
        lambda given: quantities.parse_named_times([given]),
    ):
        with contextlib.suppress(UsageError):
            found.append(parse(text))
    if not found:
        raise UsageError("nothing understands it")
    return found


KINDS = {
    "profile": Kind(_profiles, mutations.yaml_file, "profile.yaml", _read_profile),
    "plan": Kind(_plans, mutations.yaml_file, "plan.yaml", _read_plan),
    "zoo": Kind(_zoos, mutations.yaml_file, "zoo.yaml", _read_zoo),
    "class names": Kind(_class_names, mutations.damaged, "labels.txt", _read_class_names),
    "picture's provenance": Kind(_pictures_made, mutations.png_file, "picture.png", _show),
    "picture": Kind(_pictures, mutations.damaged, "picture", _read_picture),
    "prompts": Kind(_prompts, mutations.damaged, "prompts.txt", _read_prompts),
    "prompts in CSV": Kind(_csv_prompts, mutations.damaged, "prompts.csv", _read_prompts),
    "prompts in JSON Lines": Kind(_json_lines_prompts, mutations.json_lines_file, "prompts.jsonl", _read_prompts),
    "LoRA": Kind(_safetensors, mutations.safetensors_file, "lora.safetensors", _read_safetensors),
    "ControlNet": Kind(lambda _: [json.dumps(CONTROL).encode()], mutations.json_file, "config.json", _read_control),
    "amount": Kind(_amounts, mutations.damaged, "amount", _read_amount),
    **ARCHIVES,
    **MODELS,
    **{name: Kind(_configs(name), mutations.json_file, name, _read_folder) for name in FILES},
}


@pytest.fixture(scope="module")
def shipped() -> Any:
    """Read once, for it is the same for every file."""
    return registry._shipped()


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shipped: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_shipped", lambda *mentioning: shipped)
    one = KINDS[kind]
    (tmp_path / "seeds").mkdir()
    seeds = one.seeds(tmp_path / "seeds")
    path = tmp_path / "given" / one.name
    path.parent.mkdir(parents=True)
    monkeypatch.setenv("TSTITCH_ZOO", str(path) if kind == "zoo" else "")
    for seed in seeds:  # what is sound is read; this loads as well what readers load when they are first used
        path.write_bytes(seed)
        one.read(path)
    ends: Counter[str] = Counter()
    each = max(1, EACH // one.one_in)
    with _watched(tmp_path) as done, _limited():
        for number in range(each):
            rng = random.Random(f"{SEED}/{kind}/{number}")
            path.write_bytes(one.mutate(rng.choice(seeds), seeds, rng))
            ends[_end(one, path, f"{kind}, number {number} of TSTITCH_FUZZ_SEED={SEED}")] += 1
    with capsys.disabled():
        print(f"\n{kind}: {each} files of seed {SEED}: {ends['read']} read, {ends['refused']} refused", end=" ")
    assert ends.total() == each
    assert ends["read"] > 0 or one.one_in > 1
    assert ends["refused"] > 0
    assert done == []


def test_there_are_ten_thousand() -> None:
    assert sum(EACH // kind.one_in for kind in KINDS.values()) >= 10_000 or "TSTITCH_FUZZ_EACH" in os.environ


def _end(kind: Kind, path: Path, which: str) -> str:
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        kind.read(path)
    except TstitchError as error:
        told = error.message
    except BaseException as error:
        begins = path.read_bytes()[:200]
        raise AssertionError(f"{which}: {type(error).__name__}: {error}; it begins {begins!r}") from error
    else:
        return "read"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    assert 0 < len(told) < 20_000, f"{which}: a message of {len(told)} characters"
    return "refused"


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Memory beyond MEMORY is a MemoryError, a file that takes too long a TimeoutError."""

    def late(*args: object) -> None:
        raise TimeoutError(f"took more than {SECONDS} s of the processor")

    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGPROF, late)
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGPROF, handler)


_FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "pickle.find_class")
_CHANGING = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate")
_watching: list[tuple[Path, list[str]]] = []


@contextlib.contextmanager
def _watched(folder: Path) -> Iterator[list[str]]:
    """What is done that no reader does: run programs, connect, unpickle, or change files outside of `folder`."""
    if not hasattr(sys, "_tstitch_watched"):  # an audit hook stays for good
        sys._tstitch_watched = True  # type: ignore[attr-defined]
        sys.addaudithook(_audit)
    done: list[str] = []
    _watching.append((folder, done))
    try:
        yield done
    finally:
        _watching.clear()


def _audit(event: str, args: tuple[Any, ...]) -> None:
    for folder, done in _watching:
        if event in _FORBIDDEN:
            done.append(f"{event} {args}")
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if (writes or event in _CHANGING) and isinstance(args[0], str | bytes | os.PathLike):
            target = Path(os.path.realpath(os.fsdecode(args[0])))
            if not target.is_relative_to(folder.resolve()):
                done.append(f"{event} {target}")
