"""Ship the trained speech encoder: encoder.safetensors (half precision) and encoder.onnx (8 bit weights) of a bundle.

    python -m ditto.training.export_encoder WORK/encoder.pt DATA TRACKS ditto/bundles/lite

Matrices are rounded to 8 bit with a scale an output, whose mantissa has 4 bits: scale times integer is then exact in
half precision, so both files hold the very same numbers. Fails when ONNX Runtime and torch differ by more than 1e-4.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ditto.bundle import reseal
from ditto.commands import Arguments, run
from ditto.full.networks.weights import load_state
from ditto.lite.networks.speech_encoder import (
    AHEAD,
    BLOCK,
    CONTEXT,
    Layer,
    SpeechEncoder,
    SpeechEncoderConfig,
    SpeechEncoderState,
    follow_level,
    rotary_table,
    zero_state,
)
from ditto.lite.phones import PHONE_INDEX
from ditto.media.audio import HOP_SAMPLES
from ditto.media.files import check_folder
from ditto.training.encoder import context_speech, measure, pseudo_context
from ditto.training.speech_data import Clip, read_test, read_train

LIPS = ("P", "B", "M", "F", "V")
LIPS_BIAS = 0.5  # a missed closure is seen, a false one hardly: recall .76 -> .80 (P B M), .68 -> .71 (F V)
QUANTISED_FROM = 50_000  # numbers; smaller tensors stay in half precision
TOLERANCE = 1e-4


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest integers (int8) and scales (outputs,) of a matrix (outputs, ...); their product is exact in float16."""
    flat = weight.flatten(1).double()
    scale = flat.abs().amax(1).clamp(min=1e-6) / 127
    exponent = torch.floor(torch.log2(scale)) - 3
    scale = torch.ceil(scale / 2**exponent) * 2**exponent
    whole = torch.round(flat / scale[:, None]).clamp(-127, 127)
    return whole.reshape(weight.shape).to(torch.int8), scale.float()


def round_weights(encoder: SpeechEncoder) -> dict[str, tuple[Tensor, Tensor]]:
    """Round all weights in place to what is shipped; gives the integers and scales of the large ones."""
    rounded = {}
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if parameter.numel() >= QUANTISED_FROM and parameter.ndim > 1:
                whole, scale = quantise(parameter)
                rounded[name] = whole, scale
                parameter.copy_(whole.float() * scale.reshape(-1, *[1] * (parameter.ndim - 1)))
            else:
                parameter.copy_(parameter.half().float())
    return rounded


