"""The GPU kernels, as far as no GPU is needed: they run under an emulation on the CPU, and nvcc compiles them."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the GPU kernels belong to the full bundle (pip install ditto[full])")

import emulated_cuda  # noqa: E402
from engine_networks import DECODER, TINY, WARPING, make  # noqa: E402

from ditto.engines.networks import example_of  # noqa: E402
from ditto.engines.torch_engine import TorchEngine  # noqa: E402
from ditto.errors import EngineError  # noqa: E402
from ditto.full.cropping import Framing, crop_matrix, invert, outline_of_106  # noqa: E402
from ditto.full.networks.decoder import SpadeDecoder  # noqa: E402
from ditto.full.networks.warping import VARIANCE, WarpingNetwork, axes_of  # noqa: E402
from ditto.full.paste_back import PasteBack  # noqa: E402
from ditto.ops import neural  # noqa: E402
from ditto.ops.reference import neural as reference  # noqa: E402

ROOT = Path(__file__).parents[1]
SUMS = 1e-5  # float32 sums over a plane in another order
EXP = 1e-6  # of expf from two libraries, for values up to 1


@pytest.fixture(scope="module")
def bodies(tmp_path_factory):
    """kernels.cu compiled for the CPU, its threads emulated."""
    if emulated_cuda.compiler() is None:
        pytest.skip("needs Linux and a C++ compiler")
    return emulated_cuda.build(tmp_path_factory.mktemp("cuda"))


@pytest.fixture
def noise():
    def start():
        make = torch.Generator().manual_seed(0)

        def draw(*shape):
            return torch.randn(*shape, generator=make)

        draw.again = start
        return draw

    return start()


def pasted(size=40, picture=(70, 90)):
    """A paste-back whose crop is turned and reaches over the picture's edge; its four tensors but for the image."""
    points = np.random.default_rng(0).uniform(5, 60, (106, 2))
    to_crop = crop_matrix(outline_of_106(points), Framing(size, 1.6, 0.1))
    pixels = np.random.default_rng(1).integers(0, 256, (*picture, 3), np.uint8)
    return PasteBack(pixels, invert(to_crop), size)


def test_blend_crop_gives_the_bits_of_the_paste_back(bodies, noise):
    paste = pasted()
    image = noise(3, 40, 40) * 0.6 + 0.5  # some of it outside 0..1
    image[0, 3, 3] = float("nan")
    crop = np.clip(np.nan_to_num(image.numpy().transpose(1, 2, 0)), 0.0, 1.0) * np.float32(255.0)
    expected = paste(crop)[paste._part].reshape(-1, 3)
    given = (image, *paste.tensors())
    assert len(np.unique(expected)) > 100
    assert np.array_equal(neural.run_blend(bodies, *given), expected)
    assert np.array_equal(neural.blend_crop(*given), expected)


@pytest.mark.parametrize("slope", [0.2, 1.0])
def test_spade_equals_its_reference(bodies, noise, slope):
    x, gamma, beta = noise(2, 5, 19, 23) * 3 + 40, noise(2, 5, 19, 23), noise(2, 5, 19, 23)
    expected = reference.spade(x, gamma, beta, slope)
    found = neural.run_spade(bodies, x, gamma, beta, slope)
    assert (found - expected).abs().max() <= SUMS * expected.abs().max()
    flat = torch.full_like(x, 7.0)  # no variance: the shift alone
    assert torch.equal(neural.run_spade(bodies, flat, gamma, beta, 1.0), beta)


def test_spade_adds_in_the_order_of_the_gpu(bodies, noise):
    """The tree of `add_lanes` in NumPy, bit for bit."""
    x = noise(1, 1, 37, 41)
    values, lanes = x.numpy().ravel(), 256

    def total(numbers):
        sums = np.zeros(lanes, np.float32)
        for start in range(0, len(numbers), lanes):
            part = numbers[start : start + lanes]
            sums[: len(part)] += part
        while len(sums) > 1:
            sums = sums[: len(sums) // 2] + sums[len(sums) // 2 :]
        return sums[0]

    count = np.float32(len(values))
    away = values - total(values) / count
    inverse = np.float32(1) / np.sqrt(total(away * away) / count + np.float32(1e-5))
    zero = torch.zeros_like(x)
    assert np.array_equal(neural.run_spade(bodies, x, zero, zero, 1.0).numpy().ravel(), away * inverse)


def channels_last(*tensors):
    return [tensor.contiguous(memory_format=torch.channels_last) for tensor in tensors]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 5, 19, 23), (1, 1, 2, 3), (1, 33, 2, 1)])
