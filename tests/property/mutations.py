"""Damages files as a bad disk, a careless editor and an attacker would, the same way for the same random numbers."""

from __future__ import annotations

import copy
import gzip
import io
import json
import random
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import yaml
from PIL import Image, PngImagePlugin

TOKENS = (
    b"&a [*a, *a]",
    b"*a",
    b"<<: *a",
    b"!!python/object/apply:os.system ['touch pwned']",
    b"!!python/name:os.system ''",
    b".nan",
    b"-.inf",
    b"1e999",
    b"-1",
    b"0",
    b"99999999999999999999",
    b"1" * 5000,
    b"null",
    b"NaN",
    b"Infinity",
    b"true",
    b"12:30",
    b"0x10",
    b"1_000",
    b"\0",
    b"\x1b[2J",
    b'"\\e]0;owned\\a"',
    b"\\u001b[31m",
    b"\\ud800",
    b"\xed\xa0\x80",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    "‮\u2066".encode(),
    "\u2028\x85".encode(),
    b"../../../../../../tmp/pwned",
    b"/dev/zero",
    b"file:///etc/passwd",
    b"__import__('os').system('touch pwned')",
    b"%s%n{0.__class__}",
    b"[" * 1000,
    b"{" * 1000,
    b'{"a":' * 1000,
    b"- " * 1000,
    b"? ",
    b"|\n",
    b">-\n",
    b"\t",
    b"\r",
    b"---\n",
    b"...\n",
    b"%YAML 9.9\n",
    b"# ",
    b'"',
    b"'",
    b",",
    b": ",
    b"=",
    b"\n",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    10**30,
    -(10**30),
    0.5,
    -0.0,
    1e308,
    1e-308,
    float("nan"),
    float("inf"),
    "",
    " ",
    "a" * 10_000,
    "\x1b[2J\x07",
    "\0",
    "\ud800",
    "‮",
    "../../../../../../tmp/pwned",
    "/dev/zero",
    "folder:/",
    "hub:../..",
    "hub:a/b@../../c",
    "bundled:../../secret",
    "os.system",
    "(a+)+$",
    [],
    {},
    [[]],
    [None] * 100,
    [["a", 1]] * 100,
    {"a": {"b": {"c": {}}}},
    {"auto_map": {"AutoModel": "evil.Model"}},
    {"custom_pipeline": "evil"},
    ["os", "system"],
    ["evil", "Model"],
)


