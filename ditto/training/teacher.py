"""The teacher: the Moonshine tiny-en speech encoder with full context, its weights read from the wheel of moonshine-voice.

`pip download moonshine-voice==0.1.0` and unpack it; the file is `moonshine_voice/assets/tiny-en/encoder_model.ort`
(MIT licence). Its matrices are 8 bit with one scale a matrix and are dequantised here.

Source: Moonshine, arXiv:2410.15608; layer layout as in transformers, modeling_moonshine.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, HEADS, LAYERS, HIDDEN = 288, 8, 6, 1152
ROTARY = 32  # of the 36 numbers of a head
LONGEST_PIECE = 1000  # tokens, 20 s: attention needs memory by the square of the length
NEIGHBOUR = 3  # tokens, 60 ms
PROBE_STEPS = 3000
LEVEL = 0.06  # RMS of a clip at the teacher's input


def read_weights(path: Path) -> dict[str, Tensor]:
    """Float weights of the Moonshine encoder by name: `conv1.weight`, `layers.0.q.weight` (out, in), ...

    Args:
        path: encoder_model.ort.

    Raises:
        ValueError: when the file lacks a weight this network needs.
    """
    from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs.InferenceSession import InferenceSession

    graph = InferenceSession.GetRootAsInferenceSession(bytearray(path.read_bytes()), 0).Model().Graph()
    types = {1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64}
    raw: dict[str, npt.NDArray[np.generic]] = {}
    for i in range(graph.InitializersLength()):
        tensor = graph.Initializers(i)
        shape = [tensor.Dims(j) for j in range(tensor.DimsLength())]
        data = np.frombuffer(tensor.RawDataAsNumpy().tobytes(), types[tensor.DataType()])
        raw[tensor.Name().decode()] = data.reshape(shape)

    def floats(name: str) -> Tensor:
        if name not in raw:
            raise ValueError(
                f"expected {name!r} in {path}, got none; give encoder_model.ort of moonshine-voice 0.1.0 (tiny-en)"
            )
        return torch.from_numpy(raw[name].astype(np.float32))

    out = {
        "conv1.weight": floats("conv1.weight_add_tensor"),
        "norm.weight": floats("onnx::Mul_2080")[:, 0],
        "norm.bias": floats("onnx::Add_2081")[:, 0],
        "conv2.weight": floats("conv2.weight_add_tensor"),
        "conv2.bias": floats("conv2.bias"),
        "conv3.weight": floats("conv3.weight_add_tensor"),
        "conv3.bias": floats("conv3.bias"),
        "final.weight": floats("layer_norm.weight"),
    }
    for i in range(LAYERS):
        out[f"layers.{i}.norm1.weight"] = floats(f"layers.{i}.input_layernorm.weight")
        out[f"layers.{i}.norm2.weight"] = floats(f"layers.{i}.post_attention_layernorm.weight")
        out[f"layers.{i}.fc1.bias"] = floats(f"layers.{i}.mlp.fc1.bias")
        out[f"layers.{i}.fc2.bias"] = floats(f"layers.{i}.mlp.fc2.bias")
    places = {f"self_attn/{k}_proj": k for k in "qkvo"} | {"mlp/fc1": "fc1", "mlp/fc2": "fc2"}
    for n in range(graph.NodesLength()):
        node = graph.Nodes(n)
        name = node.Name().decode()
        for place, short in places.items():
            if name.endswith(f"{place}/MatMul_quant"):
                layer = name.split("/")[1].removeprefix("layers.")
                matrix = next(
                    k.removesuffix("_quantized")
                    for k in (node.Inputs(j).decode() for j in range(node.InputsLength()))
                    if k.endswith("_quantized") and k in raw
                )
                zero = raw[f"{matrix}_zero_point"].astype(np.float32)
                scale = raw[f"{matrix}_scale"].astype(np.float32)
                value = (raw[f"{matrix}_quantized"].astype(np.float32) - zero) * scale
                out[f"layers.{layer}.{short}.weight"] = torch.from_numpy(value.T.copy())
    return out


def rotary_table(positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines (T, 32) of positions (T,), each frequency twice in a row."""
    frequency = 10000.0 ** (-torch.arange(0, ROTARY, 2, dtype=torch.float64) / ROTARY)
    angle = (positions.double()[:, None] * frequency).repeat_interleave(2, 1)
    return angle.cos().float(), angle.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x (..., T, 36): the first 32 numbers are rotated in neighbouring pairs, the last 4 are unchanged."""
    turned, kept = x[..., :ROTARY], x[..., ROTARY:]
    swapped = torch.stack((-turned[..., 1::2], turned[..., ::2]), -1).flatten(-2)
    return torch.cat((turned * cos + swapped * sin, kept), -1)


class Teacher(nn.Module):
    """Moonshine tiny-en's encoder, whole clips at a time.

    Args:
        weights: From `read_weights`.
        fifty: 50 tokens a second instead of the published 41.67 (384 samples a token): the same filters every 320
            samples, and rotary positions scaled by 5/6, so that time differences are as in training. Its phone probe
            is as good (visemes .772 against .771).
    """

    def __init__(self, weights: dict[str, Tensor], fifty: bool = False) -> None:
        super().__init__()
        self.w = nn.ParameterDict({k.replace(".", "_"): nn.Parameter(v, False) for k, v in weights.items()})
        self.fifty = fifty

    def stem(self, samples: Tensor) -> Tensor:
        w = self.w
        x = torch.tanh(F.conv1d(samples[:, None], w["conv1_weight"], stride=64))
        x = F.group_norm(x, 1, w["norm_weight"], w["norm_bias"], 1e-5)
        if self.fifty:
            x = F.gelu(F.conv1d(x, w["conv2_weight"], w["conv2_bias"]))
            x = F.gelu(F.conv1d(x, w["conv3_weight"], w["conv3_bias"], stride=5, dilation=3))
        else:
            x = F.gelu(F.conv1d(x, w["conv2_weight"], w["conv2_bias"], stride=3))
            x = F.gelu(F.conv1d(x, w["conv3_weight"], w["conv3_bias"], stride=2))
        return x.transpose(1, 2)

    def forward(self, samples: Tensor) -> Tensor:
        """Hidden states (B, T, 288) of samples (B, N) at 16 kHz; token t covers 895 samples from 384 t (or 320 t)."""
        w = self.w
        x = self.stem(samples)
        batch, length, _ = x.shape
        cos, sin = rotary_table(torch.arange(length) * (5 / 6 if self.fifty else 1.0))
        for i in range(LAYERS):
            p = f"layers_{i}_"
            y = F.layer_norm(x, (WIDTH,), w[p + "norm1_weight"])
            q, k, v = (
                F.linear(y, w[f"{p}{n}_weight"]).view(batch, length, HEADS, -1).transpose(1, 2) for n in "qkv"
            )
            y = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v)
            x = x + F.linear(y.transpose(1, 2).reshape(batch, length, WIDTH), w[p + "o_weight"])
            y = F.layer_norm(x, (WIDTH,), w[p + "norm2_weight"])
            y = F.gelu(F.linear(y, w[p + "fc1_weight"], w[p + "fc1_bias"]))
            x = x + F.linear(y, w[p + "fc2_weight"], w[p + "fc2_bias"])
        return F.layer_norm(x, (WIDTH,), w["final_weight"])


@torch.no_grad()
def teacher_states(teacher: Teacher, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Hidden states (N // 320, 288) of a clip at the student's tokens; `teacher` must have 50 tokens a second.

    Token j covers samples [320 j - 255, 320 j + 640), as the student's does; its centre is 2 ms after that of the frame.
    Long clips are computed in overlapping pieces of at most `LONGEST_PIECE` tokens.
    """
    samples = samples / (np.sqrt((samples**2).mean()) + 1e-6) * LEVEL
    tokens = len(samples) // 320
    padded = torch.from_numpy(np.pad(samples[: tokens * 320], (255, 320)))[None]
    if tokens <= LONGEST_PIECE:
        found: npt.NDArray[np.float32] = teacher(padded)[0].numpy()
        return found
    out = np.zeros((tokens, WIDTH), np.float32)
    margin = LONGEST_PIECE // 8
    for start in range(0, tokens, LONGEST_PIECE - 2 * margin):
        end = min(start + LONGEST_PIECE, tokens)
        piece = teacher(padded[:, start * 320 : end * 320 + 575])[0].numpy()
        skip = margin if start else 0
        out[start + skip : end] = piece[skip:]
    return out


