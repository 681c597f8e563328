"""The GPU kernels, as far as no GPU is needed: their bodies run in a loop on the CPU, and nvcc compiles them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the GPU kernels belong to the full bundle (pip install ditto[full])")

from engine_networks import DECODER, WARPING  # noqa: E402

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
    """csrc/cuda compiled for the CPU."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    file = tmp_path_factory.mktemp("cuda") / "host.so"
    flags = ["-O2", "-std=c++17", "-ffp-contract=off", "-shared", "-fPIC", "-Wall", "-Werror"]
    subprocess.run([compiler, *flags, str(ROOT / "csrc" / "cuda" / "host.cpp"), "-o", str(file)], check=True)
    return neural.open_library(file)


@pytest.fixture
def noise():
    make = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=make)


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
    for op, given in checks.items():
        assert set(torch.library.opcheck(op.default, given).values()) == {"SUCCESS"}


def test_wrong_arguments_are_refused(noise):
    x = noise(1, 2, 4, 4)
    with pytest.raises(ValueError, match=r"spade takes gamma \(1, 2, 4, 4\), got \(1, 2, 4, 5\)"):
        neural.spade(x, noise(1, 2, 4, 5), x, 0.2)
    with pytest.raises(TypeError, match=r"spade takes x as float32, .* got torch.float64"):
        neural.spade(x.double(), x, x, 0.2)
    with pytest.raises(ValueError, match=r"dense_motion takes x \(9,\), got \(7,\)"):
        volume, source, driving, _, y, z, variance = motion_inputs(noise)
        neural.dense_motion(volume, source, driving, y, y, z, variance)
    with pytest.raises(TypeError, match=r"blend_crop takes indices as torch.int32, got torch.int64"):
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