def test_spade_has_the_same_bits_in_both_layouts(bodies, noise, shape, dtype):
    x, gamma, beta = (noise(*shape).to(dtype) for _ in range(3))
    first, last = (neural.run_spade(bodies, *given, 0.2) for given in ((x, gamma, beta), channels_last(x, gamma, beta)))
    assert torch.equal(first, last) and first.is_contiguous() and last.is_contiguous(memory_format=torch.channels_last)
    expected = reference.spade(x.float(), gamma.float(), beta.float(), 0.2)
    step = torch.finfo(dtype).eps / 2 if dtype != torch.float32 else SUMS
    assert (first.float() - expected).abs().max() <= step * expected.abs().max() + SUMS
    mixed = neural.run_spade(bodies, *channels_last(x), gamma, beta, 0.2)  # the scale and the shift in the other layout
    assert torch.equal(mixed, first)


def test_no_kernel_needs_a_barrier_that_it_lacks(bodies, noise):
    """The threads of a block take turns backwards: the same bits."""
    x, gamma, beta = (noise(1, 9, 19, 21) for _ in range(3))
    works = (
        lambda: neural.run_spade(bodies, x, gamma, beta, 0.2),
        lambda: neural.run_spade(bodies, *channels_last(x, gamma, beta), 0.2),
        lambda: neural.run_motion(bodies, *motion_inputs(noise.again())),
        lambda: neural.run_blend(bodies, noise.again()(3, 40, 40), *pasted().tensors()),
    )
    forwards = [work() for work in works]
    bodies.ditto_emulate_backwards(1)
    try:
        assert all(torch.equal(work(), found) for work, found in zip(works, forwards, strict=True))
    finally:
        bodies.ditto_emulate_backwards(0)


def test_kernels_stay_inside_their_tensors(bodies, noise, monkeypatch):
    """Inputs lie between NaN, results between ones: nothing of the first comes in, nothing of the second is written."""
    edge, results = 64, []

    def between(tensor):
        room = torch.full((tensor.numel() + 2 * edge,), float("nan") if tensor.is_floating_point() else 0, dtype=tensor.dtype)
        room[edge:-edge] = tensor.flatten()
        return room[edge:-edge].view(tensor.shape)

    def empty(shape, dtype=torch.float32, device=None):
        room = torch.ones(np.prod(shape, dtype=int) + 2 * edge, dtype=dtype)
        results.append(room)
        return room[edge:-edge].view(shape)

    def empty_like(x):
        if x.is_contiguous():
            return empty(x.shape, x.dtype)
        return empty(x.permute(0, 2, 3, 1).shape, x.dtype).permute(0, 3, 1, 2)

    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch, "empty_like", empty_like)
    motion, paste = motion_inputs(noise), pasted().tensors()
    for channels in (1, 31, 37):
        x = noise(2, channels, 5, 7)
        assert neural.run_spade(bodies, *(between(x) for _ in range(3)), 0.2).isfinite().all()
        rows = x.permute(0, 2, 3, 1).contiguous()
        last = [between(rows).permute(0, 3, 1, 2) for _ in range(3)]
        assert neural.run_spade(bodies, *last, 0.2).isfinite().all()
    for count in (1, 255, 256, 257):
        few = [between(tensor[:, :count].contiguous()) for tensor in paste]
        neural.run_blend(bodies, between(noise(3, 40, 40)), *few)
    for room in results:
        assert (room[:edge] == 1).all() and (room[-edge:] == 1).all()
    monkeypatch.undo()
    found = neural.run_motion(bodies, *(between(x) if isinstance(x, torch.Tensor) else x for x in motion))
    assert torch.equal(found, neural.run_motion(bodies, *motion))


