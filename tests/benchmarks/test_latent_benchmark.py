"""The cost and the speed of the latent systems: counts against formulas, compared ways that give the same, the command."""

import json
from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="V and RAP need torch (pip install ditto[full])")

from latent_bundles import write_tiny  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from benchmarks import _latent_cost as cost  # noqa: E402
from benchmarks import _roofline as roofline  # noqa: E402
from benchmarks import latent  # noqa: E402
from benchmarks._latent_plain import RAP_SIZES, TINY, V_SIZES, random_networks  # noqa: E402
from ditto.latent.flow_sampler import FlowSampling  # noqa: E402
from ditto.latent.generators import FlowBlocks, RapBlocks, RapLatency  # noqa: E402
from ditto.latent.rap_sampler import RapSampling  # noqa: E402
from ditto.latent.schedule import Guidance  # noqa: E402

STEPS = 3


@pytest.fixture(scope="module", autouse=True)
def few_steps():
    """Counts of a schedule of three steps: enough for every branch to be on and off."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "FlowSampling", lambda: FlowSampling(steps=STEPS))
        patch.setattr(cost, "RapSampling", lambda: RapSampling(steps=STEPS))
        yield


@pytest.fixture(scope="module")
def costs(few_steps):
    return {"v": cost.v_cost(*V_SIZES[TINY]), "rap": cost.rap_cost(*RAP_SIZES[TINY])}


def linear(tokens, *sizes):
    return sum(2 * tokens * given * made for given, made in pairwise(sizes))


def test_the_flops_of_a_block_of_v_are_those_of_its_formula(costs):
    config = V_SIZES[TINY][0]
    width, size, block = config.width, config.token_size, config.block * config.tokens
    longest = (1 + config.window - config.block) * config.tokens

    def layers(rows, new, seen):
        own = linear(new, width, width) * 4 + linear(new, width, 4 * width, width) + 4 * new * (seen + new) * width
        return config.layers * rows * own

    heard = config.block * config.frames_per_latent * config.audio_features // config.block
    speech = linear(config.block, heard, 4 * config.audio_width, config.audio_width)
    speech += linear(1, config.audio_features, 4 * config.audio_width, config.audio_width)  # as of a video's first frame
    step = 3 * (linear(block, size + config.audio_width, width) + linear(block, width, size)) + layers(3, block, longest)
    context = 2 * linear(block, size, width)  # in both caches: at the end of this window, and at the start of the next
    context = 2 * context + layers(2, block, longest) + layers(2, block, config.tokens)
    assert costs["v"].generate[cost.BATCHED].flops.sum() == speech + STEPS * step + context


def test_the_flops_of_a_clip_of_rap_are_those_of_its_formula(costs):
    config = RAP_SIZES[TINY][0]
    width, length = config.width, config.lengths[-1]
    tokens, heard = length * config.tokens, length * config.frames_per_latent * config.audio_layers
    speech = 2 * linear(heard, config.audio_features, width, width) + 2 * config.layers * 2 * linear(heard, width, width)
    seen = [
        heard * (config.window_share(i) < 1) + heard / length * (config.window_share(i) > 0) for i in range(config.layers)
    ]
    layer = linear(tokens, width, width) * 6 + linear(tokens, width, config.inner, width) + 4 * tokens * tokens * width
    time = linear(1, config.frequencies, width, width, 6 * width)
    step = linear(tokens, 2 * config.token_size, width) + linear(tokens, width, config.token_size)
    step += config.layers * layer + sum(4 * tokens * keys * width for keys in seen)
    assert costs["rap"].generate[cost.BATCHED].flops.sum() == speech + STEPS * (2 * step + time)


def test_the_flops_of_a_codec_are_those_of_torch():
    codec = random_networks("v", TINY).codec.to("meta")
    pictures = torch.empty(1, 3, 5, 4 * codec.config.space, 4 * codec.config.space, device="meta")

    @torch.no_grad()
    def run():
        references = codec.references(pictures[:, :, :1])
        return codec.decode(codec.encode(pictures).mean, references)

    video, work = roofline.counted(run)
    with FlopCounterMode(display=False) as counter:
        run()
    assert video.shape == pictures.shape and work.flops.sum() == counter.get_total_flops() > 0


@pytest.mark.parametrize("system", ["v", "rap"])
def test_branches_one_by_one_do_the_same_arithmetic_in_more_operators(costs, system):
    alone, batched, intervals = (costs[system].generate[way] for way in (cost.ONE_BY_ONE, cost.BATCHED, cost.INTERVALS))
    assert alone.flops.sum() == pytest.approx(batched.flops.sum(), rel=0.02)  # RAP embeds the time of each branch
    assert alone.operators > 1.5 * batched.operators and intervals.flops.sum() < batched.flops.sum()


def test_a_device_takes_the_longer_of_arithmetic_traffic_and_launches():
    device = roofline.Device("a", 1e12, 1e11, 100, 2)
    product, copy = (np.array([7e11, 0.0]), np.array([1.0, 8e10]), np.array([100.0, 0.0]), np.array([1.0, 1.0])), 2
    work = roofline.Work(*product)
    assert roofline.seconds(work, device, graph=True) == pytest.approx(1 + 2 + copy * roofline.GAP_SECONDS)
    tiles = work._replace(tiles=np.array([101.0, 0.0]))  # a second round with one processor of a hundred
    assert roofline.seconds(tiles, device, graph=True) == pytest.approx(200 / 101 + 2, rel=1e-4)
    small = roofline.Work(*(np.repeat(column[:1] * 1e-9, 1000) for column in product[:2]), np.ones(1000), np.ones(1000))
    assert roofline.seconds(small, device) == 1000 * roofline.HOST_SECONDS > roofline.seconds(small, device, graph=True)


def blocks_of(system, steps):
    generator = random_networks(system, TINY).generator
    if system == "v":
        return FlowBlocks(generator, FlowSampling(steps=steps))
    return RapBlocks(generator, RapLatency(RapSampling(steps=steps), 3, 5))


@pytest.mark.parametrize("system", ["v", "rap"])
def test_every_way_makes_the_same_latents_and_would_be_caught_if_not(system):
    ways = latent.ways_of(blocks_of(system, 2))
    found = latent.compare(ways, 1)
    assert len(found) == 3 and all(one.difference <= latent.SAME and one.ms > 0 for one in found.values())
    makers = dict(ways.makers)
    makers["other"] = lambda: latent.ways_of(blocks_of(system, 3)).makers["ditto"]()
    assert latent.compare(ways._replace(makers=makers), 1)["other"].difference > 100 * latent.SAME


def test_without_guidance_there_are_no_branches_to_compare():
    sampling = FlowSampling(steps=1, audio=Guidance(), reference=Guidance())
    assert len(latent.ways_of(FlowBlocks(random_networks("v", TINY).generator, sampling)).makers) == 2


def test_the_command_measures_random_networks(tmp_path, capsys):
    words = ["--system", "v", "--size", TINY, "--blocks", "1", "--turns", "1", "--json", str(tmp_path / "found.json")]
    assert latent.main(words) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["benchmark"] == "latent" and found["machine"]["cores"] >= 1
    stream = found["details"]["V, tiny, quality"]
    assert stream["frames"] == 16 and stream["speech"] == 640 and stream["state_bytes"] > 0
    assert stream["block"] == pytest.approx(sum(stream[part] for part in ("generate", "decode", "listen", "draw")), rel=1e-3)
    assert "difference x 1e4" in capsys.readouterr().out


def test_the_command_measures_a_bundle(tmp_path, capsys):
    write_tiny(tmp_path / "mine", "rap")
    assert latent.main(["--bundle", str(tmp_path / "mine"), "--blocks", "1", "--turns", "1"]) in (0, 1)  # a slow machine
    streams = json.loads(capsys.readouterr().out.splitlines()[0])["details"]
    assert streams["mine, quality"]["frames"] == 64 and streams["mine, low"]["frames"] == 16


def test_the_command_predicts_without_running(capsys):
    assert latent.main(["--cost", "--system", "v", "--size", TINY]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[0])["details"]
    assert found["V, tiny, predicted seconds a block"]["H100"]["and CUDA graphs"] > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--size", "paper"], "add --cost"),
        (["--turns", "0"], "from 1 to 1000, got '0'"),
        (["--bundle", "x", "--cost"], "leave out --cost"),
        (["--bundle", "no/such/bundle"], "no/such/bundle"),
    ],
)
def test_what_cannot_be_measured_is_told_in_one_line(words, said, capsys):
    with pytest.raises(SystemExit) as ended:
        latent.main(words)
    assert ended.value.code == 2 and said in capsys.readouterr().err
