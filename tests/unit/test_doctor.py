"""Each check of `tstitch doctor` on a machine that lacks something, and that nothing personal shows."""

from __future__ import annotations

import json
import platform
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from tstitch_cli import doctor
from tstitch_cli.app import app
from tstitch_cli.doctor import Finding, examine, status
from tstitch_cli.errors import BadFileError, DeviceError, ExitStatus
from tstitch_cli.scrubbing import Scrubber

TOKEN, STORED = "hf_Sup3rS3cr3tT0k3n", "sk-live-123456"
JANE = Scrubber(("/home/jane",), ("jane",), ("janes-laptop",), (TOKEN, STORED))


def failing(error: Exception) -> Callable[[], Finding]:
    def check() -> Finding:
        raise error

    return check


def well() -> Finding:
    return Finding("well", "ok", "all there")


def test_every_check_is_made_whatever_becomes_of_the_others() -> None:
    checks = [
        ("torch", failing(ImportError("no module", name="torch.nn"))),
        ("gpu", failing(DeviceError("no GPU", hint="plug one in"))),
        ("zoo", failing(BadFileError("/home/jane/zoo.yaml: is broken", hint="mend /home/jane/zoo.yaml"))),
        ("disk", failing(FileNotFoundError(2, "No such file", "/home/jane/gone"))),
        ("odd", failing(RuntimeError(f"wires crossed by jane with {TOKEN}"))),
        ("well", well),
    ]
    shares: list[float] = []
    found = list(examine(checks, JANE, lambda doing, share: shares.append(share)))
    assert [each.verdict for each in found] == ["fault"] * 5 + ["ok"]
    assert [each.status for each in found] == [3, 6, 3, 3, 1, 0]
    assert found[0].cure == "pip install -c constraints.txt --force-reinstall torch  # in your clone of tstitch"
    assert (found[1].detail, found[1].cure) == ("no GPU", "plug one in")
    assert (found[2].detail, found[2].cure) == ("~/zoo.yaml: is broken", "mend ~/zoo.yaml")
    assert found[3].detail == "~/gone: No such file"
    assert found[4].detail == "RuntimeError: wires crossed by <user> with <secret>"
    assert shares == [n / 6 for n in range(6)]


def test_the_first_fault_decides_the_status() -> None:
    remark = Finding("a", "remark", "")
    faults = [Finding("b", "fault", "", status=ExitStatus.DEVICE), Finding("c", "fault", "", status=ExitStatus.BUG)]
    assert status([well(), remark]) is ExitStatus.OK
    assert status([remark, *faults]) is ExitStatus.DEVICE


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/home/jane/x and /home/janet", "~/x and /home/janet"),
        ("/mnt/JANE/cache on janes-laptop", "/mnt/<user>/cache on <host>"),
        ("janefile, hf_0123456789", "janefile, <secret>"),
        (f"Bearer {STORED}.", "Bearer <secret>."),
        ("from https://bob:pw12@hub.corp/x", "from https://<secret>@hub.corp/x"),
        ("https://bob:p@w@hub.corp:80", "https://<secret>@hub.corp:80"),
        ("https://t0ken@hub.corp", "https://<secret>@hub.corp"),
        ("see https://hub.corp/x, or mail a@b.c", "see https://hub.corp/x, or mail a@b.c"),
        ("git+https://hub.corp/x@main", "git+https://hub.corp/x@main"),
        ("ghp_16C7e42F292c6912E7710c838347Ae178B4a", "<secret>"),
        ("github_pat_11ABCDEFG0123456789_ab.", "<secret>."),
        ("sk-proj-abcDEF_123-456", "<secret>"),
        ("key=AKIAIOSFODNN7EXAMPLE", "key=<secret>"),
        ("hf_transfer 0.1, hf_hub_download, disk-partition", "hf_transfer 0.1, hf_hub_download, disk-partition"),
    ],
)
def test_what_is_taken_out(text: str, left: str) -> None:
    assert JANE(text) == left


def test_who_one_is_is_found_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "janes-laptop.example.org")
    found = Scrubber.here({"HOME": "/home/jane", "LOGNAME": "jane", "OPENAI_API_KEY": "k-345678", "LANG": "en"})
    assert "/home/jane" in found.homes
    assert "jane" in found.users
    assert {"janes-laptop", "janes-laptop.example.org"} <= set(found.hosts)
    assert found.secrets[:1] == ("k-345678",)
    assert "en" not in found.secrets


@pytest.mark.parametrize(
    "name",
    [
        "TOKEN",
        "HF_TOKEN",
        "GITHUB_PAT",
        "AWS_SECRET_ACCESS_KEY",
        "STRIPE_KEY",
        "CLIENT_SECRET",
        "DB_PASSWORD",
        "PGPASSWORD",
        "MYAPIKEY",
        "aws_credentials",
    ],
)
def test_what_a_variable_of_a_secret_holds_is_taken_out(name: str) -> None:
    assert "s3cr3t-value" in Scrubber.here({name: "s3cr3t-value"}).secrets


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_TOKENS", "13-13-13-13"),
        ("TOKENIZERS_PARALLELISM", "x-false-x-false"),
        ("PATH", "/usr/bin:/bin"),
        ("KEYBOARD", "us-de-fr-es"),
        ("MY_TOKEN", "13"),
        ("MY_TOKEN", "2.13.0.1.2.3"),
        ("USE_API_KEY", "false"),
        ("DB_PASSWORD", "disabled"),
        ("SSH_SECRET", "sh0rt"),
    ],
)
def test_words_and_numbers_stay(name: str, value: str) -> None:
    assert value not in Scrubber.here({name: value}).secrets