def test_nothing_is_a_result_of_nothing(bodies):
    for shape in ((0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4)):
        assert neural.run_spade(bodies, *(torch.zeros(shape) for _ in range(3)), 0.2).shape == shape
    axes = torch.zeros(4), torch.zeros(4), torch.zeros(0)
    empty = neural.run_motion(bodies, torch.zeros(1, 2, 0, 4, 4), torch.zeros(1, 5, 3), torch.zeros(1, 5, 3), *axes, 0.01)
    assert empty.shape == (1, 6, 3, 0, 4, 4)
    nothing = torch.zeros(4, 0, dtype=torch.int32), torch.zeros(4, 0), torch.zeros(3, 0)
    assert neural.run_blend(bodies, torch.zeros(3, 8, 8), *nothing).shape == (0, 3)


def test_a_kernel_runs_on_the_gpu_of_its_tensors_and_the_stream_of_torch(monkeypatch):
    class Placed(torch.Tensor):
        device = torch.device("cuda", 1)

    called, current = [], [0]

    @contextlib.contextmanager
    def made_current(device):
        current.append(device.index)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", made_current)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[-1])
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: type("", (), {"cuda_stream": 7000 + device.index}))
    kernels = {"ditto_spade": lambda *given: called.append(given[-2:]) or 209}
    with pytest.raises(EngineError, match="kernel ditto_spade to start on cuda:1, got CUDA error 209"):
        neural._call(kernels, "ditto_spade", torch.device("cuda", 1), torch.zeros(3).as_subclass(Placed), 2)
    ((number, stream),) = called
    assert (number.value, stream.value) == (1, 7001) and current == [0]
    with pytest.raises(ValueError, match=r"expected tensors of .* on cuda:1, got one on cpu"):
        neural._call(kernels, "ditto_spade", torch.device("cuda", 1), torch.zeros(3))


@pytest.mark.parametrize("last", [False, True])
def test_the_renderer_runs_the_kernels_in_the_layout_of_its_convolutions(bodies, monkeypatch, last):
    """What a GPU does, but for where the kernels run: warping and decoding, channels first and last."""
    network, plain = make(TINY, "renderer"), make(TINY, "renderer")
    example, layouts, run = example_of(network, size=8), [], neural.run_spade
    monkeypatch.setattr(neural, "ready", lambda x: True)
    monkeypatch.setattr(neural, "_kernels", lambda tensor: bodies)

    def noted(kernels, x, *more):
        layouts.append(neural.layout_of(x))
        return run(kernels, x, *more)

    monkeypatch.setattr(neural, "run_spade", noted)
    found = TorchEngine(network, *example, channels_last=last, graph=False).run(**example.inputs)["image"]
    assert set(layouts) == {torch.channels_last if last else torch.contiguous_format}
    monkeypatch.undo()
    with torch.no_grad():
        assert (found - plain(**example.inputs)).abs().max() <= 1e-4  # of 0..1; sums in another order


def motion_inputs(noise):
    x, y, z = (torch.linspace(-1, 1, n) for n in (9, 7, 4))
    source = noise(2, 5, 3) * 0.4
    driving = source + noise(2, 5, 3) * 0.5  # some samples outside the volume
    driving[0, 0, 0] = 1e30  # an index that no int holds
    return noise(2, 3, 4, 7, 9), source, driving, x, y, z, VARIANCE


def test_dense_motion_equals_its_reference(bodies, noise):
    given = motion_inputs(noise)
    expected = reference.dense_motion(*given)
    found = neural.run_motion(bodies, *given)
    assert torch.equal(found[:, :, 1:], expected[:, :, 1:])  # samples: bit for bit
    assert (found[:, :, 0] - expected[:, :, 0]).abs().max() <= EXP
    assert (expected[:, 1:, 1:] == 0).any() and not found[:, 0, 0].any()


def test_the_networks_have_the_definitions_of_the_kernels(noise):
    """What the hourglass takes, and what a SPADE block norms, bit for bit; on a GPU the kernels stand there."""
    torch.manual_seed(0)
    network = WarpingNetwork(WARPING).eval().dense_motion_network
    volume, source, driving = noise(2, 4, 4, 8, 8), noise(2, 21, 3) * 0.3, noise(2, 21, 3) * 0.3
    seen = []
    network.hourglass.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    block = SpadeDecoder(DECODER).eval().G_middle_0
    x, feature = noise(1, 32, 8, 8), noise(1, 16, 8, 8)
    with torch.no_grad():
        network(volume, source, driving)
        compressed = torch.relu(network.norm(network.compress(volume)))
        expected = reference.dense_motion(compressed, source, driving, *axes_of(volume), VARIANCE)
        assert torch.equal(seen[0], expected.flatten(1, 2))
        norm = block.norm_0
        hidden = norm.mlp_shared(feature)
        y = reference.spade(x, norm.mlp_gamma(hidden), norm.mlp_beta(hidden), 0.2)
        assert torch.equal(norm(x, feature, 0.2), y)


