"""The loop of codec, V and RAP: what goes wrong on the way loses nothing and changes no bit."""

import resource

import pytest

torch = pytest.importorskip("torch", reason="training needs torch (pip install ditto[train])")

from latent_clips import write_clips  # noqa: E402
from latent_runs import CODEC, FLOW, KINDS, RAP, parts, run_of, start  # noqa: E402

from ditto.errors import DatasetError, InputError, OutputError, TrainingError  # noqa: E402
from ditto.latent.codec import Codec  # noqa: E402
from ditto.latent.config import CODEC_TINY  # noqa: E402
from ditto.training.latent import flow, rap  # noqa: E402
from ditto.training.latent.codec import train_codec  # noqa: E402
from ditto.training.latent.generator import train_generator  # noqa: E402
from ditto.training.latent.loop import Options, train  # noqa: E402
from ditto.training.latent.networks import write_network  # noqa: E402
from ditto.training.runs import read_checkpoint  # noqa: E402


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    write_clips(folder)
    return folder


class Cut(Exception):
    pass


def cut_at(cut):
    def before(step):
        if step == cut:
            raise Cut

    return before


@pytest.mark.parametrize("kind", KINDS)
def test_cuts_and_a_full_disk_change_no_bit(kind, clips, tmp_path):
    torch.set_num_threads(1)
    whole = start(kind, clips, tmp_path / "whole").state_dict()
    out, checkpoint = tmp_path / "cut", tmp_path / "cut" / "checkpoint.pt"
    with pytest.raises(Cut):
        start(kind, clips, out, cut_at(1))  # before the first checkpoint
    with pytest.raises(InputError, match="expected a checkpoint to resume"):
        start(kind, clips, out, resume=True)
    with pytest.raises(Cut):
        start(kind, clips, out, cut_at(2))
    with pytest.raises(Cut):
        start(kind, clips, out, cut_at(2), resume=True)
    kept, (soft, hard) = checkpoint.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(step):
        if step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(kept) // 2, hard))

    try:
        with pytest.raises(OutputError, match=r"expected to write .*checkpoint.pt, got: .*; make room"):
            start(kind, clips, out, fill, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoint.read_bytes() == kept
    assert sorted(file.name for file in out.iterdir()) == ["checkpoint.pt", "log.jsonl"]
    for _ in range(2):  # the rest, and a finished run again
        found = start(kind, clips, out, resume=True).state_dict()
        assert all(torch.equal(value, found[name]) for name, value in whole.items())
    assert (out / "log.jsonl").read_bytes() == (tmp_path / "whole" / "log.jsonl").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_checkpoint_is_not_gone_on_with(kind, clips, tmp_path):
    start(kind, clips, tmp_path)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"expected a checkpoint at .*; train again"):
        start(kind, clips, tmp_path, resume=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_that_is_not_finite_names_the_clips_and_keeps_the_checkpoint(kind, clips, tmp_path):
    objective, draw, stages = parts(kind, clips)
    poisoned = []
    last = list(objective.network.parameters())[-1]
    last.register_hook(lambda gradient: gradient * float("nan") if poisoned else gradient)

    def drawn(step, rank):
        poisoned.extend([step] if step == 3 else [])
        return draw(step, rank)

    with pytest.raises(TrainingError, match=r"finite gradient at step 4, got NaN or infinity with the clips clip_\d.*; look"):
        train(objective, drawn, stages, run_of(tmp_path))
    kept = read_checkpoint(tmp_path / "checkpoint.pt")
    assert kept["step"] == 2 and all(torch.isfinite(tensor).all() for tensor in kept["trained"].values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["cut short", "gone"])
def test_damaged_clips_end_a_run_by_their_name(kind, damage, tmp_path):
    folder = tmp_path / "clips"
    write_clips(folder, frames=66)
    write_network(tmp_path / "codec", "codec", Codec(CODEC_TINY), {"window": (0, 0, 16)})
    for place in range(3):
        path = folder / "clips" / f"clip_{place}.safetensors"
        path.write_bytes(path.read_bytes()[:1000]) if damage == "cut short" else path.unlink()
    options = Options(folder, tmp_path / "out", report=lambda line: None)
    with pytest.raises(DatasetError, match=r"expected \w+ of a clip in .*clip_\d.safetensors, got: .*; make the clips again"):
        if kind == "codec":
            train_codec(options, CODEC)
        elif kind == "flow":
            train_generator(flow.FLOW, options, tmp_path / "codec", FLOW)
        else:
            train_generator(rap.RAP, options, tmp_path / "codec", RAP)
    assert not (tmp_path / "out" / "checkpoint.pt").exists()
