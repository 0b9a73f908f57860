"""Models by hub id, in no zoo entry: a hub on this machine serves them, and fails in every way a hub can."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests import pipelines, toys
from tests.hub_server import Fault, Hub, serving
from tstitch_cli import provenance
from tstitch_cli.app import app
from tstitch_cli.documents import read_plan, read_profile
from tstitch_cli.fetching import hub as hub_module
from tstitch_cli.zoo.registry import Zoo, is_here

ROOT = Path(__file__).parents[2]
NEVER = {
    "README.md": b"# a model",
    "model.py": b"raise SystemExit('code from a repository')",
    "sd.ckpt": b"pickled",
    "unet/diffusion_pytorch_model.bin": b"pickled",
    "unet/diffusion_pytorch_model.fp16.bin": b"pickled",
    "unet/LICENSE": b"free",
    "text_encoder/flax_model.msgpack": b"of jax",
    "vae_decoder/model.onnx": b"onnx",
}
"""What other programs find in a repository, and tstitch never asks for."""
UNET, VAE, TEXT = (
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
)
NET = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.sd_folders(tmp_path_factory.mktemp("models"))


@pytest.fixture
def hub(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with test/large and test/small, and this process turned to it, with an empty cache."""
    monkeypatch.chdir(tmp_path)
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    # --offline sets it for the process, so that monkeypatch has to know what it was.
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr("time.sleep", lambda _: None)  # huggingface_hub waits before it tries again
    with serving() as hub:
        point_at(hub.endpoint, monkeypatch)
        for name in ("large", "small"):
            hub.push_folder(f"test/{name}", folders / name)
            hub.push(f"test/{name}", NEVER)
        yield hub