def test_operators_are_what_torch_expects(noise):
    x = noise(1, 2, 4, 4)
    checks = {
        torch.ops.ditto.blend_crop: (noise(3, 40, 40), *pasted().tensors()),
        torch.ops.ditto.spade: (x, x, x, 0.2),
        torch.ops.ditto.dense_motion: motion_inputs(noise),
    }
    for op, given in [*checks.items(), (torch.ops.ditto.spade, (*channels_last(x, x, x), 0.2))]:
        assert set(torch.library.opcheck(op.default, given).values()) == {"SUCCESS"}


def test_wrong_arguments_are_refused(noise):
    x = noise(1, 2, 4, 4)
    with pytest.raises(ValueError, match=r"expected gamma \(1, 2, 4, 4\) of spade, got \(1, 2, 4, 5\)"):
        neural.spade(x, noise(1, 2, 4, 5), x, 0.2)
    with pytest.raises(TypeError, match=r"expected x of spade as float32, .* got torch.float64"):
        neural.spade(x.double(), x, x, 0.2)
    with pytest.raises(ValueError, match=r"expected x \(9,\) of dense_motion, got \(7,\)"):
        volume, source, driving, _, y, z, variance = motion_inputs(noise)
        neural.dense_motion(volume, source, driving, y, y, z, variance)
    with pytest.raises(TypeError, match=r"expected indices of blend_crop as torch.int32, got torch.int64"):
        indices, weights, rest = pasted().tensors()
        neural.blend_crop(noise(3, 40, 40), indices.long(), weights, rest)


def test_a_damaged_library_is_told(tmp_path):
    (tmp_path / "_cuda.so").write_bytes(b"no library")
    with pytest.raises(EngineError, match=r"expected the CUDA kernels in .*_cuda.so, got: "):
        neural.open_library(tmp_path / "_cuda.so")


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
def test_nvcc_compiles_the_kernels_for_three_generations(tmp_path):
    codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in (80, 90, 100)]
    source, output = ROOT / "csrc" / "cuda" / "kernels.cu", tmp_path / "kernels.fatbin"
    flags = ["-std=c++17", "-fmad=false", "-Werror", "all-warnings", "-fatbin"]
    subprocess.run(["nvcc", *flags, *codes, "-o", str(output), str(source)], check=True)
    assert output.stat().st_size > 1000


@pytest.mark.skipif(shutil.which("nvcc") is None or torch.cuda.is_available(), reason="needs nvcc and no GPU")
def test_the_library_of_nvcc_opens_and_says_what_cuda_says(tmp_path, noise):
    file = tmp_path / "_cuda.so"
    flags = ["-std=c++17", "-fmad=false", "-arch=sm_90", "-Xcompiler", "-fPIC", "-shared"]
    subprocess.run(["nvcc", *flags, "-o", str(file), str(ROOT / "csrc" / "cuda" / "kernels.cu")], check=True)
    x = noise(1, 2, 4, 4)
    for given in ((x, x, x), channels_last(x, x, x)):
        with pytest.raises(EngineError, match=r"kernel ditto_spade to start on cpu, got CUDA error (35|100);"):
            neural.run_spade(neural.open_library(file), *given, 0.2)  # 35: no driver, 100: no GPU


def test_asking_for_kernels_without_nvcc_says_so(tmp_path):
    """And a build that does not ask for them has none: every other test runs without."""
    environment = {**os.environ, "DITTO_CUDA": "1", "PATH": str(tmp_path), "PYTHONPATH": ""}
    environment.pop("NVCC", None)
    script = (
        "import runpy, setuptools\n"
        "from unittest import mock\n"
        "with mock.patch('setuptools.setup') as setup:\n"
        "    runpy.run_path('setup.py')\n"
        "command = setup.call_args.kwargs['cmdclass']['build_ext'](setuptools.Distribution())\n"
        "command.ensure_finalized()\n"
        "command.run()\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stderr.strip() == "expected nvcc with DITTO_CUDA=1, got none; install the CUDA toolkit, or set NVCC to its path"
