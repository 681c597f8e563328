"""Files of face animation: what is written is read again, and bad files are named by line and field."""

import json
import logging
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ditto import exchange
from ditto.controls.blendshapes import ARKIT_NAMES, SHAPES
from ditto.errors import ExchangeError, OutputError
from ditto.exchange import audio2face, gltf, live_link_csv, talkinghead
from ditto.exchange.files import LONGEST_LINE
from ditto.exchange.live_link_csv import HEADER
from ditto.exchange.track import LOOK_DEGREES, BlendshapeTrack, shape_of

# As in real recordings, broken after commas; one line in the file.
EXACT_HEADER = (
    "Timecode,BlendShapeCount,"
    "EyeBlinkLeft,EyeLookDownLeft,EyeLookInLeft,EyeLookOutLeft,EyeLookUpLeft,EyeSquintLeft,EyeWideLeft,"
    "EyeBlinkRight,EyeLookDownRight,EyeLookInRight,EyeLookOutRight,EyeLookUpRight,EyeSquintRight,EyeWideRight,"
    "JawForward,JawRight,JawLeft,JawOpen,"
    "MouthClose,MouthFunnel,MouthPucker,MouthRight,MouthLeft,MouthSmileLeft,MouthSmileRight,"
    "MouthFrownLeft,MouthFrownRight,MouthDimpleLeft,MouthDimpleRight,MouthStretchLeft,MouthStretchRight,"
    "MouthRollLower,MouthRollUpper,MouthShrugLower,MouthShrugUpper,MouthPressLeft,MouthPressRight,"
    "MouthLowerDownLeft,MouthLowerDownRight,MouthUpperUpLeft,MouthUpperUpRight,"
    "BrowDownLeft,BrowDownRight,BrowInnerUp,BrowOuterUpLeft,BrowOuterUpRight,"
    "CheekPuff,CheekSquintLeft,CheekSquintRight,NoseSneerLeft,NoseSneerRight,TongueOut,"
    "HeadYaw,HeadPitch,HeadRoll,LeftEyeYaw,LeftEyePitch,LeftEyeRoll,RightEyeYaw,RightEyePitch,RightEyeRoll"
)
SUFFIXES = {"live-link": ".csv", "a2f-json": ".json", "a2f-csv": ".csv", "gltf": ".glb", "talkinghead": ".json"}


def track_of(frames=40, seed=0, fps=30.0, turns=True):
    random = np.random.default_rng(seed)
    weights = random.uniform(0.0, 1.05, (frames, SHAPES)) * (random.uniform(size=(frames, SHAPES)) < 0.3)
    head, eyes = random.normal(0.0, 8.0, (frames, 3)), random.normal(0.0, 12.0, (frames, 2, 2))
    return BlendshapeTrack(np.arange(frames) / fps, weights, head if turns else None, eyes if turns else None, fps)


def row(timecode, header=HEADER, **values):
    """A line of a CSV with a few values by their names in it."""
    fields = {"timecode": timecode, "blendshapecount": "61"} | {name.lower(): str(x) for name, x in values.items()}
    return ",".join(fields.get(name.lower(), "0.0000000000") for name in header)


def csv_of(*rows, header=HEADER):
    return "\n".join([",".join(header), *rows, ""]).encode()


def weight(track, name):
    return track.weights[:, ARKIT_NAMES.index(name)]


