"""Packed portraits: small, drawn almost as the exact ones, at rest their own picture; a damaged one is refused."""

import dataclasses
import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from drawn import drawn_portrait

import ditto
from ditto._native import Core
from ditto.errors import InputError, OutputError
from ditto.lite.rendering.blob import portrait_blob
from ditto.lite.rendering.core import CoreRenderer
from ditto.lite.rendering.numbers import model_numbers, portrait_numbers
from ditto.motion.motion import EXPRESSION, MOTION_SIZE, TEMPLATE_APERTURE, UPPER_LIDS, Keypoint
from ditto.portrait import packed
from ditto.portrait.portrait import Portrait

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data" / "portraits" / "public_domain"
AGNEW = SHARED / "lady_agnew_sargent.jpg"
PICTURES = [ROOT / "examples" / "portrait.jpg", *([AGNEW] if AGNEW.is_file() else [])]


@pytest.fixture(scope="module")
def head():
    return ditto.load("lite")


@pytest.fixture(scope="module")
def renderer(head) -> CoreRenderer:
    return head.performer.renderer


@pytest.fixture(scope="module")
def small(head):
    """A small portrait, packed without loss."""
    return head.pack(drawn_portrait(128), lossless=True)


def own_expression(portrait):
    """The motion (70,) that leaves a portrait as it is: its own expression. `rest_motion` closes its lips."""
    row = np.zeros(MOTION_SIZE, np.float32)
    change = portrait.expression @ portrait.rotation.T
    lower = portrait.canonical_keypoints[Keypoint.LOWER_LIDS, 1]
    for lid in UPPER_LIDS:
        change[lid, 1] /= (lower - portrait.canonical_keypoints[lid, 1]) / TEMPLATE_APERTURE
    row[EXPRESSION] = change.ravel()
    return row


def motions(count):
    """(count, 70): turned heads, strong expressions, blinks and open mouths."""
    random = np.random.default_rng(0)
    size = np.concatenate([[0.02], [6.0, 6.0, 3.0], np.full(3, 0.02), np.full(63, 0.015)])
    rows = (size * random.normal(size=(count, MOTION_SIZE))).astype(np.float32)
    face = rows[:, EXPRESSION].reshape(count, -1, 3)
    face[::3, UPPER_LIDS, 1] += 0.07
    face[1::3, [Keypoint.LOWER_INNER_LIP, Keypoint.CHIN], 1] += 0.06
    rows[:, EXPRESSION] = face.reshape(count, -1)
    return rows


def psnr(one, other):
    return 10 * np.log10(255**2 / max(((one.astype(float) - other) ** 2).mean(), 1e-9))


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.stem)
def test_packed_portraits_are_small_and_drawn_as_the_exact_ones(head, renderer, picture):
    portrait = head.register(picture, max_size=512)
    appearance, paste_back = renderer.mesh.prepare(portrait), renderer.mesh.paste_back(portrait)
    exact = Core(portrait_blob(renderer.mesh.learned, portrait, appearance, paste_back))
    rows = motions(6)
    frames = np.stack([exact.picture(row) for row in rows])
    assert (exact.picture(own_expression(portrait)) == portrait.picture).all()
    small = head.pack(portrait)
    assert len(small) < 250_000
    for lossless, least in ((True, 78.0), (False, 36.0)):
        data = head.pack(portrait, lossless=True) if lossless else small
        loaded = Portrait.from_packed(data)
        core = renderer.unpack(data, loaded, whole=True)
        assert psnr(np.stack([core.picture(row) for row in rows]), frames) >= least
        at_rest = core.frame(own_expression(loaded))
        assert (at_rest[0] == loaded.crop).all() and (at_rest[1] == loaded.picture).all()
        if lossless:
            assert (loaded.picture == portrait.picture).all() and (loaded.crop == portrait.crop).all()


def test_a_packed_portrait_is_loaded_without_preparation_and_otherwise_like_a_saved_one(head, renderer, tmp_path, monkeypatch):
    portrait = dataclasses.replace(drawn_portrait(200), alpha=np.full((200, 200), 7, np.uint8))
    data = head.pack(portrait, tmp_path / "face.portrait", lossless=True)
    assert (tmp_path / "face.portrait").read_bytes() == data and len(list(tmp_path.iterdir())) == 1
    loaded = Portrait.load(tmp_path / "face.portrait")
    for name in ("picture", "crop", "alpha"):
        assert (getattr(loaded, name) == getattr(portrait, name)).all()
    assert np.abs(loaded.landmarks - portrait.landmarks).max() < 1e-5 and np.abs(loaded.mask - portrait.mask).max() < 0.003
    for name in (*packed._SMALL, "scale"):
        assert np.array_equal(getattr(loaded, name), getattr(portrait, name))
    assert head.pack(loaded) == head.pack(loaded, lossless=True) == data
    row = motions(2)[1]
    alone = renderer.prepare(portrait).crop(row)
    again = renderer.prepare(dataclasses.replace(loaded)).crop(row)  # without what was packed with it

    def never(_):
        raise AssertionError("prepared")

    monkeypatch.setattr(renderer.mesh, "prepare", never)
    assert psnr(renderer.prepare(loaded).crop(row), alone) > 55.0
    monkeypatch.undo()
    assert psnr(again, alone) > 55.0
    loaded.save(tmp_path / "face.npz")
    assert (Portrait.load(tmp_path / "face.npz").crop == loaded.crop).all()


