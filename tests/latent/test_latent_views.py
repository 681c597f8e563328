"""More references of a portrait: the views that lite renders, and who sees them."""

from dataclasses import replace

import numpy as np
import pytest
from drawn import drawn_portrait

torch = pytest.importorskip("torch", reason="V and RAP need torch")

from latent_bundles import tiny_parts  # noqa: E402

from ditto.errors import BundleError, InputError  # noqa: E402
from ditto.latent.bundling import performer_of, write_bundle  # noqa: E402
from ditto.latent.config import from_json, to_json  # noqa: E402
from ditto.latent.views import STILL_VIEWS, TURNED_VIEWS, View, Views, ViewsConfig  # noqa: E402
from ditto.motion.emotion import emotion_vector  # noqa: E402
from ditto.performer import Advance, Draw, Edits, Idle  # noqa: E402
from ditto.talking_head import load  # noqa: E402
from ditto.training.latent import references  # noqa: E402
from ditto.training.latent.data import ClipInfo  # noqa: E402

PORTRAIT = drawn_portrait(256)
NEUTRAL = emotion_vector(None)


class Rendered(Views):
    """Views that were rendered before."""

    def __init__(self, config, pictures):
        self.config, self._pictures = config, pictures

    def __call__(self, portrait):
        return self._pictures


@pytest.fixture(scope="module")
def pictures():
    return ViewsConfig(STILL_VIEWS).open()(PORTRAIT)


@pytest.fixture(scope="module")
def with_views(pictures):
    """The performer of a tiny V with views, which the generator sees or not."""

    def of(generator):
        performer = performer_of(tiny_parts("v"))
        performer.views = Rendered(ViewsConfig(STILL_VIEWS, generator), pictures)
        return performer

    return of


def test_views_are_pictures_of_the_portrait_that_differ_where_they_say(pictures):
    opened, closed = pictures
    assert opened.shape == closed.shape == PORTRAIT.picture.shape
    landmarks = PORTRAIT.landmarks[:, :2] @ PORTRAIT.crop_to_picture[:2, :2].T + PORTRAIT.crop_to_picture[:2, 2]
    (x, mouth), eye = landmarks[13].astype(int), landmarks[159].astype(int)

    def changed(picture, row, column):
        box = np.s_[row - 6 : row + 7, column - 6 : column + 7]
        return np.abs(picture[box].astype(int) - PORTRAIT.picture[box]).mean()

    assert changed(opened, mouth, x) > 4 > changed(opened, eye[1], eye[0])
    assert changed(closed, eye[1], eye[0]) > 1.5 * changed(opened, eye[1], eye[0])


def test_the_decoder_sees_all_references_and_the_generator_as_the_bundle_says(with_views):
    plain = performer_of(tiny_parts("v")).prepare(PORTRAIT)
    tokens = plain.conditions["low"].full.length
    for generator in (False, True):
        appearance = with_views(generator).prepare(PORTRAIT)
        assert appearance.references.latents.shape[2] == 3
        assert torch.allclose(appearance.references.latents[:, :, :1], plain.references.latents, atol=1e-5)
        assert appearance.conditions["low"].full.length == (3 * tokens if generator else tokens)
        assert torch.allclose(appearance.conditions["low"].origin, plain.conditions["low"].origin, atol=1e-5)


def test_streams_with_more_references_go_together_and_show_them(with_views):
    performer, plain = with_views(True), performer_of(tiny_parts("v"))
    appearance = performer.prepare(PORTRAIT)
    states = [performer.begin(appearance, seed, "low") for seed in range(2)]
    together = performer.idle([Idle(state, NEUTRAL) for state in states])
    for state, found in zip(states, together, strict=True):
        alone = performer.idle([Idle(state, NEUTRAL)])[0]
        assert all((one.pixels == other.pixels).all() for one, other in zip(found.shots, alone.shots, strict=True))
    single = plain.idle([Idle(plain.begin(plain.prepare(PORTRAIT), 0, "low"), NEUTRAL)])[0]
    assert any((one.pixels != other.pixels).any() for one, other in zip(together[0].shots, single.shots, strict=True))
    silence = np.zeros(640, np.float32)
    shot = performer.advance([Advance(states[0], silence, NEUTRAL, True)])[0].shots[0]
    drawn = performer.draw([Draw(performer.face(appearance, 0), shot, Edits.none())])[0]
    assert drawn.image.shape == PORTRAIT.picture.shape


def test_a_bundle_keeps_its_views(tmp_path):
    config = ViewsConfig(TURNED_VIEWS, True)
    assert from_json(ViewsConfig, to_json(config)) == config
    write_bundle(tmp_path / "v", replace(tiny_parts("v"), views=config), "tiny v", "Apache-2.0", "random numbers")
    head = load(tmp_path / "v")
    assert head.performer.views.config == config
    assert head.appearance(PORTRAIT).references.latents.shape[2] == 3
    described = tmp_path / "v" / "bundle.json"
    described.write_text(described.read_text().replace("head.yaw", "head.jaw"))
    with pytest.raises(BundleError, match=r"part 'views': expected a view of controls, got: .*head\.jaw"):
        load(tmp_path / "v")


def test_views_that_are_none_are_refused():
    with pytest.raises(InputError, match="expected a view with numbers of controls, got none"):
        View(())
    for numbers in ({"head.yaw": 400.0}, {"nose": 1.0}, {"emotion.happy": 1.0}):
        with pytest.raises(InputError, match="expected a view of controls, got: expected"):
            View.of(numbers)
    with pytest.raises(InputError, match="expected one view or more, got none"):
        ViewsConfig(())


def test_references_of_clips_come_from_their_portraits(tmp_path, capsys):
    extra = references.References(Rendered(ViewsConfig(STILL_VIEWS), []), tmp_path, 16)
    clip = ClipInfo("held_00_0", "gone.png", "a.flac", 0, 125, "held", "")
    with pytest.raises(InputError, match=r"expected the portrait gone.png of the clips in .*, got none; give its folder"):
        extra(clip)
    assert references.main([str(tmp_path), str(tmp_path), str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("ditto: ")