@pytest.mark.parametrize("name", exchange.FORMATS)
def test_each_format_gives_back_what_was_written(name, tmp_path):
    track = track_of()
    path = tmp_path / f"face{SUFFIXES[name]}"
    exchange.write(track, path, name)
    assert exchange.detect(path) == name
    for back in (exchange.read(path), exchange.read(path.read_bytes()), exchange.read(path.open("rb"), name)):
        np.testing.assert_allclose(back.weights, track.weights, atol=1e-6)
        np.testing.assert_allclose(back.times, track.times, atol=1e-5)  # a thousandth of a frame
        assert back.fps == pytest.approx(30.0, rel=1e-3)
        if name == "live-link":
            np.testing.assert_allclose(back.head_degrees, track.head_degrees, atol=1e-6)
            np.testing.assert_allclose(back.eyes_degrees, track.eyes_degrees, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(name=st.sampled_from([*exchange.FORMATS]), frames=st.integers(1, 9), fps=st.sampled_from([24.0, 25.0, 60.0]),
       seed=st.integers(0, 1000))  # fmt: skip
def test_any_track_survives_each_format(name, frames, fps, seed, tmp_path_factory):
    track = track_of(frames, seed, fps)
    path = tmp_path_factory.mktemp("face") / f"face{SUFFIXES[name]}"
    exchange.write(track, path, name)
    np.testing.assert_allclose(exchange.read(path, name).weights, track.weights, atol=1e-6)


@pytest.mark.parametrize("name", exchange.FORMATS)
def test_a_format_is_chosen_by_the_suffix(name, tmp_path):
    first = next(n for n, known in exchange.FORMATS.items() if SUFFIXES[name] in known.suffixes)
    exchange.write(track_of(3), tmp_path / f"x{SUFFIXES[name].upper()}")
    assert exchange.detect(tmp_path / f"x{SUFFIXES[name].upper()}") == first


def test_a_csv_has_the_exact_header_and_form(tmp_path):
    live_link_csv.write(track_of(3, fps=60.0), tmp_path / "x.csv")
    raw = (tmp_path / "x.csv").read_bytes()
    lines = raw.decode().split("\n")
    assert lines[0] == EXACT_HEADER and b"\r" not in raw and lines[-1] == ""
    assert [line.split(",")[:2] for line in lines[1:4]] == [
        ["00:00:00:00.000", "61"], ["00:00:00:01.000", "61"], ["00:00:00:02.000", "61"]
    ]  # fmt: skip
    assert all(len(field.split(".")[1]) == 10 for line in lines[1:4] for field in line.split(",")[2:])


def test_a_timecode_carries_over_all_its_places():
    assert live_link_csv.timecode(0.0) == "00:00:00:00.000"
    assert live_link_csv.timecode(1.0 - 1e-9) == "00:00:01:00.000"
    assert live_link_csv.timecode(3661.5) == "01:01:01:30.000"
    assert live_link_csv.timecode(51 + 38.453 / 60) == "00:00:51:38.453"


def test_rows_of_the_app_are_read_by_time_not_by_number():
    """Values of a real recording: two frames a row, a gap of one row, thousandths of a frame."""
    track = exchange.read(
        csv_of(row("16:55:51:38.453", JawOpen=0.1), row("16:55:51:40.453", JawOpen=0.2), row("16:55:51:44.453", JawOpen=0.4))
    )
    np.testing.assert_allclose(track.times, [0.0, 2 / 60, 6 / 60], atol=1e-9)
    np.testing.assert_allclose(weight(track.resampled(60.0), "jawOpen"), 0.1 + 0.05 * np.arange(7), atol=1e-9)


@pytest.mark.parametrize("step", [1, 2])
def test_recordings_of_30_and_of_60_rows_a_second(step):
    codes = [f"00:00:{n // 60:02d}:{n % 60:02d}.000" for n in range(0, 180, step)]
    track = exchange.read(csv_of(*(row(code) for code in codes)))
    assert track.fps == pytest.approx(60 / step)
    assert track.times[-1] == pytest.approx((180 - step) / 60)


def test_a_recording_over_midnight_goes_on():
    track = exchange.read(csv_of(row("23:59:59:59.000"), row("00:00:00:01.000")))
    np.testing.assert_allclose(track.times, [0.0, 2 / 60], atol=1e-9)


@pytest.mark.parametrize("rate", [24, 25, 30])
def test_timecodes_of_other_rates_are_told_by_their_largest_frame(rate):
    codes = [f"00:00:{n // rate:02d}:{n % rate:02d}" for n in range(3 * rate)]
    track = exchange.read(csv_of(*(row(code) for code in codes)))
    np.testing.assert_allclose(np.diff(track.times), 1 / rate, atol=1e-9)


@pytest.mark.parametrize(
    ("values", "eye", "right", "down"),
    [
        # Measured in real recordings: yaw is positive to the person's right, which is the left of the picture; pitch down.
        ({"LeftEyeYaw": 0.62, "EyeLookInLeft": 1.0}, 0, -LOOK_DEGREES, 0.0),
        ({"RightEyeYaw": 0.62, "EyeLookOutRight": 1.0}, 1, -LOOK_DEGREES, 0.0),
        ({"LeftEyePitch": 0.62, "EyeLookDownLeft": 1.0}, 0, 0.0, LOOK_DEGREES),
        ({"RightEyePitch": -0.62, "EyeLookUpRight": 1.0}, 1, 0.0, -LOOK_DEGREES),
    ],
)
def test_eyes_of_real_rows_look_where_their_shapes_do(values, eye, right, down, tmp_path):
    track = exchange.read(csv_of(row("00:00:00:00.000", **values)))
    np.testing.assert_allclose(track.eyes_degrees[0, eye], [right, down], atol=0.1)
    # Without the rotations they come from the shapes, with the same signs and sizes.
    written = tmp_path / "x.csv"
    live_link_csv.write(BlendshapeTrack(track.times, track.weights), written)
    np.testing.assert_allclose(exchange.read(written).eyes_degrees[0, eye], [right, down], atol=0.1)
    # And the picture's irises move the same way.
    from ditto.motion.motion import IRISES

    points = track.to_head_values()[0, 7:].reshape(21, 3)[IRISES[1 - eye]]
    assert np.sign(np.round(points[:2], 6)).tolist() == np.sign([right, down]).tolist()


def test_the_head_is_off_where_its_columns_are_zero_and_in_radians_elsewhere():
    assert exchange.read(csv_of(row("00:00:00:00.000"))).head_degrees is None
    turned = exchange.read(csv_of(row("00:00:00:00.000", HeadYaw=0.1, HeadPitch=0.2, HeadRoll=-0.3)))
    np.testing.assert_allclose(turned.head_degrees[0], np.degrees([0.2, 0.1, -0.3]))


def test_sides_of_jaw_and_mouth_are_told_by_name_though_the_csv_has_the_right_first():
    track = exchange.read(csv_of(row("00:00:00:00.000", JawRight=0.3, JawLeft=0.1, MouthRight=0.7, MouthLeft=0.5)))
    assert [weight(track, name)[0] for name in ("jawLeft", "jawRight", "mouthLeft", "mouthRight")] == [0.1, 0.3, 0.5, 0.7]


@pytest.mark.parametrize("count", [51, 52, 61])
@pytest.mark.parametrize("order", ["as is", "alphabet", "camel case"])
def test_files_of_other_tools(count, order, caplog):
    """51 shapes lack the tongue, 52 the rotations; any order and any case."""
    names = [*HEADER[2:53], *HEADER[53:54][: count - 51], *HEADER[54:][: 9 * (count == 61)]]
    names = sorted(names) if order == "alphabet" else [n[0].lower() + n[1:] for n in names] if order == "camel case" else names
    header = ("Timecode", *names)
    with caplog.at_level(logging.WARNING):
        track = exchange.read(csv_of(row("00:00:00:00", header, JawOpen=0.25, BrowInnerUp=0.5), header=header))
    assert not caplog.records
    assert weight(track, "jawOpen")[0] == 0.25 and weight(track, "browInnerUp")[0] == 0.5


def test_missing_shapes_stay_at_zero_and_are_named_in_the_log(caplog):
    header = ("Timecode", "JawOpen", "BrowInnerUp")
    with caplog.at_level(logging.WARNING):
        track = exchange.read(csv_of(row("00:00:00:00", header, JawOpen=0.25), header=header))
    assert weight(track, "jawOpen")[0] == 0.25 and np.count_nonzero(track.weights) == 1
    assert "lacks 49 shapes" in caplog.text and "eyeBlinkLeft" in caplog.text


def test_rows_of_the_same_time_are_left_out_and_told(caplog):
    with caplog.at_level(logging.WARNING):
        track = exchange.read(csv_of(row("00:00:00:00"), row("00:00:00:00"), row("00:00:00:02")))
    assert len(track) == 2 and "1 rows" in caplog.text


GOOD = row("00:00:00:00.000")
BAD_CSV = {
    "no header": (b"a,b\n1,2\n", "another file"),
    "an empty body": (csv_of(), "expected rows below the header, got none"),
    "a row that is short": (csv_of(GOOD, "00:00:00:01.000,61,0"), "line 3: expected 63 fields, got 3"),
    "a row that was cut": (csv_of(GOOD, row("00:00:00:01.000"))[:-30], "line 3"),
    "not a number": (csv_of(row("00:00:00:00.000", JawOpen="nan")), "line 2, field JawOpen: expected a finite number"),
    "infinity": (csv_of(GOOD, row("00:00:00:01.000", JawOpen="1e999")), "line 3, field JawOpen"),
    "a huge weight": (csv_of(GOOD, row("00:00:00:01.000", JawOpen="1e300")), "weights of at most 10 (1 is full strength)"),
    "a huge turn": (csv_of(GOOD, row("00:00:00:01.000", HeadYaw="1e300")), "turns of the head of at most 360 degrees"),
    "a word": (csv_of(row("00:00:00:00.000", HeadYaw="x")), "line 2, field HeadYaw"),
    "a bad timecode": (csv_of(row("0.5")), "line 2, field Timecode: expected HH:MM:SS:FF.mmm, got '0.5'"),
    "a frame too many": (csv_of(row("00:00:00:60.000")), "line 2, field Timecode: expected frames below 60"),
    "time that goes back": (csv_of(row("00:00:01:00"), row("00:00:00:30")), "line 3, field Timecode: expected a later time"),
    "a column twice": (csv_of("00:00:00:00,0,0", header=("Timecode", "JawOpen", "jawopen")), "jawOpen twice"),
    "no shapes": (csv_of("00:00:00:00,0", header=("Timecode", "Other")), "line 1: expected names of ARKit's shapes"),
    "a long line": (csv_of(GOOD, "x" * (LONGEST_LINE + 1)), "line 3: expected at most 65536 bytes"),
    "no text": (csv_of(GOOD) + b"\xff\xfe\n", "line 3: expected text in UTF-8"),
    "an open quote": (csv_of('"00:00:00:00' + GOOD[11:]), "line 2: expected fields between commas"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_CSV)
def test_a_bad_csv_is_named_by_line_and_field(case):
    data, message = BAD_CSV[case]
    with pytest.raises(ExchangeError) as error:
        exchange.read(data)
    assert message in str(error.value)


def test_a_csv_without_end_is_refused_within_bounded_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(live_link_csv, "MOST_FRAMES", 100)
    path = tmp_path / "long.csv"
    path.write_bytes(csv_of(*(row(f"00:00:{n // 60:02d}:{n % 60:02d}") for n in range(200))))
    with pytest.raises(ExchangeError, match=r"long.csv, line 102: expected at most 100 rows"):
        exchange.read(path)


def a2f(**changes):
    found = {
        "exportFps": 30.0, "trackPath": "a.wav", "numPoses": 2, "numFrames": 2, "facsNames": ["browDownL", "jawOpen"],
        "weightMat": [[0.1, 0.2], [0.3, 0.4]],
    }  # fmt: skip
    return json.dumps({k: v for k, v in (found | changes).items() if v is not None}).encode()


def test_audio2face_reads_by_name_and_writes_arkits_names(tmp_path):
    track = exchange.read(a2f())
    np.testing.assert_allclose(weight(track, "browDownLeft"), [0.1, 0.3])
    np.testing.assert_allclose(weight(track, "jawOpen"), [0.2, 0.4])
    audio2face.write_json(track, tmp_path / "x.json", "voice.wav")
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["facsNames"] == [*ARKIT_NAMES] and found["numPoses"] == 52 and found["numFrames"] == 2
    assert found["exportFps"] == 30.0 and found["trackPath"] == "voice.wav"


def test_the_client_of_audio2face_with_tongue_shapes_of_version_2():
    track = exchange.read(b",timeCode,blendShapes.EyeBlinkLeft,blendShapes.TongueTipUp\n0,0.0,0.5,0.9\n1,0.0333,0.25,0.9\n")
    np.testing.assert_allclose(weight(track, "eyeBlinkLeft"), [0.5, 0.25])
    np.testing.assert_allclose(track.times, [0.0, 0.0333])


BAD_JSON = {
    "cut": (a2f()[:-20], "expected JSON"),
    "deep": (b'{"weightMat":' + b"[" * 100_000, "expected JSON"),
    "a list": (b"[1]", "got another file"),
    "no rate": (a2f(exportFps=None), "expected exportFps as int or float, got nothing"),
    "a number without end": (b'{"exportFps": ' + 5000 * b"9" + b"}", "value has 5000 digits; export it again"),
    "per cent": (a2f(weightMat=[[10, 20], [30, 40]]), "weights of at most 10 (1 is full strength), got 40 in frame 1"),
    "no rows": (a2f(weightMat=[], numFrames=0), "expected 1 to"),
    "a short row": (a2f(weightMat=[[0.1, 0.2], [0.3]]), "weightMat row 1: expected 2 numbers, got 1"),
    "not a number": (a2f(weightMat=[[0.1, 0.2], [0.3, None]]), "weightMat row 1, jawOpen: expected a finite number"),
    "NaN": (a2f(weightMat=[[0.1, 0.2], [0.3, float("nan")]]), "weightMat row 1, jawOpen: expected a finite number"),
    "fewer frames than told": (a2f(numFrames=3), "expected numFrames 2, as there are, got 3"),
    "no rate above 0": (a2f(exportFps=0), "expected exportFps in (0, 1000]"),
    "names that are none": (a2f(facsNames=["a", 1]), "expected facsNames as texts"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_JSON)
def test_a_bad_json_is_named_by_key(case):
    data, message = BAD_JSON[case]
    with pytest.raises(ExchangeError) as error:
        exchange.read(data)
    assert message in str(error.value)


def test_talkinghead_reaches_a_value_at_the_sum_of_its_steps():
    track = exchange.read(json.dumps({"name": "x", "dt": [100, 50], "vs": {"jawOpen": [0.5, 1], "handLeft": [1, 2]}}).encode())
    np.testing.assert_allclose(track.times, [0.1, 0.15])
    np.testing.assert_allclose(weight(track, "jawOpen"), [0.5, 1.0])


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"dt": [40], "vs": {"jawOpen": [1, 2]}}, "vs.jawOpen: expected 1 numbers, as dt, got 2"),
        ({"dt": [40, -50], "vs": {"jawOpen": [1, 2]}}, "expected times that rise"),
        ({"dt": [0, 1e300], "vs": {"jawOpen": [1, 2]}}, "a length of at most 86400 seconds"),
        ({"dt": [40], "vs": {"jawOpen": [None]}}, "vs.jawOpen[0]: expected a finite number"),
        ({"dt": [], "vs": {"jawOpen": []}}, "steps in dt"), ({"vs": {}}, "expected dt as list, got nothing"),
    ],
)  # fmt: skip
def test_a_bad_animation_of_talkinghead(found, message):
    with pytest.raises(ExchangeError) as error:
        talkinghead.read(json.dumps(found).encode())
    assert message in str(error.value)