def test_a_packed_jpeg_portrait_can_be_packed_without_further_loss(head):
    small = Portrait.from_packed(head.pack(drawn_portrait(128)))
    whole = Portrait.from_packed(head.pack(small, lossless=True))
    assert (whole.crop == small.crop).all() and packed.is_lossless(whole.packed) and not packed.is_lossless(small.packed)


def test_the_model_pack_names_itself_and_is_the_same_each_time(head, renderer, small):
    pack = head.model_pack()
    assert pack == model_numbers(renderer.mesh.learned) and len(zlib.compress(pack, 9)) < 130_000
    assert packed.model_of(small) == hashlib.sha256(pack).hexdigest() == renderer.model


def test_a_portrait_packed_for_another_model_is_prepared_again(head, renderer, small, monkeypatch):
    sections = dict(packed._Sections(small, "it"))
    loaded = Portrait.from_packed(packed._join({**sections, "model": bytes(32)}))
    with pytest.raises(InputError, match=r"packed for the model pack .*, got 000000000000; pack the portrait again"):
        renderer.unpack(loaded.packed, loaded)
    prepared = renderer.mesh.prepare
    calls = []
    monkeypatch.setattr(renderer.mesh, "prepare", lambda portrait: calls.append(portrait) or prepared(portrait))
    assert renderer.prepare(loaded).size == 128 and calls == [loaded]
    assert packed.model_of(head.pack(loaded)) == renderer.model


def test_a_bundle_without_the_core_packs_nothing(head):
    other = ditto.TalkingHead(head.bundle, head.performer.motion_only())
    for ask in (other.model_pack, lambda: other.pack(drawn_portrait(64))):
        with pytest.raises(InputError, match="expected a bundle that draws with the core"):
            ask()
    with pytest.raises(OutputError):
        head.pack(Portrait.from_packed(head.pack(drawn_portrait(64))), "/dev/null/face.portrait")
    with pytest.raises(TypeError, match="expected a Portrait"):
        head.pack("face.npz")


# Damaged files


def load(data, tmp_path):
    (tmp_path / "face.portrait").write_bytes(data)
    return Portrait.load(tmp_path / "face.portrait")