def test_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**29, total=2**33))
    found = doctor.memory()
    assert (found.verdict, found.status, found.cure) == ("fault", 6, "close other programs")


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    assert doctor.disk().verdict == "ok"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    found = doctor.disk()
    assert (found.verdict, found.status) == ("fault", 3)
    assert f"free some space in {here}" in (found.cure or "")


def test_the_cache_is_measured_and_its_disk_watched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert "empty" in doctor.cache().detail
    (tmp_path / "cache" / "models--a--b").mkdir(parents=True)
    (tmp_path / "cache" / "models--a--b" / "blob").write_bytes(bytes(3 << 20))
    found = doctor.cache()
    assert "3.15 MB in it" in found.detail
    assert "a token is set" in found.detail
    assert TOKEN not in found.detail
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    assert (doctor.cache().verdict, "hf cache rm" in (doctor.cache().cure or "")) == ("remark", True)


def test_packages_that_are_missing_or_too_old_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.packages().verdict == "ok"
    monkeypatch.setattr(doctor, "requires", lambda name: ["torch>=99", "numpy>=1", 'peft>=99; extra == "lora"'])
    monkeypatch.setattr(doctor, "NEEDED", ("torch", "no-such-package"))
    found = doctor.packages()
    assert found.status == 3
    assert found.cure == doctor.pip_install('--upgrade "no-such-package" "torch>=99"')


@pytest.mark.parametrize(
    ("module", "what"),
    [
        ("PIL.Image", "--force-reinstall pillow"),
        ("yaml", "--force-reinstall PyYAML"),
        ("no_such_module", "."),
        ("tstitch_cli.gone", "."),
    ],
)
def test_a_module_is_mended_by_its_package(module: str, what: str) -> None:
    (found,) = examine([("x", failing(ImportError("no module", name=module)))], JANE)
    assert (found.cure or "").lower() == doctor.pip_install(what).lower()


def test_the_command_is_taken_from_the_sources() -> None:
    """None of the cures names tstitch to an index, where anybody may own that name."""
    words = doctor.pip_install("--force-reinstall --no-deps .").partition("#")[0].split()
    assert words == ["pip", "install", "-c", "constraints.txt", "--force-reinstall", "--no-deps", "."]
    text = Path(doctor.__file__).read_text()
    assert text.count("pip install") == 1


def test_a_gpu_that_torch_does_not_use_is_remarked(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("torch uses it here")
    assert doctor.device().verdict == "ok"
    monkeypatch.setattr(doctor, "_has_nvidia", lambda: True)
    found = doctor.device()
    assert found.verdict == "remark"
    assert "NVIDIA GPU that torch does not use" in found.detail
    if torch.version.cuda is None and platform.system() == "Linux":
        assert found.cure == doctor.pip_install("--force-reinstall torch")


def test_the_bundled_family_must_be_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.zoo().verdict == "ok"
    assert "fashion-s" in doctor.zoo().detail
    monkeypatch.setattr("tstitch_cli.zoo.registry.is_here", lambda entry: entry.name != "fashion-xl")
    found = doctor.zoo()
    assert (found.verdict, found.status) == ("fault", 3)
    assert found.cure == doctor.pip_install("--force-reinstall --no-deps .")


def test_a_blank_picture_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "RUN_S", 0.0)
    assert "of tiny-sd-small, then 10 of tiny-sd" in doctor.stitched_run().detail
    from PIL import Image

    from tstitch_cli import trajectory

    blank = SimpleNamespace(images=(Image.new("L", (32, 32)),), total_s=0.1)
    monkeypatch.setattr(trajectory, "run", lambda *args, **kwargs: blank)
    found = doctor.stitched_run()
    assert (found.verdict, found.status) == ("fault", 6)
    assert "blank" in found.detail


@pytest.fixture
def janes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The home of a user whose token, name and host are in the environment, and who works below it."""
    home = tmp_path / "home" / "janedoe"
    (home / "work").mkdir(parents=True)
    monkeypatch.chdir(home / "work")
    given = {"HOME": str(home), "USER": "janedoe", "LOGNAME": "janedoe", "HOSTNAME": "janes-laptop"}
    given |= {"HF_TOKEN": TOKEN, "HF_HOME": str(home / "hf"), "XDG_CONFIG_HOME": str(home / ".config")}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setattr(socket, "gethostname", lambda: "janes-laptop.example.org")
    monkeypatch.setattr(doctor, "RUN_S", 0.1)
    return home


def told(*arguments: str) -> tuple[int, Any, str]:
    done = CliRunner().invoke(app, ["doctor", *arguments])
    return done.exit_code, done.stdout, done.output


def test_nothing_personal_shows(janes: Path) -> None:
    code, printed, everything = told("--json")
    assert code == 0, everything
    found = json.loads(printed)
    assert [each["name"] for each in found["findings"]] == [name for name, _ in doctor.CHECKS]
    for secret in (TOKEN, "janedoe", "janes-laptop", str(janes)):
        assert secret not in everything
    assert "~/hf/hub" in everything
    assert "~/work" in everything


def test_a_broken_zoo_file_is_at_fault_and_tells_no_more(janes: Path) -> None:
    folder = janes / ".config" / "tstitch"
    folder.mkdir(parents=True)
    (folder / "zoo.yaml").write_text(f"schema: tstitch/zoo/1\njanedoe: {TOKEN}\n")
    code, printed, everything = told()
    assert code == 3
    assert "~/.config/tstitch/zoo.yaml:2:1 <user>: unknown key" in printed
    assert "at fault: zoo" in everything
    for secret in (TOKEN, "janedoe", "janes-laptop", str(janes)):
        assert secret not in everything