@pytest.mark.parametrize("suffix", [".gltf", ".glb"])
def test_gltf_has_the_animation_by_the_names_of_its_targets(suffix, tmp_path):
    gltf.write(track_of(5), tmp_path / f"x{suffix}")
    raw = (tmp_path / f"x{suffix}").read_bytes()
    if suffix == ".glb":
        magic, version, length = struct.unpack_from("<3I", raw)
        assert (magic, version, length) == (0x46546C67, 2, len(raw))
        raw = raw[20 : 20 + struct.unpack_from("<I", raw, 12)[0]]
    found = json.loads(raw)
    (channel,) = found["animations"][0]["channels"]
    assert channel["target"]["path"] == "weights"
    sampler = found["animations"][0]["samplers"][channel["sampler"]]
    times, values = (found["accessors"][sampler[key]] for key in ("input", "output"))
    assert times["type"] == values["type"] == "SCALAR" and times["componentType"] == values["componentType"] == 5126
    assert (times["count"], times["min"], times["max"]) == (5, [0.0], [pytest.approx(4 / 30)])
    assert values["count"] == 5 * 52
    mesh = found["meshes"][found["nodes"][channel["target"]["node"]]["mesh"]]
    assert mesh["extras"]["targetNames"] == [*ARKIT_NAMES] and len(mesh["primitives"][0]["targets"]) == 52