def damaged(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """`content` after one to four random changes; `others` are files of its kind, pieces of which may get into it."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        content = rng.choice(_CHANGES)(content, others, rng)
    return content[: 1 << 20]


def _flip(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 8))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _span(content: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randint(0, len(content))
    return start, min(len(content), start + rng.choice((1, 4, 30, 300)))


def _delete(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    start, end = _span(content, rng)
    return content[:start] + content[end:]


def _cut(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    return content[: rng.randint(0, len(content))]


def _repeat(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    start, end = _span(content, rng)
    return content[:end] + content[start:end] * rng.choice((1, 2, 50)) + content[end:]


def _insert(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    start, _ = _span(content, rng)
    return content[:start] + rng.choice(TOKENS) + content[start:]


def _replace(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    start, end = _span(content, rng)
    return content[:start] + rng.choice((rng.choice(TOKENS), rng.randbytes(end - start))) + content[end:]


def _splice(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    other = rng.choice(others)
    return content[: rng.randint(0, len(content))] + other[rng.randint(0, len(other)) :]


def _lines(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    lines = content.split(b"\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    if rng.random() < 0.5:
        lines[i], lines[j] = lines[j], lines[i]
    else:
        lines[i] = rng.choice((b" ", b"  ", b"")) + lines[j]
    return b"\n".join(lines)


_CHANGES: tuple[Callable[[bytes, Sequence[bytes], random.Random], bytes], ...] = (
    _flip,
    _delete,
    _cut,
    _repeat,
    _insert,
    _replace,
    _splice,
    _lines,
)


def altered(tree: Any, rng: random.Random) -> Any:
    """A copy of a JSON tree in which one to three values or keys are others, gone, or there twice over."""
    tree = json.loads(json.dumps(tree))
    for _ in range(rng.choice((1, 1, 1, 3))):
        places = [(tree, key) for key in _keys(tree)]
        for holder, key in list(places):
            places += [(inner, k) for inner, k in _inside(holder[key])]
        if not places:
            return copy.deepcopy(rng.choice(VALUES))
        holder, key = rng.choice(places)
        change = rng.random()
        if change < 0.7:
            holder[key] = copy.deepcopy(rng.choice(VALUES))
        elif change < 0.8:
            del holder[key]
        elif change < 0.9 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif isinstance(holder, dict):
            holder[str(rng.choice(VALUES))[:2000]] = holder.pop(key)
    return tree


def _keys(tree: Any) -> list[Any]:
    return list(tree) if isinstance(tree, dict) else list(range(len(tree))) if isinstance(tree, list) else []


def _inside(tree: Any) -> list[tuple[Any, Any]]:
    found = [(tree, key) for key in _keys(tree)]
    return found + [pair for key in _keys(tree) for pair in _inside(tree[key])]


def json_file(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """A damaged JSON file: its bytes, or what it says."""
    if rng.random() < 0.4:
        return damaged(content, others, rng)
    return json.dumps(altered(json.loads(content), rng)).encode()


def yaml_file(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """A damaged YAML file: its bytes, or what it says, written as the JSON that YAML is too."""
    if rng.random() < 0.6:
        return damaged(content, others, rng)
    tree = altered(_parsed(content), rng)
    return json.dumps(tree, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


@cache
def _parsed(content: bytes) -> Any:
    return yaml.safe_load(content)


def png_file(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """A damaged PNG: its bytes, its size, or its texts, with checksums that are right."""
    change = rng.random()
    if change < 0.3:
        return damaged(content, others, rng)
    if change < 0.4:
        return _with_chunk(content, b"IHDR", rng.randbytes(8) + b"\x08\x02\0\0\0")
    if change < 0.5:
        bomb = zlib.compress(b"0" * rng.choice((1 << 16, 1 << 24)), 9)
        texts = (b"tstitch\0\0" + bomb, b"tstitch\0\1\0en\0\0" + bomb, b"tstitch\0\1\0en\0\0" + bomb[:-9])
        kind = rng.choice((b"zTXt", b"iTXt", b"iCCP"))
        return _with_chunk(content, kind, rng.choice(texts))
    with Image.open(io.BytesIO(content)) as image:
        told = json.loads(image.info["tstitch"])
        chunks = PngImagePlugin.PngInfo()
        text = json.dumps(altered(told, rng))
        if change > 0.8:
            text = damaged(text.encode(), [text.encode()], rng).decode("utf-8", "replace").replace("\0", "")
        chunks.add_itxt("tstitch", text, zip=rng.random() < 0.5)
        written = io.BytesIO()
        image.save(written, "PNG", pnginfo=chunks)
    return written.getvalue()


def _with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    """A PNG with another header, or with a chunk of its own behind it."""
    head, rest = png[:8], png[33:]
    first = _chunk(kind, data) if kind == b"IHDR" else png[8:33] + _chunk(kind, data)
    return head + first + rest


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def safetensors_file(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """A damaged safetensors file: its bytes, or its header, with a length that is right."""
    if rng.random() < 0.4:
        return damaged(content, others, rng)
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    metadata = header.get("__metadata__", {})
    if metadata and rng.random() < 0.5:
        options = json.loads(metadata["lora_adapter_metadata"])
        header["__metadata__"] = {"lora_adapter_metadata": json.dumps(altered(options, rng))}
    else:
        header = altered(header, rng)
    told = json.dumps(header).encode()
    return len(told).to_bytes(8, "little") + told + content[8 + length :]


def json_lines_file(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """A damaged file of JSON Lines: its bytes, or what one of its lines says."""
    if rng.random() < 0.4:
        return damaged(content, others, rng)
    lines = [line for line in content.splitlines() if line.strip()]
    which = rng.randrange(len(lines))
    lines[which] = json_file(lines[which], lines, rng)
    return b"\n".join(lines) + b"\n"


def zip_file(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """A damaged zip: its bytes, or one of its members, with checksums and lengths that are right."""
    if rng.random() < 0.4 or not zipfile.is_zipfile(io.BytesIO(content)):
        return damaged(content, others, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    which = rng.choice(list(members))
    kind, pieces = rng.random(), list(members.values())
    if kind < 0.6:  # where headers are
        members[which] = damaged(members[which][:128], pieces, rng) + members[which][128:]
    elif kind < 0.7:
        members[which] += bytes(1 << 22)
    elif kind < 0.8:
        del members[which]
    else:
        members[which] = damaged(members[which], pieces, rng)
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return written.getvalue()


def gzip_file(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """A damaged .gz: its bytes, or what is in it, above all at its beginning."""
    if rng.random() < 0.4:
        return damaged(content, others, rng)
    inside = gzip.decompress(content)
    if rng.random() < 0.2:
        inside += bytes(1 << 22)
    elif rng.random() < 0.5:
        inside = damaged(inside[:16], [inside[:16]], rng) + inside[16:]
    else:
        inside = damaged(inside, [inside], rng)
    return gzip.compress(inside, 1)


_TAR_FIELDS = ((0, 100), (100, 8), (124, 12), (156, 1), (157, 100), (257, 8), (345, 155), (386, 24), (482, 13))
"""Where a header has its name, mode, size, kind, link, format, prefix, and of a sparse file its pieces and size."""


def tar_file(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """A damaged .tar: its bytes, or a header, with a checksum that is right."""
    if rng.random() < 0.4:
        return damaged(content, others, rng)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        start = rng.choice([member.offset for member in tar.getmembers()])
    header = bytearray(content[start : start + 512])
    for _ in range(rng.choice((1, 1, 3))):
        at, width = rng.choice(_TAR_FIELDS)
        token = rng.choice((rng.choice(TOKENS), rng.randbytes(width), b"\x80" + bytes(7) + b"\1\0\0\0", b"77777777777"))
        value = rng.choice(b"01234567xgLKSD").to_bytes(1, "big") if width == 1 else token[:width].ljust(width, b"\0")
        header[at : at + width] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return content[:start] + bytes(header) + content[start + 512 :]
