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

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ditto.bundle import reseal
from ditto.full.networks.weights import load_state
from ditto.lite.networks.speech_encoder import SpeechEncoder, SpeechEncoderConfig, SpeechEncoderState
from ditto.lite.phones import PHONE_INDEX
from ditto.media.audio import HOP_SAMPLES
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


class Flat(nn.Module):
    """The encoder with its state as plain arguments, for the exporter."""

    def __init__(self, encoder: SpeechEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, samples: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        features, following = self.encoder(samples, SpeechEncoderState(*state))
        return (features, *following)


def export_onnx(
    encoder: SpeechEncoder, state: SpeechEncoderState, rounded: dict[str, tuple[Tensor, Tensor]], path: Path
) -> None:
    """Write the ONNX file: one hop a call, any batch, large weights as int8 with a cast and a scale before use."""
    inputs = ["samples", *(f"state.{f}" for f in SpeechEncoderState._fields)]
    outputs = ["features", *(f"next_state.{f}" for f in SpeechEncoderState._fields)]
    two = SpeechEncoderState(*(torch.cat((t, t)) for t in state))
    torch.onnx.export(
        Flat(encoder).eval(), (torch.zeros(2, HOP_SAMPLES), *two), str(path), opset_version=17, dynamo=False,
        input_names=inputs, output_names=outputs, dynamic_axes={name: {0: "batch"} for name in inputs + outputs},
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
        raise ValueError(f"ONNX Runtime and torch differ by {worst:.1e} over a stream, expected at most {TOLERANCE:.0e}")
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("weights", "data", "tracks", "out"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
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
    export_onnx(encoder, start, rounded, options.out / "encoder.onnx")
    reseal(options.out)
    worst = check(options.out, np.concatenate([c.waveform for c in test[::10]]))
    print(f"{measure(encoder, test, start)}\nONNX Runtime against torch: {worst:.1e}")
    for name in ("encoder.safetensors", "encoder.onnx"):
        print(f"{name}: {(options.out / name).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