def edited_gltf(tmp_path, edit):
    gltf.write(track_of(4), tmp_path / "x.gltf")
    found = json.loads((tmp_path / "x.gltf").read_text())
    edit(found)
    (tmp_path / "x.gltf").write_text(json.dumps(found))
    return tmp_path / "x.gltf"


def test_gltf_of_other_tools_quantised_cubic_and_with_a_file_beside(tmp_path):
    """As Blender and gltfpack write: weights as normalised bytes in a file of its own, with tangents."""
    table = np.zeros((2, 3, 3), np.uint8)  # frames, (in-tangent, value, out-tangent), targets
    table[0, 1], table[1, 1] = (0, 255, 51), (255, 0, 102)
    data = np.array([0.0, 0.5], "<f4").tobytes() + table.tobytes()
    (tmp_path / "x.bin").write_bytes(data)

    def edit(found):
        found["meshes"][0]["extras"]["targetNames"] = ["other", "JawOpen", "browInnerUp"]
        found["animations"][0]["samplers"][0]["interpolation"] = "CUBICSPLINE"
        found["accessors"][0] |= {"count": 2}
        found["accessors"][1] |= {"count": 18, "componentType": 5121, "normalized": True}
        found["bufferViews"][:2] = [
            {"buffer": 0, "byteLength": 8}, {"buffer": 0, "byteOffset": 8, "byteLength": 18}
        ]  # fmt: skip
        found["buffers"][0] = {"byteLength": len(data), "uri": "x.bin"}

    track = exchange.read(edited_gltf(tmp_path, edit))
    np.testing.assert_allclose(weight(track, "jawOpen"), [1.0, 0.0])
    np.testing.assert_allclose(weight(track, "browInnerUp"), [0.2, 0.4])
    np.testing.assert_allclose(track.times, [0.0, 0.5])


