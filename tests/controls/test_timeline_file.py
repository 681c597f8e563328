"""Timeline files: what is written is read again, the schema and the reader agree, and bad files are refused by line."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ditto.controls
from ditto.controls.catalog import CATALOG
from ditto.controls.timeline import EASES, EVENTS, MODES, MOST_FACTOR, Event, Keyframe, Layer, Timeline, Track
from ditto.controls.timeline_file import (
    MAX_BYTES,
    data_of,
    parse_timeline,
    read_timeline,
    timeline_of,
    timeline_schema,
    write_timeline,
    yaml_of,
)
from ditto.errors import InputError, OutputError, TimelineError

EXAMPLE = """\
timeline: 1
layers:
  - name: one brow, while asking
    start: 1
    end: 2
    controls:
      left_brow.y: -.03
      head.yaw: [[0, 0], [1.5, 8, spring], [2e0, 0]]
  - mode: multiply
    controls: {gain.mouth: 0.5}  # calmer
events:
  - {kind: wink.left, at: 2.5}
  - {kind: look, at: 3, until: 4.5, point: [1.4, .5]}
"""
AS_PYTHON = (
    Timeline()
    .layer(
        {"left_brow.y": -0.03, "head.yaw": [(0, 0), (1.5, 8, "spring"), (2, 0)]},
        start=1,
        end=2,
        name="one brow, while asking",
    )
    .layer({"gain.mouth": 0.5}, mode="multiply")
    .wink("left", at=2.5)
    .look((1.4, 0.5), at=3, until=4.5)
)


def test_the_example_is_what_it_says():
    assert parse_timeline(EXAMPLE) == AS_PYTHON


@st.composite
def timelines(draw):
    seconds = st.floats(-1000, 1000, allow_nan=False)
    layers = []
    for _ in range(draw(st.integers(0, 3))):
        mode, tracks = draw(st.sampled_from(MODES)), []
        for name in draw(st.lists(st.sampled_from(sorted(CATALOG)), max_size=4, unique=True)):
            low, high = (0.0, MOST_FACTOR) if mode == "multiply" else (CATALOG[name].low, CATALOG[name].high)
            times = sorted(draw(st.lists(seconds, min_size=1, max_size=4, unique=True)))
            keys = [Keyframe(t, draw(st.floats(low, high)), draw(st.sampled_from(sorted(EASES)))) for t in times]
            tracks.append(Track(name, tuple(keys)))
        start = draw(st.none() | seconds)
        end = None if start is None else draw(st.none() | st.floats(start + 1, start + 9))
        fade = (0.0 if start is None else draw(st.floats(0, 0.5)), 0.0 if end is None else draw(st.floats(0, 0.5)))
        layers.append(Layer(tuple(tracks), mode, start, end, fade, draw(st.text(max_size=20).filter(str.isprintable))))
    timeline = Timeline(tuple(layers))
    for kind in draw(st.lists(st.sampled_from(EVENTS[:3]), max_size=3)):
        timeline += Timeline(events=(Event(kind, draw(seconds)),))
    if draw(st.booleans()):
        timeline = timeline.look((draw(st.floats(-10, 10)), 0.25), at=1, until=draw(st.none() | st.just(2)))
    return timeline


@settings(max_examples=100, deadline=None, derandomize=True)
@given(timelines())
def test_what_is_written_is_read_again(timeline):
    assert parse_timeline(yaml_of(timeline)) == timeline
    assert parse_timeline(json.dumps(data_of(timeline), indent="\t"), is_json=True) == timeline
    assert timeline_of(data_of(timeline)) == timeline


@pytest.mark.parametrize("name", ["edit.yaml", "edit.yml", "edit.json"])
def test_files_come_back_and_long_tracks_stay_readable(tmp_path, name):
    long = AS_PYTHON.key("head.pitch", *((n / 10, math.sin(n)) for n in range(40)))
    write_timeline(long, tmp_path / name)
    assert read_timeline(tmp_path / name) == long
    assert max(map(len, (tmp_path / name).read_text().splitlines())) < 120
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(OutputError, match=r"ends in .yaml, .yml, .json, got 'edit.txt'"):
        write_timeline(AS_PYTHON, tmp_path / "edit.txt")
    with pytest.raises(OutputError, match="cannot be written"):
        write_timeline(AS_PYTHON, tmp_path / "no" / "edit.yaml")
    assert not list(tmp_path.iterdir())


def mappings(values):
    keys = st.sampled_from(
        [
            "timeline",
            "layers",
            "events",
            "controls",
            "mode",
            "start",
            "end",
            "fade",
            "kind",
            "at",
            "until",
            "point",
            "head.yaw",
        ]
    )
    return st.dictionaries(keys, values, max_size=4)


numbers = st.one_of(st.integers(-50, 50), st.floats(-50, 50), st.just(1e9))
scalars = st.one_of(st.none(), st.booleans(), numbers, st.sampled_from([*MODES, *EASES, *EVENTS, "", "x"]))
anything = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | mappings(inner), max_leaves=12)
keyframes = st.lists(st.lists(anything | numbers, max_size=4) | st.tuples(numbers, numbers), max_size=3)
names = st.sampled_from(["head.yaw", "gain.mouth", "emotion.happy", "style", "head.zoom", "heed.yaw"])
layers = st.fixed_dictionaries(
    {"controls": st.dictionaries(names, numbers | keyframes | anything, max_size=3)},
    optional={
        "mode": st.sampled_from(MODES) | scalars,
        "start": scalars,
        "end": numbers,
        "fade": scalars | st.lists(numbers),
    },
)
events = st.fixed_dictionaries(
    {"kind": st.sampled_from(EVENTS) | scalars, "at": numbers | scalars},
    optional={"until": scalars, "point": st.lists(numbers, max_size=3) | scalars},
)
files = anything | st.fixed_dictionaries(
    {"timeline": st.just(1) | scalars},
    optional={"layers": st.lists(layers | anything, max_size=3), "events": st.lists(events | anything, max_size=2)},
)
BEYOND_THE_SCHEMA = ("ascend in time", "start before its end", "fades no longer", "one look at a time", "to end after")


@settings(max_examples=600, deadline=None, derandomize=True)
@given(files)
def test_the_schema_and_the_reader_agree(data):
    jsonschema = pytest.importorskip("jsonschema")
    fits = jsonschema.Draft202012Validator(timeline_schema()).is_valid(data)
    try:
        timeline_of(data)
    except TimelineError as error:
        assert not fits or any(words in str(error) for words in BEYOND_THE_SCHEMA), error
    else:
        assert fits


def test_the_schema_is_valid_and_takes_what_is_written():
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(timeline_schema())
    jsonschema.validate(data_of(AS_PYTHON), timeline_schema())


def test_the_published_schema_is_that_of_the_reader():
    published = json.loads((Path(ditto.controls.__file__).parent / "timeline.schema.json").read_text())
    assert published == timeline_schema(), "run: ditto controls schema > controls/timeline.schema.json"


HEAD = "timeline: 1\nlayers:\n  - controls:\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: expected a mapping"),
        ("[1, 2]", "line 1: expected a mapping"),
        ("layers: []", "line 1: expected the field timeline, got layers"),
        ("timeline: 2", "line 1, timeline: expected version 1"),
        ("timeline: true", "line 1, timeline: expected version 1"),
        ("timeline: 1\nlayers: &a\n  - *a", "line 2: expected plain YAML, got an anchor or alias"),
        ("timeline: 1\nlayers: *a", "line 2: expected plain YAML, got an anchor or alias"),
        ("timeline: 1\nlayers: !!python/object/apply:os.system [ls]", "line 2: .*the tag tag:yaml.org"),
        ("timeline: !!int 1", "line 1: .*the tag"),
        ("timeline: 1\nevents: []\ntimeline: 1", "line 3: .*the key 'timeline' twice"),
        ("timeline: 1\n---\ntimeline: 1", "line 2: .*a second document"),
        ("timeline: 1\n[a]: 1", "line 2: "),
        ("timeline: 1\nlayers: " + 12 * "[" + 12 * "]", "line 2: .*more than 8 levels"),
        ("timeline: 1\nlayers: [", "expected plain YAML, got"),
        ("timeline: 1\nname: \x07", "a character it cannot have"),
        ("timeline: 1\nlayers:\n", "line 2, layers: expected a list, got nothing"),
        ("timeline: 1\nlayers:\n  - {contrls: {}}", r"line 3, layers\[0\].contrls: .*did you mean controls"),
        (HEAD + "      heed.yaw: 3", r"line 4, layers\[0\].controls.heed.yaw: .*did you mean head.yaw"),
        (HEAD + "      head.yaw: yes", r"line 4, layers\[0\].controls.head.yaw: expected a number or a list"),
        (HEAD + "      head.yaw: true", r"line 4, layers\[0\].controls.head.yaw: .*to be a number, got True"),
        (HEAD + "      head.yaw:", r"line 4, .*expected a number or a list of keyframes for head.yaw, got nothing"),
        (HEAD + "      head.yaw: .nan", r"line 4, .*a finite number, got nan"),
        (HEAD + "      head.yaw: -.inf", r"line 4, .*a finite number, got -inf"),
        (HEAD + "      head.yaw:\n        - [1, 2]\n        - [0, 3]", r"line 6, layers\[0\].controls.head.yaw\[1\]: .*scend"),
        (HEAD + "      head.yaw:\n        - [1, 2]\n        - [2, 99]", r"line 6, layers\[0\].controls.head.yaw\[1\]: .* 45"),
        (HEAD + "      head.yaw:\n        - [1, 2]\n        - [3, 1:30]", r"line 6, .*to be a number, got '1:30'"),
        (HEAD + "      head.yaw: []", "at least one keyframe"),
        (HEAD + "      head.yaw: 1\n    mode: mix", r"layers\[0\]: .*add, replace, multiply"),
        (HEAD + "      head.yaw: 1\n    start: soon", r"line 5, layers\[0\].start: expected a number, got 'soon'"),
        (HEAD + "      head.yaw: 1\n    fade:\n", "a fade in seconds, or two"),
        (HEAD + "      head.yaw: 1\n    fade: .nan", r"layers\[0\]: expected a fade in \[0, 86400\], got nan"),
        (HEAD + '      head.yaw: 1\n    name: "a\\nb"', r"layers\[0\]: expected a printable name"),
        (HEAD + "      head.yaw: 1\n    name: [1]", r"line 5, layers\[0\].name: expected a text"),
        ("timeline: 1\nevents:\n  - {kind: nod, at: 1}", r"line 3, events\[0\]: .*blink, wink.right, wink.left, look"),
        ("timeline: 1\nevents:\n  - {kind: look, at: 1}", r"line 3, events\[0\]: expected a point"),
        ("timeline: 1\nevents:\n  - {kind: look, at: 1, point: 3}", r"line 3, events\[0\].point: expected a point \[x, y\]"),
        ("timeline: 1\nevents:\n  - {kind: blink}", r"line 3, events\[0\]: expected the field at"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_by_line_and_field(text, words):
    with pytest.raises(TimelineError, match=words):
        parse_timeline(text, "edit.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{'timeline': 1}", "line 1: expected JSON"),
        ('{"timeline": 1,\n}', "line 1: expected JSON|line 2: expected JSON"),
        ('{"timeline": 1, "timeline": 1}', "line 1: expected JSON, got the key 'timeline' twice"),
        ('{"timeline": ' + 9 * "[" + 9 * "]" + "}", "line 1: expected JSON, got more than 8 levels"),
        ('{"timeline": "a\x7f"}', "expected JSON, got: "),
        ('{"timeline": 1,\n\t"layers": [{"controls": {"head.yaw": NaN}}]}', "line 2, .*a number or a list.*, got 'NaN'"),
        ('{"timeline": ' + 5000 * "9" + "}", "value has 5000 digits; correct it"),
        ("[" * 100000, "expected JSON|levels"),
    ],
)
def test_json_is_json_alone(text, words):
    with pytest.raises(TimelineError, match=words):
        parse_timeline(text, "edit.json", is_json=True)


def test_names_of_any_script_come_back(tmp_path):
    timeline = AS_PYTHON.layer({"style": 0.5}, name='Braue "hoch" \\ 眉 🙂')
    for name in ("edit.yaml", "edit.json"):
        write_timeline(timeline, tmp_path / name)
        assert read_timeline(tmp_path / name) == timeline


def test_what_begins_after_the_end_is_refused_by_line():
    assert parse_timeline(EXAMPLE, seconds=5.0) == AS_PYTHON
    with pytest.raises(TimelineError, match=r"edit.yaml, line 12, events\[0\].at: .*ends at 2.00 s, got 2.5 s"):
        parse_timeline(EXAMPLE, "edit.yaml", seconds=2.0)


@pytest.mark.parametrize("seconds", [2.0, math.inf])
def test_what_is_over_before_the_beginning_is_refused_by_line(seconds):
    with pytest.raises(TimelineError, match=r"edit.yaml, line 3, events\[0\].at: .*begins at 0 s, got -3 s; move it"):
        parse_timeline("timeline: 1\nevents:\n  - {kind: blink, at: -3}", "edit.yaml", seconds)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b" " * (MAX_BYTES + 1), "at most 1024 KiB"),
        (b"timeline: 1\nevents: \xff", "line 2: expected text in UTF-8"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_no_text_is_refused(tmp_path, content, words):
    if content is not None:
        (tmp_path / "edit.yaml").write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_timeline(tmp_path / "edit.yaml")
