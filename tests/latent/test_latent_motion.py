"""Motion as the condition of latent video: what is hidden, what acts and from when, and that it is lite's motion."""

import json
from dataclasses import replace

import numpy as np
import pytest
from drawn import drawn_portrait

torch = pytest.importorskip("torch", reason="V and RAP need torch")

from latent_bundles import hears_lite, tiny_parts, with_motion, write_tiny  # noqa: E402

from ditto.bundle import Bundle, examine  # noqa: E402
from ditto.controls import Controls  # noqa: E402
from ditto.controls.driving import Performance  # noqa: E402
from ditto.controls.timeline import Timeline  # noqa: E402
from ditto.errors import BundleError, InputError  # noqa: E402
from ditto.latent.bundling import performer_of, write_bundle  # noqa: E402
from ditto.latent.generators import check_motion, tensors_of  # noqa: E402
from ditto.latent.motion_source import MotionConfig, shipped_motion  # noqa: E402
from ditto.motion.emotion import emotion_vector  # noqa: E402
from ditto.motion.motion import EXPRESSION  # noqa: E402
from ditto.performer import Advance, Capability, Edits, Idle  # noqa: E402
from ditto.talking_head import TalkingHead, load  # noqa: E402

SYSTEMS = "v", "rap"
PORTRAIT = drawn_portrait(256)
NEUTRAL = emotion_vector(None)
LOOK = Controls(gaze=(20.0, 0.0), blendshapes={"jawOpen": 0.5})
FRAME = 640


@pytest.fixture(scope="module")
def parts():
    """Without and with the condition, with the same numbers elsewhere. Heads stand still with V, and turn with RAP."""
    return {system: (hears_lite(tiny_parts(system)), with_motion(tiny_parts(system), system == "v")) for system in SYSTEMS}


@pytest.fixture(scope="module")
def heads(parts):
    return {
        system: tuple(TalkingHead(None, performer_of(one), max_sessions=2) for one in pair) for system, pair in parts.items()
    }


@pytest.fixture(params=SYSTEMS)
def pair(request, heads):
    """A head without the condition, and one with it."""
    return heads[request.param]


@pytest.fixture
def head(pair):
    return pair[1]


def speech(frames, seed=0):
    random = np.random.default_rng(seed)
    loud = np.repeat(random.uniform(0.0, 0.3, frames), FRAME)
    return (loud * random.standard_normal(frames * FRAME)).astype(np.float32)


def frames_of(head, samples, **options):
    stream = head.stream(PORTRAIT, **{"latency": "low", **options})
    return stream.push(samples) + stream.flush()


def same(some, others):
    return [bool((one.image == other.image).all()) for one, other in zip(some, others, strict=True)]


def test_without_edits_the_base_model_comes_out_bit_for_bit(pair):
    base, head = pair
    samples = speech(34)
    plain = frames_of(base, samples)
    assert all(same(frames_of(head, samples), plain))
    assert all(same(frames_of(head, samples, controls=Controls(), emotion={"neutral": 1.0}, style=1.0), plain))
    idle = [
        one.performer.idle([Idle(one.performer.begin(one.appearance(PORTRAIT), 3, "low"), NEUTRAL)])[0].shots for one in pair
    ]
    assert all((one.pixels == other.pixels).all() for one, other in zip(*idle, strict=True))


def test_capabilities_are_said_honestly(heads):
    edits = {Capability.CONTROLS, Capability.EMOTION, Capability.STYLE}
    still, turned = heads["v"][1], heads["rap"][1]
    assert heads["v"][0].performer.supports == {Capability.IDLE}
    assert still.performer.supports == {Capability.IDLE, *edits}
    assert turned.performer.supports == {Capability.IDLE, Capability.HEAD, *edits}


def test_a_head_that_stands_still_is_not_asked_to_turn(heads):
    head = heads["v"][1]
    for controls in (Controls(pose=(0.0, 5.0, 0.0)), Timeline().layer({"head.yaw": 5})):
        with pytest.raises(ValueError, match="does not support head pose"):
            head.stream(PORTRAIT, controls=controls)
    with head.blocking_session(PORTRAIT, idle=False, any_speed=True) as session:
        for asked in ({"head": (0.0, 5.0, 0.0)}, {"names": {"pose.yaw": 5.0}}, {"controls": Controls(zoom=1.1)}):
            with pytest.raises(ValueError, match="does not support head pose"):
                session.control(**asked)
        session.control(gaze=(5.0, 0.0), emotion={"happy": 0.5}, style="calm")


