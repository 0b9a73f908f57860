"""Original checkpoints in small, and what their code bases compute with them, written down independently of diffusers.

Each architecture has a function that draws random parameters under their original names, and one that evaluates the
network from these, so that a conversion can be held against the original's own arithmetic.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

State = dict[str, torch.Tensor]


class Draw:
    """Collects random parameters by name; with no seed only their shapes, which costs nothing at full size."""

    def __init__(self, seed: int | None) -> None:
        self.state: State = {}
        self._generator = None if seed is None else torch.Generator().manual_seed(seed)

    def weights(self, name: str, *shape: int, scale: float = 0.3) -> None:
        if self._generator is None:
            self.state[name] = torch.empty(shape, device="meta")
        else:
            self.state[name] = scale * torch.randn(shape, generator=self._generator)

    def linear(self, name: str, inner: int, outer: int, *, bias: bool = True) -> None:
        self.weights(f"{name}.weight", outer, inner, scale=1.0 / math.sqrt(inner))
        if bias:
            self.weights(f"{name}.bias", outer)

    def conv(self, name: str, inner: int, outer: int, side: int) -> None:
        self.weights(f"{name}.weight", outer, inner, side, side, scale=1.0 / math.sqrt(inner * side * side))
        self.weights(f"{name}.bias", outer)

    def norm(self, name: str, width: int) -> None:
        self.weights(f"{name}.weight", width)
        self.weights(f"{name}.bias", width)


def linear(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def conv(state: State, name: str, x: torch.Tensor, stride: int = 1, padding: int = 0) -> torch.Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride=stride, padding=padding)


def layer_norm(state: State, name: str, x: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], state.get(f"{name}.weight"), state.get(f"{name}.bias"), eps)


def group_norm(state: State, name: str, x: torch.Tensor, groups: int, eps: float) -> torch.Tensor:
    return F.group_norm(x, groups, state[f"{name}.weight"], state[f"{name}.bias"], eps)


def sinusoids(t: torch.Tensor, width: int) -> torch.Tensor:
    half = width // 2
    angles = t[:, None].float() * 10000.0 ** (-torch.arange(half) / half)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """q, k, v are (B, tokens, width)."""
    q, k, v = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (q, k, v))
    weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def fixed_positions(width: int, side: int) -> torch.Tensor:
    """(1, side^2, width): sines and cosines of the column in the features' first half, of the row in the other."""
    frequencies = 10000.0 ** (-torch.arange(width // 4).double() / (width // 4))
    rows, columns = torch.meshgrid(torch.arange(side).double(), torch.arange(side).double(), indexing="ij")
    halves = [torch.cat([a.sin(), a.cos()], 1) for a in (p.reshape(-1, 1) * frequencies for p in (columns, rows))]
    return torch.cat(halves, 1)[None].float()


def unpatched(x: torch.Tensor, patch: int, channels: int) -> torch.Tensor:
    """Tokens (B, side^2, patch * patch * channels) to a picture (B, channels, side * patch, side * patch)."""
    side = math.isqrt(x.shape[1])
    x = x.reshape(-1, side, side, patch, patch, channels)
    return torch.einsum("bhwpqc->bchpwq", x).reshape(-1, channels, side * patch, side * patch)


def dit_state(seed: int | None, *, width: int, depth: int, classes: int, side: int = 4, learned: int = 8) -> State:
    draw = Draw(seed)
    draw.conv("x_embedder.proj", 4, width, 2)
    draw.linear("t_embedder.mlp.0", 256, width)
    draw.linear("t_embedder.mlp.2", width, width)
    draw.weights("y_embedder.embedding_table.weight", classes + 1, width)
    draw.state["pos_embed"] = fixed_positions(width, side)
    for i in range(depth):
        draw.linear(f"blocks.{i}.attn.qkv", width, 3 * width)
        draw.linear(f"blocks.{i}.attn.proj", width, width)
        draw.linear(f"blocks.{i}.mlp.fc1", width, 4 * width)
        draw.linear(f"blocks.{i}.mlp.fc2", 4 * width, width)
        draw.linear(f"blocks.{i}.adaLN_modulation.1", width, 6 * width)
    draw.linear("final_layer.linear", width, 4 * learned)
    draw.linear("final_layer.adaLN_modulation.1", width, 2 * width)
    return draw.state


def dit(state: State, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor, heads: int, learned: int = 8) -> torch.Tensor:
    c = linear(state, "t_embedder.mlp.2", F.silu(linear(state, "t_embedder.mlp.0", sinusoids(t, 256))))
    c = F.silu(c + state["y_embedder.embedding_table.weight"][y])[:, None]
    x = conv(state, "x_embedder.proj", x, stride=2).flatten(2).transpose(1, 2) + state["pos_embed"]
    for i in range(sum(name.endswith("attn.qkv.weight") for name in state)):
        at = f"blocks.{i}"
        shift1, scale1, gate1, shift2, scale2, gate2 = linear(state, f"{at}.adaLN_modulation.1", c).chunk(6, -1)
        q, k, v = linear(state, f"{at}.attn.qkv", layer_norm({}, "", x, 1e-6) * (1 + scale1) + shift1).chunk(3, -1)
        x = x + gate1 * linear(state, f"{at}.attn.proj", attention(q, k, v, heads))
        h = linear(state, f"{at}.mlp.fc1", layer_norm({}, "", x, 1e-6) * (1 + scale2) + shift2)
        x = x + gate2 * linear(state, f"{at}.mlp.fc2", F.gelu(h, approximate="tanh"))
    shift, scale = linear(state, "final_layer.adaLN_modulation.1", c).chunk(2, -1)
    x = linear(state, "final_layer.linear", layer_norm({}, "", x, 1e-6) * (1 + scale) + shift)
    return unpatched(x, 2, learned)


def u_vit_state(seed: int | None, *, width: int, depth: int, classes: int, side: int = 4, final: bool = False) -> State:
    draw = Draw(seed)
    draw.conv("patch_embed.proj", 4, width, 2)
    draw.weights("label_emb.weight", classes + 1, width)
    draw.weights("pos_embed", 1, 2 + side * side, width)
    half = depth // 2
    names = [f"in_blocks.{i}" for i in range(half)] + ["mid_block"] + [f"out_blocks.{i}" for i in range(half)]
    for name in names:
        if name.startswith("out"):
            draw.linear(f"{name}.skip_linear", 2 * width, width)
        draw.norm(f"{name}.norm1", width)
        draw.linear(f"{name}.attn.qkv", width, 3 * width, bias=False)
        draw.linear(f"{name}.attn.proj", width, width)
        draw.norm(f"{name}.norm2", width)
        draw.linear(f"{name}.mlp.fc1", width, 4 * width)
        draw.linear(f"{name}.mlp.fc2", 4 * width, width)
    draw.norm("norm", width)
    draw.linear("decoder_pred", width, 16)
    if final:
        draw.conv("final_layer", 4, 4, 3)
    return draw.state


def u_vit(state: State, x: torch.Tensor, n: torch.Tensor, y: torch.Tensor, heads: int) -> torch.Tensor:
    """`n` counts the noise levels from 1, as its authors do."""
    x = conv(state, "patch_embed.proj", x, stride=2).flatten(2).transpose(1, 2)
    tokens = [state["label_emb.weight"][y][:, None], sinusoids(n, x.shape[-1])[:, None], x]
    x = torch.cat(tokens, 1) + state["pos_embed"]

    def block(at: str, x: torch.Tensor) -> torch.Tensor:
        q, k, v = linear(state, f"{at}.attn.qkv", layer_norm(state, f"{at}.norm1", x)).chunk(3, -1)
        x = x + linear(state, f"{at}.attn.proj", attention(q, k, v, heads))
        h = F.gelu(linear(state, f"{at}.mlp.fc1", layer_norm(state, f"{at}.norm2", x)))
        return x + linear(state, f"{at}.mlp.fc2", h)

    half = sum(name.endswith("skip_linear.weight") for name in state)
    skips = []
    for i in range(half):
        skips.append(x := block(f"in_blocks.{i}", x))
    x = block("mid_block", x)
    for i in range(half):
        joined = torch.cat([x, skips[half - 1 - i]], -1)
        x = block(f"out_blocks.{i}", linear(state, f"out_blocks.{i}.skip_linear", joined))
    x = linear(state, "decoder_pred", layer_norm(state, "norm", x))[:, 2:]
    x = unpatched(x, 2, 4)
    return conv(state, "final_layer", x, padding=1) if "final_layer.weight" in state else x


def ldm_state(seed: int | None, *, widths: tuple[int, ...], context: int, rows: int) -> State:
    """A latent-diffusion checkpoint: a U-Net with a transformer at each level, 2 blocks a level; the labels' table."""
    draw, at, time = Draw(seed), "model.diffusion_model.", 4 * widths[0]

    def res(name: str, inner: int, outer: int) -> None:
        draw.norm(f"{at}{name}.in_layers.0", inner)
        draw.conv(f"{at}{name}.in_layers.2", inner, outer, 3)
        draw.linear(f"{at}{name}.emb_layers.1", time, outer)
        draw.norm(f"{at}{name}.out_layers.0", outer)
        draw.conv(f"{at}{name}.out_layers.3", outer, outer, 3)
        if inner != outer:
            draw.conv(f"{at}{name}.skip_connection", inner, outer, 1)

    def transformer(name: str, width: int) -> None:
        draw.norm(f"{at}{name}.norm", width)
        draw.conv(f"{at}{name}.proj_in", width, width, 1)
        block = f"{at}{name}.transformer_blocks.0"
        for i, inner in ((1, width), (2, context)):
            draw.linear(f"{block}.attn{i}.to_q", width, width, bias=False)
            draw.linear(f"{block}.attn{i}.to_k", inner, width, bias=False)
            draw.linear(f"{block}.attn{i}.to_v", inner, width, bias=False)
            draw.linear(f"{block}.attn{i}.to_out.0", width, width)
        draw.linear(f"{block}.ff.net.0.proj", width, 8 * width)
        draw.linear(f"{block}.ff.net.2", 4 * width, width)
        for i in (1, 2, 3):
            draw.norm(f"{block}.norm{i}", width)
        draw.conv(f"{at}{name}.proj_out", width, width, 1)

    draw.linear(f"{at}time_embed.0", widths[0], time)
    draw.linear(f"{at}time_embed.2", time, time)
    draw.conv(f"{at}input_blocks.0.0", 4, widths[0], 3)
    kept, now, number = [widths[0]], widths[0], 1
    for level, width in enumerate(widths):
        for _ in range(2):
            res(f"input_blocks.{number}.0", now, width)
            transformer(f"input_blocks.{number}.1", width)
            kept.append(now := width)
            number += 1
        if level < len(widths) - 1:
            draw.conv(f"{at}input_blocks.{number}.0.op", width, width, 3)
            kept.append(width)
            number += 1
    res("middle_block.0", now, now)
    transformer("middle_block.1", now)
    res("middle_block.2", now, now)
    number = 0
    for level, width in reversed([*enumerate(widths)]):
        for i in range(3):
            res(f"output_blocks.{number}.0", now + kept.pop(), width)
            transformer(f"output_blocks.{number}.1", width)
            now = width
            if level and i == 2:
                draw.conv(f"{at}output_blocks.{number}.2.conv", width, width, 3)
            number += 1
    draw.norm(f"{at}out.0", now)
    draw.conv(f"{at}out.2", now, 4, 3)
    draw.weights("cond_stage_model.embedding.weight", rows, context)
    return draw.state


def ldm(state: State, x: torch.Tensor, t: torch.Tensor, token: torch.Tensor, *, head: int, groups: int) -> torch.Tensor:
    """`token` is the label's embedding, (B, 1, context); `head` features make a head."""
    own = {k.removeprefix("model.diffusion_model."): v for k, v in state.items()}
    width = own["time_embed.0.weight"].shape[1]
    emb = F.silu(linear(own, "time_embed.2", F.silu(linear(own, "time_embed.0", sinusoids(t, width)))))

    def res(at: str, x: torch.Tensor) -> torch.Tensor:
        h = conv(own, f"{at}.in_layers.2", F.silu(group_norm(own, f"{at}.in_layers.0", x, groups, 1e-5)), padding=1)
        h = h + linear(own, f"{at}.emb_layers.1", emb)[:, :, None, None]
        h = conv(own, f"{at}.out_layers.3", F.silu(group_norm(own, f"{at}.out_layers.0", h, groups, 1e-5)), padding=1)
        return h + (conv(own, f"{at}.skip_connection", x) if f"{at}.skip_connection.weight" in own else x)

    def attend(at: str, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        q, k, v = linear(own, f"{at}.to_q", x), linear(own, f"{at}.to_k", seen), linear(own, f"{at}.to_v", seen)
        return linear(own, f"{at}.to_out.0", attention(q, k, v, q.shape[-1] // head))

    def transformer(at: str, x: torch.Tensor) -> torch.Tensor:
        block, side = f"{at}.transformer_blocks.0", x.shape[-1]
        h = conv(own, f"{at}.proj_in", group_norm(own, f"{at}.norm", x, groups, 1e-6)).flatten(2).transpose(1, 2)
        h = h + attend(f"{block}.attn1", n := layer_norm(own, f"{block}.norm1", h), n)
        h = h + attend(f"{block}.attn2", layer_norm(own, f"{block}.norm2", h), token)
        up, gate = linear(own, f"{block}.ff.net.0.proj", layer_norm(own, f"{block}.norm3", h)).chunk(2, -1)
        h = h + linear(own, f"{block}.ff.net.2", up * F.gelu(gate))
        return x + conv(own, f"{at}.proj_out", h.transpose(1, 2).unflatten(2, (side, side)))

    kept = [x := conv(own, "input_blocks.0.0", x, padding=1)]
    for i in range(1, 1 + max(int(k.split(".")[1]) for k in own if k.startswith("input_blocks"))):
        if f"input_blocks.{i}.0.op.weight" in own:
            x = conv(own, f"input_blocks.{i}.0.op", x, stride=2, padding=1)
        else:
            x = transformer(f"input_blocks.{i}.1", res(f"input_blocks.{i}.0", x))
        kept.append(x)
    x = res("middle_block.2", transformer("middle_block.1", res("middle_block.0", x)))
    for i in range(1 + max(int(k.split(".")[1]) for k in own if k.startswith("output_blocks"))):
        x = res(f"output_blocks.{i}.0", torch.cat([x, kept.pop()], 1))
        x = transformer(f"output_blocks.{i}.1", x)
        if f"output_blocks.{i}.2.conv.weight" in own:
            x = conv(own, f"output_blocks.{i}.2.conv", F.interpolate(x, scale_factor=2.0), padding=1)
    return conv(own, "out.2", F.silu(group_norm(own, "out.0", x, groups, 1e-5)), padding=1)


def vq_state(seed: int | None, *, widths: tuple[int, ...], codes: int) -> State:
    """A VQ autoencoder with attention at the innermost level, 2 blocks a level, 3 in the decoder; 4 latent channels."""
    draw = Draw(seed)

    def res(name: str, inner: int, outer: int) -> None:
        draw.norm(f"{name}.norm1", inner)
        draw.conv(f"{name}.conv1", inner, outer, 3)
        draw.norm(f"{name}.norm2", outer)
        draw.conv(f"{name}.conv2", outer, outer, 3)
        if inner != outer:
            draw.conv(f"{name}.nin_shortcut", inner, outer, 1)

    def attn(name: str, width: int) -> None:
        draw.norm(f"{name}.norm", width)
        for part in ("q", "k", "v", "proj_out"):
            draw.conv(f"{name}.{part}", width, width, 1)

    def side(name: str, levels: list[tuple[str, int, int]], resampling: str, blocks: int, inner: int) -> int:
        draw.conv(f"{name}.conv_in", inner, levels[0][2] if name == "decoder" else widths[0], 3)
        now = levels[0][2] if name == "decoder" else widths[0]
        if name == "decoder":
            middle(name, now)
        for i, (at, level, width) in enumerate(levels):
            for j in range(blocks):
                res(f"{name}.{at}.{level}.block.{j}", now, width)
                if level == len(widths) - 1:
                    attn(f"{name}.{at}.{level}.attn.{j}", width)
                now = width
            if i < len(levels) - 1:
                draw.conv(f"{name}.{at}.{level}.{resampling}.conv", width, width, 3)
        if name == "encoder":
            middle(name, now)
        draw.norm(f"{name}.norm_out", now)
        return now

    def middle(name: str, width: int) -> None:
        res(f"{name}.mid.block_1", width, width)
        attn(f"{name}.mid.attn_1", width)
        res(f"{name}.mid.block_2", width, width)

    numbered = [*enumerate(widths)]
    now = side("encoder", [("down", i, w) for i, w in numbered], "downsample", 2, 3)
    draw.conv("encoder.conv_out", now, 4, 3)
    now = side("decoder", [("up", i, w) for i, w in reversed(numbered)], "upsample", 3, 4)
    draw.conv("decoder.conv_out", now, 3, 3)
    draw.weights("quantize.embedding.weight", codes, 4)
    draw.conv("quant_conv", 4, 4, 1)
    draw.conv("post_quant_conv", 4, 4, 1)
    draw.weights("loss.discriminator.weight", 2)  # what training leaves behind
    return draw.state


class VQ:
    """Encoder and decoder evaluated from original parameters."""

    def __init__(self, state: State, groups: int) -> None:
        self.state, self.groups = state, groups
        self.levels = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("encoder.down."))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        x = conv(self.state, "encoder.conv_in", x, padding=1)
        for level in range(self.levels):
            x = self._blocks(f"encoder.down.{level}", x, 2)
            if f"encoder.down.{level}.downsample.conv.weight" in self.state:
                x = conv(self.state, f"encoder.down.{level}.downsample.conv", F.pad(x, (0, 1, 0, 1)), stride=2)
        return conv(self.state, "quant_conv", self._out("encoder", self._middle("encoder", x)))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        codes = self.state["quantize.embedding.weight"]
        distances = torch.cdist(z.permute(0, 2, 3, 1).reshape(-1, 4), codes)
        z = codes[distances.argmin(1)].reshape(len(z), *z.shape[2:], 4).permute(0, 3, 1, 2)
        x = conv(self.state, "decoder.conv_in", conv(self.state, "post_quant_conv", z), padding=1)
        x = self._middle("decoder", x)
        for level in reversed(range(self.levels)):
            x = self._blocks(f"decoder.up.{level}", x, 3)
            if f"decoder.up.{level}.upsample.conv.weight" in self.state:
                x = conv(self.state, f"decoder.up.{level}.upsample.conv", F.interpolate(x, scale_factor=2.0), padding=1)
        return self._out("decoder", x)

    def _blocks(self, at: str, x: torch.Tensor, blocks: int) -> torch.Tensor:
        for j in range(blocks):
            x = self._res(f"{at}.block.{j}", x)
            if f"{at}.attn.{j}.norm.weight" in self.state:
                x = self._attn(f"{at}.attn.{j}", x)
        return x

    def _middle(self, at: str, x: torch.Tensor) -> torch.Tensor:
        return self._res(f"{at}.mid.block_2", self._attn(f"{at}.mid.attn_1", self._res(f"{at}.mid.block_1", x)))

    def _out(self, at: str, x: torch.Tensor) -> torch.Tensor:
        return conv(self.state, f"{at}.conv_out", F.silu(self._norm(f"{at}.norm_out", x)), padding=1)

    def _norm(self, at: str, x: torch.Tensor) -> torch.Tensor:
        return group_norm(self.state, at, x, self.groups, 1e-6)

    def _res(self, at: str, x: torch.Tensor) -> torch.Tensor:
        h = conv(self.state, f"{at}.conv1", F.silu(self._norm(f"{at}.norm1", x)), padding=1)
        h = conv(self.state, f"{at}.conv2", F.silu(self._norm(f"{at}.norm2", h)), padding=1)
        return h + (conv(self.state, f"{at}.nin_shortcut", x) if f"{at}.nin_shortcut.weight" in self.state else x)

    def _attn(self, at: str, x: torch.Tensor) -> torch.Tensor:
        n, side = self._norm(f"{at}.norm", x), x.shape[-1]
        q, k, v = (conv(self.state, f"{at}.{part}", n).flatten(2).transpose(1, 2) for part in "qkv")
        h = attention(q, k, v, 1).transpose(1, 2).unflatten(2, (side, side))
        return x + conv(self.state, f"{at}.proj_out", h)