def test_a_file_that_is_cut_off_or_of_another_kind_is_refused(small, tmp_path):
    for size in (8, 31, 32, 100, len(small) // 2, len(small) - 1):
        with pytest.raises(InputError, match=r"face\.portrait"):
            load(small[:size], tmp_path)
    for size in (0, 7):
        with pytest.raises(InputError, match="no saved portrait"):
            load(small[:size], tmp_path)
    with pytest.raises(InputError, match=r"of version 1, got version 2 in .*; update ditto"):
        load(small[:8] + struct.pack("<I", 2) + small[12:], tmp_path)
    with pytest.raises(InputError, match="expected size and checksum as it says"):
        load(small + b"\0", tmp_path)


def test_every_flipped_bit_is_noticed(small, tmp_path):
    random = np.random.default_rng(1)
    for at in random.integers(0, len(small), 40):
        damaged = bytearray(small)
        damaged[at] ^= 1 << random.integers(8)
        with pytest.raises(InputError):
            load(bytes(damaged), tmp_path)


def test_each_section_is_needed_and_read_with_care(renderer, small, tmp_path):
    sections = dict(packed._Sections(small, "it"))
    fields = zlib.decompress(sections["portrait"])

    def draw(data):
        renderer.prepare(load(data, tmp_path))

    bad = {
        "cut off": {name: section[: len(section) // 2] for name, section in sections.items()},
        "empty": dict.fromkeys(sections, b""),
        "bomb": {name: zlib.compress(bytes(64 << 20), 9) for name in ("numbers", "portrait")},
        "exchanged": {"picture": sections["mask"], "mask": sections["crop"], "plate": sections["mask"]},
        "two": {"numbers": sections["numbers"] * 2},
        "other": {
            "portrait": zlib.compress(fields.replace(b'"scale":', b'"scales":')),
            "numbers": zlib.compress(b"DITTONUM" + struct.pack("<II", 2, 0)),
            "crop": packed._encode(np.zeros((64, 64, 3), np.uint8), None),
            "plate": packed._encode(np.zeros((64, 64, 3), np.uint8), None),
        },
        "nan": {"portrait": zlib.compress(fields.replace(b'"scale":', b'"scale":NaN,"other":'))},
        "deep": {"portrait": zlib.compress(b"[" * 500_000)},
        "list": {"portrait": zlib.compress(b"[1]")},
    }
    for name, changes in bad.items():
        for section, content in changes.items():
            with pytest.raises(InputError) as error:
                draw(packed._join({**sections, section: content}))
            assert len(str(error.value)) < 500, (name, section)
    for section in sections:
        with pytest.raises(InputError, match=f"expected a section '{section}', got none"):
            draw(packed._join({name: content for name, content in sections.items() if name != section}))


# Hostile numbers, which come with a sound checksum


def test_the_core_checks_numbers_and_pictures(renderer, small):
    appearance = packed.appearance_of(small)
    numbers, plate, crop = appearance.numbers, appearance.plate, Portrait.from_packed(small).crop
    model = renderer.model_pack

    def refused(match=".", model=model, numbers=numbers, picture=None, crop=crop, plate=plate):
        with pytest.raises(ValueError, match=match):
            Core.unpack(model, numbers, picture, crop, plate)

    whole = Core.unpack(model, numbers, crop, crop, plate)
    assert whole.picture(np.zeros(MOTION_SIZE, np.float32)).shape == (128, 128, 3)
    rgba = np.dstack([crop, np.zeros((128, 128), np.uint8)])
    assert (Core.unpack(model, numbers, rgba, rgba, plate).picture(motions(2)[1]) == whole.picture(motions(2)[1])).all()
    refused("as the model pack, got other bytes; inflate", model=b"")
    refused("as the numbers of a portrait, got other bytes; inflate", numbers=zlib.compress(numbers))
    refused("the numbers of a portrait in version 1, got version 2", numbers=numbers[:8] + struct.pack("<I", 2) + numbers[12:])
    refused("nothing behind the last array", numbers=numbers + b"\0")
    refused("up to 1024 arrays", numbers=numbers[:12] + struct.pack("<I", 1 << 30) + numbers[16:])
    refused("the decoded crop to be 128 x 128 with 3 or 4 channels, got 128 x 127", crop=np.ascontiguousarray(crop[:-1]))
    refused("the decoded plate to be 128 x 128 with 3 or 4 channels, got 128 x 128 with 1", plate=plate[..., :1].copy())
    refused("the decoded picture to have pixels", picture=crop[:0])
    refused("paste.columns", picture=np.ascontiguousarray(crop[:, :60]))
    refused("a square array alpha", numbers=model)
    refused("expected a picture", crop=crop[0])
    for size in (0, 15, 16, 60, len(numbers) // 3, len(numbers) - 1):
        refused(numbers=numbers[:size])
    for at, value in ((24, 5), (25, 6), (26, 5), (27, 1), (23, 65)):  # of the first record: types, coding, padding, name
        damaged = bytearray(numbers)
        damaged[16 + at] = value
        refused("arrays of known types, codings and sizes", numbers=bytes(damaged))
    for sizes in ((1 << 20, 1 << 20, 1 << 20), (1 << 20, 3, 1), ((1 << 32) - 1, 1, 1), (1 << 20, 0, 1 << 20)):
        refused(numbers=numbers[: 16 + 28] + struct.pack("<III", *sizes) + numbers[16 + 40 :])


def test_portraits_with_no_hidden_rim_and_with_large_crops_are_packed(renderer):
    """Arrays without numbers, and places that 16 bits do not hold."""
    for portrait in (drawn_portrait(1024, (0.0, 0.0, 0.0)), drawn_portrait(64, (0.0, 40.0, 0.0))):
        appearance = renderer.mesh.prepare(portrait)
        rim = appearance.rim._replace(ids=appearance.rim.ids[:0], follow=appearance.rim.follow[:0])
        numbers = portrait_numbers(portrait, appearance._replace(rim=rim), renderer.mesh.paste_back(portrait))
        core = Core.unpack(renderer.model_pack, numbers, portrait.picture, portrait.crop, appearance.background.plate)
        exact = Core(portrait_blob(renderer.mesh.learned, portrait, appearance._replace(rim=rim)))
        row = motions(2)[1]
        assert np.abs(core.vertices(row) - exact.vertices(row)).max() < 0.1
        assert psnr(core.crop(row), exact.crop(row)) > 55.0