@pytest.mark.parametrize(
    "options",
    [
        {"controls": LOOK},
        {"emotion": {"happy": 1.0}},
        {"style": "lively"},
        {"still": True},
        {"controls": lambda frame: Controls(gaze=(frame, 0.0))},
        {"controls": Timeline().layer({"jawOpen": 1.0})},
        {"performance": Performance(np.full((50, 70), 0.02, np.float32))},
    ],
    ids=["controls", "emotion", "style", "still", "function", "timeline", "performance"],
)  # fmt: skip
def test_every_kind_of_edit_acts(heads, options):
    head, samples = heads["v"][1], speech(15)
    assert not any(same(frames_of(head, samples, **options), frames_of(head, samples))[1:])


def given_motion(head, monkeypatch):
    """The motions that blocks get, as they come."""
    blocks, source = [], head.performer.motion
    follow = source.follow

    def recorded(jobs):
        found = follow(jobs)
        blocks.append(found[0].motion)
        return found

    monkeypatch.setattr(source, "follow", recorded)
    return blocks


def test_the_condition_is_the_motion_that_lite_shows(head, monkeypatch):
    """Of the same speech, seed and edits, in every frame but the last ones, which lite closes with silence of its own."""
    blocks, samples = given_motion(head, monkeypatch), speech(40, 3)
    still = Capability.HEAD not in head.performer.supports
    numbers = {"gaze.right": 8} if still else {"gaze.right": 8, "head.yaw": [(0, 0), (1, 12)]}
    options = {"seed": 5, "emotion": {"happy": 0.5}, "style": "lively", "controls": Timeline().layer(numbers)}
    frames_of(head, samples, **options)
    lite = np.array([frame.motion.values for frame in frames_of(load("lite"), samples, still=still, **options)])
    given = np.concatenate(blocks)
    assert len(given) >= 40
    if still:
        np.testing.assert_allclose(given[:30], lite[:30], atol=1e-5)
        assert not given[:, : EXPRESSION.start].any()
    else:
        np.testing.assert_array_equal(given[:30], lite[:30])


def test_the_condition_begins_with_the_block_of_the_first_edit_and_ends_with_the_last(heads):
    base, head = heads["v"]
    samples = speech(61)  # blocks of 13, 16, 16, 16
    asked = []

    def controls(frame):
        asked.append(frame)
        return LOOK if 20 <= frame < 25 else Controls()

    plain, edited = frames_of(base, samples), frames_of(head, samples, controls=controls)
    assert [n for n, equal in enumerate(same(edited, plain)) if equal][:13] == list(range(13))
    assert not all(same(edited, plain)[13:29])
    assert set(asked) == set(range(61))  # and no frame that never comes


def test_any_chunking_gives_the_same_frames(head):
    """Of a timeline, as in docs/latent.md."""
    samples, options = speech(40), {"controls": Timeline().layer({"gaze.down": [(0.6, 0), (1, 12)]})}
    whole = frames_of(head, samples, **options)
    stream, pieces = head.stream(PORTRAIT, latency="low", **options), []
    for start in range(0, samples.size, 977):
        pieces += stream.push(samples[start : start + 977])
    assert all(same(pieces + stream.flush(), whole))


def test_a_session_with_edits_gives_the_frames_of_a_stream(head):
    samples, options = speech(20), {"controls": LOOK, "emotion": {"sad": 0.5}, "seed": 0}
    with head.blocking_session(PORTRAIT, idle=False, any_speed=True, **options) as session:
        session.push(samples)
        session.flush()
        frames = [session.get(60.0) for _ in range(20)]
    assert all(same(frames, frames_of(head, samples, **options)))


def test_control_acts_on_the_next_block_and_its_ramp_begins_there(heads, monkeypatch):
    head = heads["rap"][1]
    blocks = given_motion(head, monkeypatch)
    with head.blocking_session(PORTRAIT, seed=0, any_speed=True) as session:
        assert session.get(60.0).kind == "idle"
        session.control(head=(0.0, 10.0, 0.0), ramp_seconds=0.4)
        while len(blocks) < 2:
            session.get(60.0)
        session.control(head=(0.0, 0.0, 0.0), ramp_seconds=0.0)
        session.push(speech(60))
        session.flush()
        while session.get(60.0).kind != "speech":
            pass
        made = len(blocks)
        for _ in range(35):
            session.get(60.0)
        assert len(blocks) == made  # hidden again
    yaws = np.concatenate(blocks)[:, 2]
    assert abs(yaws[0]) < 3 and np.abs(np.diff(yaws[:12])).max() < 3  # a ramp, not a jump
    assert 6 < yaws[12:32].mean() < 14


def test_an_interrupt_with_edits_comes_to_rest(head):
    with head.blocking_session(PORTRAIT, seed=0, any_speed=True, controls=LOOK) as session:
        session.push(speech(60))
        kinds = []
        while kinds.count("speech") < 3:
            kinds.append(session.get(60.0).kind)
        session.interrupt()
        rest = [session.get(60.0) for _ in range(24)]
        assert all(item.kind != "speech" for item in rest)
        session.push(speech(3, 7))
        session.flush()
        kinds = [getattr(session.get(60.0), "kind", "end") for _ in range(20)]
        assert kinds.count("speech") == 3 and "end" in kinds


