"""The dataset folder: what is written is read; everything else is refused with what to do."""

import dataclasses
import json

import numpy as np
import pytest

from ditto.errors import DatasetError, OutputError
from ditto.training import dataset as d


def info(id="a", frames=5, **changes):
    values = {
        "id": id, "video": "a.mp4", "start_seconds": 0.0, "end_seconds": 0.2, "track": 0, "person": None,
        "language": "en", "frames": frames, "sync_offset_frames": 2, "sync_confidence": 3.5,
        "emotion_source": "neutral", "split": "train",
    }  # fmt: skip
    return d.ClipInfo(**values | changes)


def arrays(frames=5, seed=0):
    random = np.random.default_rng(seed)
    made = {
        name: random.normal(size=shape).astype(d.DTYPES[name]) if d.DTYPES[name] != "int16"
        else random.integers(-99, 99, shape).astype(np.int16)
        for name, shape in d.shapes(frames).items()
    }  # fmt: skip
    return d.Clip(**made)


@pytest.fixture
def folder(tmp_path):
    for id in ("b", "a"):
        d.write_clip(tmp_path, info(id), arrays())
    d.write_index(tmp_path, "lite", "0" * 64, {"min_seconds": 1.0}, [info("b", split="held"), info("a")])
    return tmp_path


def test_what_is_written_is_read(folder):
    found = d.read_dataset(folder)
    assert [clip.id for clip in found.clips] == ["a", "b"]
    assert found.of("train") == (info("a"),) and [clip.id for clip in found.of("held")] == ["b"]
    assert (found.bundle, found.encoder_sha256, found.options) == ("lite", "0" * 64, {"min_seconds": 1.0})
    for name, array in arrays()._asdict().items():
        np.testing.assert_array_equal(getattr(found.load(found.clips[0]), name), array)


def test_the_same_clip_gives_the_same_bytes(folder, tmp_path):
    first = d.clip_file(folder, "a").read_bytes()
    d.write_clip(tmp_path / "other", info("a"), arrays())
    assert d.clip_file(tmp_path / "other", "a").read_bytes() == first


def rewrite(path, change):
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h | {"format": 2}, r"expected a dataset of format 1, got 2 in .*; prepare it again"),
        (lambda h: h | {"format": True}, "expected a dataset of format 1, got True"),
        (lambda h: h | {"clips": True}, "expected clips as int, got True"),
        (lambda h: h | {"fps": 30}, "expected fps 25, got 30"),
        (lambda h: h | {"sample_rate": 48000}, "expected sample_rate 16000, got 48000"),
        (lambda h: h | {"clips": 3}, "expected 3 clips in .*, got 2"),
        (lambda h: {k: v for k, v in h.items() if k != "bundle"}, "expected bundle as str"),
        (lambda h: [h], "expected a JSON object"),
    ],
)
def test_another_header_is_refused(folder, change, message):
    rewrite(folder / "dataset.json", change)
    with pytest.raises(DatasetError, match=message):
        d.read_dataset(folder)


@pytest.mark.parametrize(
    "change",
    [{"frames": "5"}, {"frames": True}, {"track": False}, {"start_seconds": True}, {"frames": 0}, {"split": "test"},
     {"person": 3}, {"emotion_source": "guess"}, {"sync_confidence": float("nan")}, {"more": 1}],
)  # fmt: skip
def test_another_line_is_refused(folder, change):
    lines = (folder / "clips.jsonl").read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | change)
    (folder / "clips.jsonl").write_text("\n".join(lines))
    with pytest.raises(DatasetError, match=r"clips.jsonl, line 2.*prepare the dataset again"):
        d.read_dataset(folder)


def test_a_line_that_is_no_json_is_refused(folder):
    (folder / "clips.jsonl").write_text("{\n")
    with pytest.raises(DatasetError, match="line 1"):
        d.read_dataset(folder)


def test_no_dataset_and_an_unfinished_one_are_told_apart(tmp_path):
    with pytest.raises(DatasetError, match=r"dataset.json, got: No such file"):
        d.read_dataset(tmp_path)
    (tmp_path / "steps").mkdir()
    with pytest.raises(DatasetError, match="has not finished; run the same ditto train prepare again"):
        d.read_dataset(tmp_path)


def test_a_damaged_or_missing_clip_is_named(folder):
    found = d.read_dataset(folder)
    path = d.clip_file(folder, "a")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DatasetError, match=r"a.npz"):
        found.load(found.clips[0])
    path.unlink()
    with pytest.raises(DatasetError, match="No such file"):
        found.load(found.clips[0])


def test_arrays_of_another_shape_kind_or_with_nan_are_refused(folder, tmp_path):
    for changed in (
        arrays()._replace(eyes=arrays(6).eyes),
        arrays()._replace(sound=arrays().sound.astype(np.float32)),
        arrays()._replace(motion=np.full((5, 70), np.nan, np.float32)),
    ):
        with pytest.raises(DatasetError, match="expected"):
            d.write_clip(tmp_path, info("c"), changed)
        assert not d.clip_file(tmp_path, "c").exists()
    d.write_clip(folder, info("a", 6), arrays(6))
    with pytest.raises(DatasetError, match=r"expected features .*\(5, 368\)"):
        d.read_dataset(folder).load(info("a"))


def test_an_array_of_objects_is_never_unpickled(folder):
    np.savez(d.clip_file(folder, "a"), **arrays()._asdict() | {"motion": np.array([{}], dtype=object)})
    with pytest.raises(DatasetError, match="allow_pickle"):
        d.read_dataset(folder).load(info("a"))


def test_a_full_disk_is_an_output_error_and_leaves_nothing(folder, monkeypatch):
    def full(part, file):
        raise OSError(28, "No space left on device")

    before = sorted(p.name for p in folder.rglob("*"))
    monkeypatch.setattr("ditto.media.files.complete_file", full)
    with pytest.raises(OutputError, match="No space left on device; make room"):
        d.write_clip(folder, info("c"), arrays())
    assert sorted(p.name for p in folder.rglob("*")) == before


def test_an_unknown_split_is_refused(folder):
    with pytest.raises(ValueError, match="train, held"):
        d.read_dataset(folder).of("test")


def test_every_field_is_described():
    assert all(field.name in d.ClipInfo.__doc__ for field in dataclasses.fields(d.ClipInfo))