def phone_probe(hidden: list[npt.NDArray[np.float32]], labels: list[npt.NDArray[np.int64]]) -> nn.Module:
    """Train a small network from the teacher's hidden states, with those 60 ms before and after, to phone logits.

    Args:
        hidden: (T, 288) each.
        labels: (T,) phone classes each.

    Returns:
        Module taking `with_neighbours(hidden)` (T, 864) and giving (T, 40).
    """
    torch.manual_seed(0)
    x = torch.from_numpy(np.concatenate([with_neighbours(h[: len(y)]) for h, y in zip(hidden, labels, strict=True)]))
    y = torch.from_numpy(np.concatenate([y[: len(h)] for h, y in zip(hidden, labels, strict=True)]))
    probe = nn.Sequential(nn.Dropout(0.1), nn.Linear(3 * WIDTH, 256), nn.GELU(), nn.Dropout(0.2), nn.Linear(256, 40))
    optimiser = torch.optim.AdamW(probe.parameters(), 1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=PROBE_STEPS)
    for _ in range(PROBE_STEPS):
        rows = torch.randint(len(x), (512,))
        loss = F.cross_entropy(probe(x[rows]), y[rows], label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return probe.eval()


def with_neighbours(hidden: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Each token's hidden state with those 60 ms before and after: (T, 288) -> (T, 864)."""
    places = np.arange(len(hidden))
    around = [hidden[np.clip(places + k, 0, len(hidden) - 1)] for k in (-NEIGHBOUR, 0, NEIGHBOUR)]
    return np.concatenate(around, 1).astype(np.float32)