BAD_GLTF = {
    "version 1": (lambda g: g["asset"].update(version="1.0"), "expected glTF 2.0"),
    "no animation": (lambda g: g.update(animations=[]), "expected an animation of morph targets"),
    "no names": (lambda g: g["meshes"][0].pop("extras"), "expected an animation of morph targets"),
    "a view beyond its buffer": (lambda g: g["accessors"][1].update(count=10**9), "inside of its buffer"),
    "a negative offset": (lambda g: g["bufferViews"][1].update(byteOffset=-4), "inside of its buffer"),
    "integers": (lambda g: g["accessors"][1].update(componentType=5125), "expected plain scalars"),
    "a node that is none": (lambda g: g["animations"][0]["channels"][0]["target"].update(node=7), "expected nodes[7]"),
    "a sampler that is none": (lambda g: g["animations"][0]["channels"][0].update(sampler=7), "expected the sampler"),
    "data that is none": (lambda g: g["buffers"][0].update(uri="data:,%%"), "expected base64"),
    "a file elsewhere": (lambda g: g["buffers"][0].update(uri="../secret.bin"), "inside of the file or in a file beside it"),
    "a file of the network": (lambda g: g["buffers"][0].update(uri="http://x/y"), "inside of the file or in a file beside it"),
    "fewer weights": (lambda g: g["accessors"][1].update(count=52), "expected 4 x 52 weights, got 52"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_GLTF)
def test_a_bad_gltf_is_refused(case, tmp_path):
    edit, message = BAD_GLTF[case]
    path = edited_gltf(tmp_path, edit)
    with pytest.raises(ExchangeError) as error:
        exchange.read(path, "gltf")
    assert message in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize("name", exchange.FORMATS)
@settings(max_examples=60, deadline=None)
@given(data=st.binary(min_size=1, max_size=200), at=st.floats(0, 1), seed=st.integers(0, 9))
def test_no_damage_to_a_file_makes_anything_but_a_typed_error(name, data, at, seed, tmp_path_factory):
    """Random bytes in place of a part of a good file."""
    path = tmp_path_factory.mktemp("face") / f"face{SUFFIXES[name]}"
    exchange.write(track_of(3, seed), path, name)
    good = path.read_bytes()
    place = int(at * len(good))
    for damaged in (good[:place] + data + good[place + len(data) :], good[:place], data):
        try:
            track = exchange.read(damaged, name)
        except ExchangeError as error:
            assert "expected" in str(error)
        else:
            assert np.isfinite(track.weights).all()


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "missing" / "x.csv"
    with pytest.raises(OutputError, match="cannot be written"):
        exchange.write(track_of(3), path)
    exchange.write(track_of(3), tmp_path / "x.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["x.csv"]  # no part of a file stays


@pytest.mark.parametrize("given_path", ["none.csv", "."])
def test_a_file_that_is_none_is_named(given_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExchangeError, match=r"none\.csv|folder"):
        exchange.read(given_path)


def test_other_names_and_suffixes_are_refused(tmp_path):
    with pytest.raises(ExchangeError, match="expected a file name that ends in"):
        exchange.write(track_of(3), tmp_path / "x.fbx")
    with pytest.raises(ValueError, match="expected a format of"):
        exchange.write(track_of(3), tmp_path / "x.csv", "fbx")


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("EyeBlinkLeft", "eyeBlinkLeft"), ("blendShapes.EyeBlinkLeft", "eyeBlinkLeft"), ("eyeBlink_L", "eyeBlinkLeft"),
        ("browDownR", "browDownRight"), ("MOUTH_SMILE_RIGHT", "mouthSmileRight"), (" jawOpen ", "jawOpen"),
        ("jawL", None), ("TongueTipUp", None), ("", None),
    ],
)  # fmt: skip
def test_names_as_tools_spell_them(spelling, name):
    assert shape_of(spelling) == (None if name is None else ARKIT_NAMES.index(name))