@torch.no_grad()
def set_whitening(encoder: SpeechEncoder, clips: Sequence[Clip], start: SpeechEncoderState) -> None:
    """Measure mean and deviation of the hidden half of the features on streamed training speech."""
    encoder.hidden_mean.zero_()
    encoder.hidden_std.fill_(1)
    rows = []
    for clip in clips:
        samples = clip.waveform[: len(clip.samples) // HOP_SAMPLES * HOP_SAMPLES]
        rows.append(encoder(torch.from_numpy(samples)[None], start)[0][0, 2:, : encoder.config.width])
    every = torch.cat(rows)
    encoder.hidden_mean.copy_(every.mean(0).half())
    encoder.hidden_std.copy_(every.std(0).half())


def load_encoder(path: Path) -> tuple[SpeechEncoder, SpeechEncoderState]:
    """The encoder and the initial state of a bundle's encoder.safetensors."""
    tensors = load_file(path)
    initial = {k.removeprefix("initial."): v.float() for k, v in tensors.items() if k.startswith("initial.")}
    encoder = SpeechEncoder()
    load_state(encoder, {k: v.float() for k, v in tensors.items() if not k.startswith("initial.")}, path)
    return encoder.eval(), SpeechEncoderState(**initial)


class OneHop(nn.Module):
    """The encoder for one hop a call, written so that little is copied: the form that is exported.

    Its sums are those of `SpeechEncoder` in the same order, so ONNX Runtime gives the same bits for both. Cached keys lie as
    (heads, size, tokens): the rotation swaps rows, and the product needs no transpose. The three overlapping convolutions
    of the stem are one, over gathered samples. The cache goes in a layer at a time; only the hop's own keys and values come
    out, and the caller appends them.
    """

    partner: Tensor
    query_turn: Tensor
    key_turn: Tensor
    columns: Tensor

    def __init__(self, encoder: SpeechEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        config = encoder.config
        self.size = config.width // config.heads
        cos, sin = rotary_table(range(-config.left, BLOCK + AHEAD), config.rotary)
        sin = sin * torch.tensor([-1.0, 1.0]).repeat(config.rotary // 2)  # x[1] turns into -x[0]
        kept = self.size - config.rotary  # numbers that do not turn
        turn = torch.stack((F.pad(cos, (0, kept), value=1.0), F.pad(sin, (0, kept))))  # (2, left + 7, size)
        partner = torch.arange(self.size)
        partner[: config.rotary] ^= 1
        starts = [5 * token + lag for lag in (0, 3, 6) for token in range(BLOCK)]
        taps = torch.arange(encoder.stem.conv2.kernel_size[0])
        # Buffers: the file has each once.
        self.register_buffer("partner", partner)
        self.register_buffer("query_turn", turn[:, -BLOCK - AHEAD :, None])
        self.register_buffer("key_turn", turn.transpose(1, 2).contiguous())
        self.register_buffer("columns", (torch.tensor(starts)[:, None] + taps).flatten())

    def rotate(self, x: Tensor, turn: Tensor, axis: int) -> Tensor:
        """`speech_encoder.rotate`, with the numbers of a head along any axis; turn: cosines and sines."""
        return x * turn[0] + x.index_select(axis, self.partner) * turn[1]

    def stem(self, samples: Tensor) -> Tensor:
        """As `Stem`, for the four tokens of a hop."""
        stem = self.encoder.stem
        width, _, taps = stem.conv2.weight.shape
        x = torch.tanh(stem.conv1(samples[:, None])) * stem.scale[:, None] + stem.shift[:, None]
        x = F.gelu(F.conv1d(x.index_select(2, self.columns), stem.conv2.weight, stem.conv2.bias, stride=taps))
        x = x.reshape(-1, width, 3, BLOCK).permute(0, 3, 2, 1).reshape(-1, BLOCK, 3 * width)
        return F.gelu(stem.conv3(x))

    def layer(self, layer: Layer, x: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `Layer`: output (B, 7, width), and keys (B, heads, size, 4) and values (B, heads, 4, size) of the hop.

        Args:
            x: (B, 7, width).
            keys, values: (B, heads, size, left) and (B, heads, left, size) of the tokens before.
        """
        length, heads = BLOCK + AHEAD, layer.heads
        qkv = layer.qkv(layer.norm1(x)).reshape(-1, length, 3 * heads, self.size)
        q, k, v = (qkv[:, :, i * heads : (i + 1) * heads] for i in range(3))
        q = self.rotate(q, self.query_turn, 3)
        # Scaled before the transpose, or ONNX Runtime scales the product in place of q, and rounds otherwise.
        q = (q * self.size**-0.5).transpose(1, 2)
        k, v = k.permute(0, 2, 3, 1), v.transpose(1, 2)
        every_k = self.rotate(torch.cat((keys, k), 3), self.key_turn, 2)
        y = (q @ every_k).softmax(-1) @ torch.cat((values, v), 2)
        x = x + layer.out(y.transpose(1, 2).reshape(-1, length, heads * self.size))
        x = x + layer.fc2(F.gelu(layer.fc1(layer.norm2(x))))
        return x, k[..., :BLOCK], v[:, :, :BLOCK]

    def forward(
        self, samples: Tensor, level: Tensor, hops: Tensor, past: Tensor, tokens: Tensor, *cache: Tensor
    ) -> tuple[Tensor, ...]:
        """Features (B, 2, 368), the next level, hops, samples, tokens, and the hop's keys and values as of `layer`, stacked.

        Args:
            samples: (B, 1280).
            level, hops, past, tokens: of `SpeechEncoderState`; past: its samples.
            cache: keys of each layer, then values of each, as `layer` takes them.
        """
        encoder, layers = self.encoder, self.encoder.config.layers
        levelled, level, hops = follow_level(samples, level, hops)
        context = torch.cat((past, levelled), 1)
        x = tokens = torch.cat((tokens, self.stem(context)), 1)
        new_keys, new_values = [], []
        for i in range(layers):
            x, keys, values = self.layer(cast(Layer, encoder.layers[i]), x, cache[i], cache[layers + i])
            new_keys.append(keys)
            new_values.append(values)
        features = encoder.features(encoder.final(x[:, :BLOCK]))
        new = torch.stack(new_keys, 1), torch.stack(new_values, 1)
        return features, level, hops, context[:, -CONTEXT:], tokens[:, -AHEAD:], *new


def export_onnx(encoder: SpeechEncoder, rounded: dict[str, tuple[Tensor, Tensor]], path: Path) -> None:
    """Write the ONNX file: one hop a call, any batch, large weights as int8 with a cast and a scale before use."""
    config = encoder.config
    size, layers = config.width // config.heads, range(config.layers)
    small = zero_state(config, 2)[:4]
    keys, values = (torch.zeros(2, config.heads, *shape) for shape in ((size, config.left), (config.left, size)))
    names = SpeechEncoderState._fields[:4]
    cached = [f"state.{name}.{i}" for name in ("keys", "values") for i in layers]
    inputs = ["samples", *(f"state.{name}" for name in names), *cached]
    outputs = ["features", *(f"next_state.{name}" for name in names), "new.keys", "new.values"]
    torch.onnx.export(
        OneHop(encoder).eval(),
        (torch.zeros(2, HOP_SAMPLES), *small, *(keys for _ in layers), *(values for _ in layers)),
        str(path), opset_version=17, dynamo=False, input_names=inputs, output_names=outputs,
        dynamic_axes={name: {0: "batch"} for name in inputs + outputs},
    )  # fmt: skip
    model = onnx.load(str(path))
    small_weights(model, {k: (w.numpy(), s.numpy()) for k, (w, s) in rounded.items()})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def small_weights(
    model: onnx.ModelProto, rounded: dict[str, tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]]
) -> None:
    """Replace large float initialisers by int8 and scale, or float16; ONNX Runtime folds the casts when it loads."""
    known = {}
    for whole, scale in rounded.values():
        column = scale.reshape(-1, *[1] * (whole.ndim - 1))
        value = whole.astype(np.float32) * column
        known[value.tobytes()] = whole, column
        if whole.ndim == 2:
            known[np.ascontiguousarray(value.T).tobytes()] = np.ascontiguousarray(whole.T), column.T
    graph = model.graph
    nodes = []
    for tensor in list(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT:
            continue
        value = numpy_helper.to_array(tensor)
        if value.size < 2000:
            continue
        name = tensor.name
        graph.initializer.remove(tensor)
        if value.tobytes() in known:
            whole, scale = known[value.tobytes()]
            graph.initializer.append(numpy_helper.from_array(whole, f"{name}.int8"))
            graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
            nodes.append(helper.make_node("Cast", [f"{name}.int8"], [f"{name}.float"], to=TensorProto.FLOAT))
            nodes.append(helper.make_node("Mul", [f"{name}.float", f"{name}.scale"], [name]))
        else:
            half = value.astype(np.float16)
            if not np.array_equal(half.astype(np.float32), value):
                graph.initializer.append(tensor)
                continue
            graph.initializer.append(numpy_helper.from_array(half, f"{name}.half"))
            nodes.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    for node in reversed(nodes):
        graph.node.insert(0, node)


def check(folder: Path, samples: npt.NDArray[np.float32]) -> float:
    """Largest difference of features and states between ONNX Runtime and torch along a stream.

    Raises:
        ValueError: it is more than 1e-4.
    """
    from ditto.lite.speech_encoder import SpeechEncoder as Runtime

    encoder, state = load_encoder(folder / "encoder.safetensors")
    runtime = Runtime(folder)
    other = runtime.initial_state(1)
    worst = 0.0
    for hop in samples[: len(samples) // HOP_SAMPLES * HOP_SAMPLES].reshape(-1, 1, HOP_SAMPLES):
        with torch.no_grad():
            features, state = encoder(torch.from_numpy(hop), state)
        heard, other = runtime(hop, other)
        worst = max(worst, float(np.abs(heard - features.numpy()).max()))
    if worst > TOLERANCE:
        raise ValueError(
            f"expected features of ONNX Runtime within {TOLERANCE:.0e} of torch's over a stream, got {worst:.1e}; use the "
            "versions of requirements/"
        )
    return worst


def main() -> None:
    parser = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("weights", "data", "tracks", "out"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    check_folder(options.out)
    torch.set_num_threads(1)
    clips, test = read_train(options.data, options.tracks), read_test(options.data)
    encoder = SpeechEncoder()
    load_state(encoder, torch.load(options.weights, weights_only=True), options.weights)
    encoder.eval()
    with torch.no_grad():
        encoder.phone_out.bias[[PHONE_INDEX[phone] for phone in LIPS]] += LIPS_BIAS
    context = context_speech(clips)
    rounded = round_weights(encoder)
    start = pseudo_context(encoder, context)
    set_whitening(encoder, [c for c in clips if c.source != "tts"][::20], start)
    options.out.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.half().contiguous() for k, v in encoder.state_dict().items()}
    tensors |= {f"initial.{k}": v.half().contiguous() for k, v in start._asdict().items()}
    config = {"config": json.dumps(asdict(SpeechEncoderConfig())), "licence": "MIT (Moonshine weights, fine-tuned)"}
    (options.out / "encoder.safetensors").write_bytes(save(tensors, config))
    encoder, start = load_encoder(options.out / "encoder.safetensors")
    export_onnx(encoder, rounded, options.out / "encoder.onnx")
    reseal(options.out)
    worst = check(options.out, np.concatenate([c.waveform for c in test[::10]]))
    print(f"{measure(encoder, test, start)}\nONNX Runtime against torch: {worst:.1e}")
    for name in ("encoder.safetensors", "encoder.onnx"):
        print(f"{name}: {(options.out / name).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    run(main)