def point_at(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # huggingface_hub reads HF_ENDPOINT once, when it is imported.
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


def tstitch(*arguments: str) -> Result:
    result = CliRunner().invoke(app, arguments)
    assert "Traceback" not in result.output
    return result


def said(result: Result) -> str:
    return " ".join(result.stderr.split())


def needed_of_large(weights: str = "") -> set[str]:
    parts = {"model_index.json", "scheduler/scheduler_config.json", "unet/config.json", "vae/config.json"}
    parts |= {"text_encoder/config.json", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"}
    parts |= {path.replace(".safetensors", f"{weights}.safetensors") for path in (UNET, VAE, TEXT)}
    return {f"test/large/{path}" for path in parts}


NEEDED_OF_SMALL = {
    "test/small/model_index.json",
    "test/small/unet/config.json",
    "test/small/vae/config.json",
    "test/small/scheduler/scheduler_config.json",
    f"test/small/{UNET}",
}
"""Its configs say what it is; of its weights only the denoiser's are needed."""


def test_two_hub_ids_from_download_to_pictures_and_again_without_network(hub: Hub) -> None:
    given = ("--scheduler", "ddim", "--steps", "4", "--size", "16", "--max-time", "2s", "--device", "cpu")
    profiled = tstitch("profile", "test/large", "test/small", *given, "--out", "p.yaml")
    assert profiled.exit_code == 0, profiled.output
    assert re.search(r"test/large: \d+\.?\d* [kM]?B to fetch into .*huggingface/hub", said(profiled))
    assert hub.fetched() == needed_of_large() | NEEDED_OF_SMALL

    commits = dict(hub.main)
    made = read_profile(Path("p.yaml"))
    assert {(d.name, d.source, d.revision) for d in made.denoisers} == {
        (name, f"hub:{name}", commit) for name, commit in commits.items()
    }
    # The largest is known by its weights' headers, whatever the order given.
    assert max(made.denoisers, key=lambda d: d.parameters or 0).name == "test/large"
    assert tstitch("plan", "--profile", "p.yaml", "--budget", "1min").exit_code == 0
    assert {d.revision for d in read_plan(Path("plan.yaml")).denoisers} == set(commits.values())

    # The branch moves on; a plan is drawn at its own commits, from the cache, without a single request.
    for name in commits:
        hub.push(name, {UNET: b"something else"})
    hub.requests.clear()
    drawn = tstitch("sample", "--prompt", "a red fox", "--row", "2", "--offline")
    assert drawn.exit_code == 0, drawn.output
    online = tstitch("sample", "--prompt", "a red fox", "--row", "2", "--out", "online")
    assert online.exit_code == 0, online.output
    assert hub.requests == []
    assert Path("online/000000.png").read_bytes() == Path("pictures/000000.png").read_bytes()
    assert {d.revision for d in provenance.read(Path("pictures/000000.png")).denoisers} == set(commits.values())


def test_a_first_run_fetches_and_a_second_is_offline_as_typed(hub: Hub, tmp_path: Path) -> None:
    """In a process of its own, where the environment alone says which hub it is."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_ENDPOINT": hub.endpoint}

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tstitch_cli.app", *arguments]
        return subprocess.run(command, env={**environment, **more}, capture_output=True, text=True, check=False)

    first = run("fetch", "test/small", "test/large", "--dtype", "float32")
    assert first.returncode == 0, first.stderr
    assert f"test/large  hub:test/large at {hub.main['test/large']}" in first.stdout
    assert hub.fetched() == needed_of_large() | NEEDED_OF_SMALL
    hub.requests.clear()
    second = run("fetch", "test/small", "test/large", "--dtype", "float32", HF_HUB_OFFLINE="1")
    assert (second.returncode, second.stdout) == (0, first.stdout), second.stderr
    assert hub.requests == []


def test_offline_tells_what_is_missing_and_the_command_that_fetches_it(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tstitch("fetch", "test/large", "--dtype", "float32").exit_code == 0
    hub.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    missing = tstitch("fetch", "test/none")
    assert (missing.exit_code, "`tstitch fetch test/none` fetches it" in said(missing)) == (3, True), missing.output
    (hub_module.snapshot("test/large", hub.main["test/large"]) / VAE).unlink()
    missing = tstitch("fetch", "test/large", "--dtype", "float32")
    assert (missing.exit_code, f"not on this disk ({VAE})" in said(missing)) == (3, True), missing.output
    assert f"`tstitch fetch test/large@{hub.main['test/large']} --dtype float32`" in said(missing)
    assert hub.requests == []


GIVEN = ("--scheduler", "ddim", "--steps", "4", "--size", "16", "--max-time", "2s", "--device", "cpu")


def test_a_controlnet_and_own_text_encoders_are_fetched_ahead_and_recorded(
    hub: Hub, folders: Path, tmp_path: Path
) -> None:
    pipelines.controlnet(toys.tiny_unet(2)).save_pretrained(tmp_path / "net")
    hub.push_folder("test/net", tmp_path / "net")
    for seed, name in enumerate(("one", "two")):  # of other sizes, but with the feature maps of the ControlNet
        shutil.copytree(folders / "small", tmp_path / name)
        toys.tiny_unet(seed, transformer_layers_per_block=1 + seed).save_pretrained(tmp_path / name / "unet")
        hub.push_folder(f"test/{name}", tmp_path / name)
    more = ("--control", "test/net", "--embeddings", "own")
    offline = tstitch("profile", "test/one", "test/two", *GIVEN, *more, "--offline")
    assert offline.exit_code == 3, offline.output
    assert "test/one and test/two: not on this disk, and nothing may be fetched" in said(offline)
    assert "`tstitch fetch test/one test/two --control test/net --embeddings own` fetches it" in said(offline)

    os.environ["HF_HUB_OFFLINE"] = "0"
    fetched = tstitch("fetch", "test/one", "test/two", *more, "--dtype", "float32")
    assert fetched.exit_code == 0, fetched.output
    assert f"test/net  hub:test/net at {hub.main['test/net']}" in fetched.stdout
    assert f"test/net/{NET}" in hub.fetched()
    assert {f"test/one/{TEXT}", f"test/two/{TEXT}"} <= hub.fetched()
    assert len({f"test/one/{VAE}", f"test/two/{VAE}"} & hub.fetched()) == 1  # the host's alone
    hub.requests.clear()
    made = tstitch("profile", "test/one", "test/two", *GIVEN, *more, "--offline", "--out", "p.yaml")
    assert made.exit_code == 0, made.output
    assert hub.requests == []
    before = hub.main["test/net"]
    assert tstitch("plan", "--profile", "p.yaml", "--budget", "1min").exit_code == 0
    plan = read_plan(Path("plan.yaml"))
    assert plan.fingerprint is not None
    assert plan.fingerprint.weights["control test/net"] == before

    # The branch moves on: plan and picture are drawn with the commit that they name, and with no other.
    os.environ["HF_HUB_OFFLINE"] = "0"
    hub.push("test/net", {NET: b"something else"})
    pipelines.picture(2, 16).save(tmp_path / "edges.png")
    drawn = tstitch("sample", "--prompt", "a fox", "--control", f"test/net={tmp_path / 'edges.png'}")
    assert drawn.exit_code == 0, drawn.output
    assert provenance.read(Path("pictures/000000.png")).weights["control test/net"] == before
    again = tstitch("sample", "--from", "pictures/000000.png", "--out", "again")
    assert again.exit_code == 0, again.output
    assert Path("again/000000.png").read_bytes() == Path("pictures/000000.png").read_bytes()
    assert hub.requests == []


def test_offline_the_advised_command_fetches_all_of_the_run(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_HOME", str(here / "huggingface"))
    refused = tstitch(
        "profile", "sdxl", "ssd-1b", "--dtype", "float16", "--control", "canny", "--embeddings", "own", "--offline"
    )
    assert refused.exit_code == 3, refused.output
    command = "`tstitch fetch ssd-1b sdxl --dtype float16 --control canny --embeddings own` fetches it"
    assert command in said(refused)
    both = tstitch("fetch", "sd14", "bk-sdm-tiny")
    assert "sd14 and bk-sdm-tiny: not on this disk, and nothing may be fetched" in said(both)
    assert "`tstitch fetch sd14 bk-sdm-tiny --dtype" in said(both)
    assert "segmind/SSD-1B and segmind/Segmind-Vega: not on" in said(tstitch("fetch", "ssd-1b", "segmind-vega"))


def test_what_is_to_be_converted_is_told_before_the_hub_is_asked(hub: Hub, here: Path) -> None:
    profiled = tstitch("profile", "dit-s-256", "u-vit-h-256", "--offline")
    os.environ["HF_HUB_OFFLINE"] = "0"
    for refused in (tstitch("fetch", "dit-xl-256", "u-vit-h-256", "dit-s-256"), profiled):
        assert refused.exit_code == 3, refused.output
        assert "have not been converted yet" in said(refused)
        for name in ("dit-s-256", "u-vit-h-256"):
            assert f"`tstitch convert {name} CHECKPOINT`" in said(refused)
    assert hub.requests == []


def test_on_a_cpu_what_profile_would_take_is_fetched(hub: Hub, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda **_: None)
    hub.push("test/large", {UNET.replace(".safe", ".fp16.safe"): (folders / "large" / UNET).read_bytes()})
    assert tstitch("fetch", "test/large").exit_code == 0
    assert {path for path in hub.fetched() if "/unet/diff" in path} == {f"test/large/{UNET}"}


def test_a_cache_that_another_program_filled_is_enough(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    commit = hub.main["test/large"]
    for path in hub.commits["test/large"][commit]:
        huggingface_hub.hf_hub_download("test/large", path, cache_dir=hub_module.cache())
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.requests.clear()
    fetched = tstitch("fetch", "test/large", "--dtype", "float16")
    assert (fetched.exit_code, f"at {commit}" in fetched.stdout) == (0, True), fetched.output
    assert hub.requests == []
    caches = huggingface_hub.scan_cache_dir(hub_module.cache())
    assert [repository.repo_id for repository in caches.repos] == ["test/large"]
    assert not caches.warnings


FAULTS: list[tuple[str, Fault, int, str, str]] = [
    (r"GET .*/unet/diff\S+ (whole|bytes=[1-9])", Fault(cut=0.5), 3, f"broke off while {UNET} was fetched", "again"),
    ("GET .*/unet/diff", Fault(500), 3, "answers with status 500", "again"),
    ("HEAD .*/vae/diff", Fault(503), 3, "answers with status 503", "--offline"),
    ("GET /api/models", Fault(500), 3, "the list of its files cannot be fetched", "again"),
    ("HEAD .*model_index", Fault(502), 3, "answers with status 502", "again"),
    ("HEAD .*/unet/config", Fault(429), 3, "too many requests", "wait"),
    (".*", Fault(401, {"X-Error-Code": "GatedRepo"}), 2, "is gated", "accept its terms at {endpoint}/test/large"),
    (".*/vae/", Fault(403, {"X-Error-Code": "GatedRepo"}), 2, "is gated", "HF_TOKEN"),
    (".*", Fault(403), 2, "refuses", "{endpoint}/test/large"),
    (".*", Fault(404, {"X-Error-Code": "RepoNotFound"}), 2, "no such model", "spelling"),
    ("HEAD .*/vae/", Fault(404, {"X-Error-Code": "EntryNotFound"}), 3, "has no vae/config.json", "diffusers"),
    ("GET .*/text_encoder/model", Fault(flipped=True), 3, f"{TEXT} came damaged", "again"),
]


@pytest.mark.parametrize(("where", "fault", "status", "told", "hint"), FAULTS, ids=lambda value: str(value)[:24])
def test_what_goes_wrong_is_told_once_and_a_later_run_completes(
    hub: Hub, where: str, fault: Fault, status: int, told: str, hint: str
) -> None:
    hub.fail(where, fault)
    failed = tstitch("fetch", "test/large", "--dtype", "float32")
    assert failed.exit_code == status, failed.output
    assert said(failed).count("error:") == 1
    assert told in said(failed)
    assert hint.format(endpoint=hub.endpoint) in said(failed)
    assert not list(Path("huggingface").rglob("*.incomplete"))
    hub.faults.clear()
    again = tstitch("fetch", "test/large", "--dtype", "float32")
    assert again.exit_code == 0, again.output
    assert is_here(Zoo.load().resolve("test/large"))


def test_a_connection_cut_once_is_taken_up_where_it_broke(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    hub.fail(r"GET .*/unet/diff\S+ whole", Fault(cut=0.5), times=1)
    assert tstitch("fetch", "test/large", "--dtype", "float32").exit_code == 0
    ranges = [request.range for request in hub.requests if request.path.endswith(UNET) and request.method == "GET"]
    size = len(hub.commits["test/large"][hub.main["test/large"]][UNET])
    assert ranges[-1] == f"bytes={size // 2 // 1000 * 1000}-"


def test_no_hub_at_all(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at("http://127.0.0.1:9", monkeypatch)  # the port of `discard`, where nothing listens
    failed = tstitch("fetch", "test/large")
    assert (failed.exit_code, "the hub cannot be reached" in said(failed)) == (3, True), failed.output
    assert "--offline" in said(failed)


def test_a_gated_repository_opens_with_the_right_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.gated.add("test/large")
    without = tstitch("fetch", "test/large")
    assert (without.exit_code, "HF_TOKEN" in said(without)) == (2, True)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    wrong = tstitch("fetch", "test/large")
    assert (wrong.exit_code, "does not accept the access token" in said(wrong)) == (2, True), wrong.output
    assert "hf_wrong" not in wrong.output
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert tstitch("fetch", "test/large").exit_code == 0


@pytest.mark.parametrize(("name", "told"), [("test/none", "no such model"), ("test/large@v9", "has no revision v9")])
def test_a_repository_or_revision_that_is_not_there(hub: Hub, name: str, told: str) -> None:
    failed = tstitch("fetch", name)
    assert (failed.exit_code, told in said(failed)) == (2, True), failed.output


def test_a_disk_without_room_is_noticed_before_anything_is_fetched(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
        failed = tstitch("fetch", "test/large")
    assert (failed.exit_code, "has room for 10 bytes" in said(failed)) == (3, True), failed.output
    assert not list(Path("huggingface").rglob("*.safetensors"))


def test_a_disk_that_fills_up_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    commit = hub_module.commit_of("test/large", None, "model_index.json")
    Zoo.load().resolve(f"test/large@{commit}")
    with monkeypatch.context() as patched:
        patched.setattr("huggingface_hub.file_download.http_get", full)
        failed = tstitch("fetch", f"test/large@{commit}")
    assert (failed.exit_code, "the disk is full" in said(failed)) == (3, True), failed.output
    assert "HF_HOME" in said(failed)
    assert tstitch("fetch", "test/large").exit_code == 0


def test_the_variant_for_the_dtype_is_fetched(hub: Hub, folders: Path) -> None:
    half = {p.replace(".safetensors", ".fp16.safetensors"): (folders / "large" / p).read_bytes() for p in (UNET, TEXT)}
    hub.push("test/large", half)
    assert tstitch("fetch", "test/large", "--dtype", "float16").exit_code == 0
    snapshot = hub_module.snapshot("test/large", hub.main["test/large"])
    here = {path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*.safetensors")}
    assert here == {*half, VAE}  # the autoencoder has no variant
    hub.requests.clear()
    assert tstitch("fetch", f"test/large@{hub.main['test/large']}", "--dtype", "float16").exit_code == 0
    assert hub.requests == []


def test_damaged_weights_in_the_cache_are_told_with_their_cure(hub: Hub) -> None:
    assert tstitch("fetch", "test/large", "test/small", "--dtype", "float32").exit_code == 0
    blob = (hub_module.snapshot("test/small", hub.main["test/small"]) / UNET).resolve()
    blob.write_bytes(blob.read_bytes()[:-1000])
    given = ("profile", "test/large", "test/small", "--steps", "2", "--size", "16", "--max-time", "1s")
    failed = tstitch(*given, "--device", "cpu", "--out", "p.yaml")
    assert failed.exit_code == 3, failed.output
    cure = re.search(r"delete (\S+models--test--small) and run again", said(failed))
    assert cure, said(failed)
    shutil.rmtree(cure[1])
    assert tstitch("fetch", "test/large", "test/small", "--dtype", "float32").exit_code == 0
    assert blob.stat().st_size == len(hub.commits["test/small"][hub.main["test/small"]][UNET])


def changed(hub: Hub, path: str, **changes: Any) -> None:
    content = json.loads(hub.commits["test/large"][hub.main["test/large"]][path])
    hub.push("test/large", {path: json.dumps({**content, **changes}).encode()})


HOSTILE: list[tuple[str, dict[str, Any], str]] = [
    ("model_index.json", {"custom_pipeline": "model"}, "custom_pipeline"),
    ("model_index.json", {"_class_name": ["model", "Pipeline"]}, "cannot be stitched"),
    ("model_index.json", {"text_encoder": ["model", "Encoder"]}, "model.Encoder"),
    ("model_index.json", {"text_encoder": ["transformers", "AutoModel"]}, "transformers.AutoModel"),
    ("model_index.json", {"safety_checker": ["os", "system"]}, "os.system"),
    ("model_index.json", {"unet": ["model", "UNet2DConditionModel"]}, "model.UNet2DConditionModel"),
    ("text_encoder/config.json", {"auto_map": {"AutoModel": "model.Encoder"}}, "auto_map"),
    ("unet/config.json", {"auto_map": {"AutoModel": "model.UNet"}}, "auto_map"),
]


@pytest.mark.parametrize(("path", "changes", "told"), HOSTILE, ids=lambda value: str(value)[:40])
def test_code_and_foreign_classes_are_refused_before_weights_are_fetched(
    hub: Hub, path: str, changes: dict[str, Any], told: str
) -> None:
    changed(hub, path, **changes)
    refused = tstitch("fetch", "test/large")
    assert (refused.exit_code, told in said(refused)) == (2, True), refused.output
    assert not list(Path("huggingface").rglob("*.safetensors"))
    assert not list(Path("huggingface").rglob("*.py"))


def test_pickled_weights_are_refused(hub: Hub) -> None:
    files = hub.commits["test/large"][hub.main["test/large"]]
    del files[UNET]
    refused = tstitch("fetch", "test/large")
    assert refused.exit_code == 3
    assert "only as diffusion_pytorch_model.bin, and tstitch loads nothing but safetensors" in said(refused)
    assert not any(path.endswith((".bin", ".safetensors")) for path in hub.fetched())


def test_hostile_folders_are_refused_as_well(folders: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for path, changes, told in HOSTILE:
        shutil.copytree(folders / "large", folder)
        content = json.loads((folder / path).read_text())
        (folder / path).write_text(json.dumps({**content, **changes}))
        given = ("--steps", "2", "--size", "16", "--device", "cpu", "--out", str(tmp_path / "p.yaml"))
        refused = tstitch("profile", str(folders / "small"), str(folder), *given)
        assert (refused.exit_code, told in said(refused)) == (2, True), refused.output
        shutil.rmtree(folder)