def test_streams_with_and_without_edits_are_what_they_are_alone(head):
    """To one level of a picture: a batch of four in the speech encoder may move a feature by 4e-6."""
    performer, appearance = head.performer, head.appearance(PORTRAIT)
    edits = [None, lambda shot: Edits(NEUTRAL, (LOOK,)), lambda shot: Edits(emotion_vector({"happy": 1.0})), None]

    def advance(states, step, places):
        pieces = [speech(40, place)[step * hop : (step + 1) * hop] for place in places]
        jobs = [
            Advance(state, piece, NEUTRAL, edits=edits[place])
            for state, piece, place in zip(states, pieces, places, strict=True)
        ]
        return performer.advance(jobs)

    hop = performer.hop_samples
    together = [performer.begin(appearance, seed, "low") for seed in range(4)]
    alone = list(together)
    for step in range(20):
        found = advance(together, step, range(4))
        single = [advance([alone[place]], step, [place])[0] for place in range(4)]
        for one, other in zip(found, single, strict=True):
            assert len(one.shots) == len(other.shots)
            for a, b in zip(one.shots, other.shots, strict=True):
                assert np.abs(a.pixels.astype(int) - b.pixels).max() <= 1
        together, alone = [one.state for one in found], [one.state for one in single]


def test_a_state_with_motion_does_not_grow(head):
    performer = head.performer
    state, sizes = performer.begin(head.appearance(PORTRAIT), 0, "low"), []
    for step in range(60):
        piece = speech(2, step)
        job = Advance(state, piece, NEUTRAL, edits=lambda shot: Edits(NEUTRAL, (LOOK,)))
        state = performer.advance([job])[0].state
        if state.motion is not None:
            arrays = [state.speech.rows, state.motion.rows, *state.motion.sampler[3:8]]
            tensors = tensors_of(state.generator)
            sizes.append(sum(a.nbytes for a in arrays) + sum(t.numel() for t in tensors))
    assert max(sizes[len(sizes) // 2 :]) <= 1.2 * max(sizes[: len(sizes) // 2])


def test_a_bundle_keeps_its_source_of_motion(tmp_path):
    head = load(write_tiny(tmp_path / "v", "v motion").path)
    assert Capability.CONTROLS in head.performer.supports
    direct = TalkingHead(None, performer_of(tiny_parts("v motion")))
    samples = speech(14)
    assert all(same(frames_of(head, samples, controls=LOOK), frames_of(direct, samples, controls=LOOK)))


def test_sources_of_motion_that_do_not_fit_are_refused(parts):
    base, moved = parts["rap"]
    with pytest.raises(BundleError, match="expected the motion network 1111"):
        performer_of(replace(moved, motion=MotionConfig("1" * 64)))
    with pytest.raises(InputError, match="a condition of 70 numbers of motion, got 0; train it with --motion"):
        performer_of(replace(base, motion=moved.motion))
    mel = tiny_parts("rap")
    generator = type(mel.generator)(replace(mel.generator.config, motion_features=70))
    torch.nn.init.ones_(generator.motion.output.weight)
    with pytest.raises(InputError, match="expected lite's speech encoder beside lite's motion"):
        performer_of(replace(mel, generator=generator, motion=moved.motion))
    with torch.no_grad():
        untrained = with_motion(tiny_parts("rap"))
        untrained.generator.motion.output.weight.zero_()
    with pytest.raises(InputError, match="expected a trained condition on motion, got zeros"):
        performer_of(untrained)
    odd = type(base.generator)(replace(moved.generator.config, frames_per_latent=7))
    torch.nn.init.ones_(odd.motion.output.weight)
    with pytest.raises(InputError, match="expected blocks of an even number of frames for lite's motion, got 7"):
        check_motion(odd, True)


def test_a_condition_of_zeros_is_told_where_it_is_used(tmp_path):
    parts = with_motion(tiny_parts("v"))
    with torch.no_grad():
        parts.generator.motion.output.weight.zero_()
    bundle = write_bundle(tmp_path / "v", replace(parts, motion=None), "tiny v", "Apache-2.0", "random numbers")
    assert all(check.ok for check in examine(bundle))
    described = json.loads((bundle.path / "bundle.json").read_text())
    sizes = {"network": shipped_motion(), "still": True}
    described["parts"]["motion"] = {
        "model": "lite_motion", "config": {"version": 1, "sizes": sizes}, "files": {}, "sha256": {}
    }  # fmt: skip
    (bundle.path / "bundle.json").write_text(json.dumps(described))
    (wrong,) = (check for check in examine(Bundle.open(bundle.path)) if not check.ok)
    assert "numbers of motion.output.weight are zero" in wrong.detail
    with pytest.raises(BundleError, match="expected a trained condition on motion, got zeros"):
        load(bundle.path)
