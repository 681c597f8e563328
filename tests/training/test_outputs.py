"""An output that cannot be written is refused before anything is read, however late it would be written."""

import pytest

pytest.importorskip("torch", reason="training needs torch (pip install ditto[train])")

from ditto.errors import OutputError
from ditto.training import avatar, encoder, latent_demo, motion
from ditto.training.latent import codec, data, flow, footage, rap
from ditto.training.latent.generator import train_generator
from ditto.training.latent.loop import Options
from ditto.training.recipe import preset


def demo(none, out):
    (none.parent / "given").mkdir(exist_ok=True)
    (none.parent / "given" / "file").touch()
    latent_demo.Demo("v", none.parent / "given", none.parent / "given", out)


RUNS = {  # of data that are not there
    "motion": lambda none, out: motion.train_motion(motion.Options(none, out, preset("short"))),
    "avatar": lambda none, out: avatar.train_avatar(avatar.Options(none, out)),
    "encoder": lambda none, out: encoder.train_encoder(encoder.Options(none, none, none, out)),
    "codec": lambda none, out: codec.train_codec(Options(none, out), codec.PRESETS["small"]),
    "flow": lambda none, out: train_generator(flow.FLOW, Options(none, out), none, flow.FLOW.presets["small"]),
    "rap": lambda none, out: train_generator(rap.RAP, Options(none, out), none, rap.RAP.presets["small"]),
    "clips": lambda none, out: footage.clips_of_footage(none, out, 80),
    "rendered clips": lambda none, out: data.render_clips([data.Job("a", none, none, 0, "train")], out),
    "demo": demo,
}


@pytest.mark.parametrize("name", RUNS)
def test_an_output_that_is_a_file_or_lies_under_one_is_refused_before_anything_is_read(name, tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / "file" / "far" / "run"):
        with pytest.raises(OutputError, match=r"expected a folder as output, got the file .*/file; choose another name"):
            RUNS[name](tmp_path / "none", out)
