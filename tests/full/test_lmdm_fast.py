"""The motion transformer arranged for sampling gives what the plain one gives."""

import pytest

torch = pytest.importorskip("torch", reason="the full-size networks need torch (pip install ditto[full])")

from fixtures.reference.recipe import Recorded, distance, noise  # noqa: E402

from ditto.engines.networks import example_of  # noqa: E402
from ditto.engines.torch_engine import TorchEngine  # noqa: E402
from ditto.full.networks.lmdm import LMDM, LMDMConfig, ddim_sample, ddim_schedule  # noqa: E402
from ditto.full.networks.lmdm_fast import FastLMDM  # noqa: E402

TINY = LMDMConfig(motion=9, condition=15, frames=12, width=32, inner=48, heads=4, condition_layers=2, layers=3)
EQUAL = 1e-5  # float32 through ten guided steps, sums in another order


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return LMDM(TINY).eval()


@pytest.mark.parametrize("guidance", [2.0, 1.0, 0.5])
@pytest.mark.parametrize("steps", [1, 3, 10])
def test_fast_sampling_equals_the_plain_one(network, steps, guidance):
    schedule = ddim_schedule(steps)
    fast = FastLMDM(network, schedule, guidance)
    given = example_of(fast, batch=2).inputs
    found = fast(**given)
    expected = ddim_sample(
        network, given["cond_frame"], given["cond"], given["start"], list(given["noise"]), schedule, guidance
    )
    assert found.shape == (2, 12, 9)
    assert distance(found, expected) <= EQUAL


def test_what_the_benchmark_calls_released_gives_the_same(network):
    networks = pytest.importorskip("benchmarks.networks", reason="the benchmarks are not installed")
    schedule = ddim_schedule(4)
    given = example_of(FastLMDM(network, schedule), batch=2).inputs
    given = given["cond_frame"], given["cond"], given["start"], list(given["noise"])
    found = networks.released_sample(network, *given, schedule)
    assert distance(found, ddim_sample(network, *given, schedule)) <= EQUAL


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_the_benchmark_says_in_words_that_there_is_no_gpu(capsys):
    networks = pytest.importorskip("benchmarks.networks", reason="the benchmarks are not installed")
    assert networks.main(["--device", "cuda"]) == 2
    assert "with 0 CUDA devices; set device='cpu'" in capsys.readouterr().err


def test_windows_in_one_batch_do_not_touch_each_other(network):
    fast = FastLMDM(network, ddim_schedule(4))
    given = example_of(fast, batch=3).inputs
    together = fast(**given)
    for i in range(3):
        one = {key: value[:, i : i + 1] if key == "noise" else value[i : i + 1] for key, value in given.items()}
        assert distance(fast(**one), together[i : i + 1]) <= EQUAL


def test_the_plain_network_stays_as_it_was(network):
    before = {key: value.clone() for key, value in network.state_dict().items()}
    fast = FastLMDM(network, ddim_schedule(2))
    example = example_of(fast)
    TorchEngine(fast, example.inputs, example.outputs, precision="bfloat16")  # packs its weights
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_full_size_gives_the_recorded_sample():
    from test_parity_networks import build

    network = build("lmdm")
    schedule = ddim_schedule(10, torch.float32)
    fresh = [torch.from_numpy(noise(f"lmdm/ddim10/noise{i}", (1, 80, 265))) for i in range(9)]
    found = FastLMDM(network, schedule)(
        torch.from_numpy(noise("lmdm/cond_frame", (1, 265), scale=0.5)),
        torch.from_numpy(noise("lmdm/cond", (1, 80, 1103), scale=0.5)),
        torch.from_numpy(noise("lmdm/ddim10/x_init", (1, 80, 265))),
        torch.stack(fresh),
    )
    assert Recorded("lmdm").error("ddim10/out", found) <= 1e-3
