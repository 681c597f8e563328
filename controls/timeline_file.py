"""Timeline files: YAML or JSON, read without running anything, and written back (docs/timeline.md).

Of YAML, only what JSON has too is read: no tags, anchors, aliases, or second document. Numbers and truth values are those of
YAML's core schema, so `no` and `1:30` are texts.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ditto.controls.catalog import CATALOG, unknown
from ditto.controls.timeline import (
    EASES,
    EVENTS,
    MODES,
    MOST_FACTOR,
    MOST_POINT,
    MOST_SECONDS,
    Event,
    Keyframe,
    KeyframeError,
    Layer,
    Timeline,
    Track,
    as_float,
    fades,
)
from ditto.errors import OutputError, TimelineError
from ditto.media.files import write_file

VERSION = 1
MAX_BYTES = 1 << 20  # of a file: about 30000 keyframes
MAX_DEPTH = 8  # of lists and mappings in each other; a timeline has five
MAX_NAME = 200  # characters
SUFFIXES = (".yaml", ".yml", ".json")
LINE_WIDTH = 100  # characters of keyframes on one line of a written file
TOP = ("timeline", "layers", "events")
LAYER = ("name", "mode", "start", "end", "fade", "controls")
EVENT = ("kind", "at", "until", "point")
# YAML 1.2.2, 10.3.2: the core schema.
CORE = (
    (re.compile(r"null|Null|NULL|~|"), lambda text: None),
    (re.compile(r"true|True|TRUE"), lambda text: True),
    (re.compile(r"false|False|FALSE"), lambda text: False),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
    (re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"), lambda text: float(text.replace(".", ""))),
)


# A character beyond 16 bits, as JSON escapes it: two halves after an even number of backslashes.
SURROGATES = re.compile(r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB]\w\w)\\u([dD][c-fC-F]\w\w)")


class Node(NamedTuple):
    """A value of a file and the line at which it begins, None for one without lines.

    Attributes:
        value: a number, text, truth value, None, a list of nodes, or a dictionary of nodes by key.
    """

    value: Any
    line: int | None = None

    @classmethod
    def of(cls, data: Any) -> Node:
        """The node of plain values, as `json.loads` gives them."""
        if isinstance(data, Mapping):
            return cls({str(key): cls.of(value) for key, value in data.items()})
        if isinstance(data, (list, tuple)):
            return cls([cls.of(value) for value in data])
        return cls(data)

    @property
    def plain(self) -> Any:
        """The value without lines."""
        if isinstance(self.value, dict):
            return {key: node.plain for key, node in self.value.items()}
        return [node.plain for node in self.value] if isinstance(self.value, list) else self.value


def read_timeline(path: str | os.PathLike[str], seconds: float | None = None) -> Timeline:
    """The timeline of a file.

    Args:
        path: of a .json file, or of one with YAML.
        seconds: of the recording that it edits; `math.inf`: not known; None: of none.

    Raises:
        TimelineError: the file is missing or too large; it is no YAML or JSON; it has a tag, an alias, a key twice, a field or
            control that does not exist, a value that a field does not take, keyframes that do not ascend, looks that overlap,
            or something that the recording never shows, as it begins after the end or is over before the beginning.
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = getattr(error, "strerror", None) or error
        raise TimelineError(f"expected a timeline at {file}, got: {reason}; check the name") from None
    if len(data) > MAX_BYTES:
        raise TimelineError(f"expected a timeline of at most {MAX_BYTES >> 10} KiB, {file} is larger; make it smaller")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise TimelineError(f"{file}, line {line}: expected text in UTF-8, got other bytes; save it as UTF-8") from None
    return parse_timeline(text, str(file), seconds, is_json=file.suffix.lower() == ".json")


def parse_timeline(
    text: str, name: str = "the timeline", seconds: float | None = None, is_json: bool = False
) -> Timeline:
    """The timeline of a text. `name` names it in messages; other arguments and errors as of `read_timeline`."""
    if is_json:
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            raise TimelineError(f"{name}, line {error.lineno}: expected JSON, got: {error.msg}; correct it") from None
        except (ValueError, RecursionError) as error:
            reason = str(error).partition(";")[0]  # after it Python advises programmers
            raise TimelineError(f"{name}: expected JSON of a timeline, got: {reason}; correct it") from None
        text = SURROGATES.sub(_as_yaml, text.replace("\t", " "))  # but for these two JSON is YAML
    return _Reader(name).timeline(nodes_of(text, name, "JSON" if is_json else "plain YAML"), seconds)


def _as_yaml(found: re.Match[str]) -> str:
    high, low = int(found[2], 16), int(found[3], 16)
    return f"{found[1]}\\U{0x10000 + ((high - 0xD800) << 10) + low - 0xDC00:08x}"


def timeline_of(data: Any, name: str = "the timeline", seconds: float | None = None) -> Timeline:
    """The timeline of plain values, as `json.loads` gives them. Arguments and errors as of `parse_timeline`."""
    return _Reader(name).timeline(Node.of(data), seconds)


def nodes_of(text: str, name: str, form: str = "plain YAML") -> Node:
    """The one document of a YAML text. `form` says in messages what it should be.

    Raises:
        TimelineError: no YAML, or YAML that JSON does not have: tags, anchors, aliases, further documents, keys that are not
            texts; a key twice; too deep.
    """
    import yaml

    def refuse(event: Any, what: str, advice: str) -> TimelineError:
        return TimelineError(f"{name}, line {event.start_mark.line + 1}: expected {form}, got {what}; {advice}")

    root: list[Node] = []
    open_nodes: list[tuple[Node, list[str]]] = []  # and, of a mapping, the key that waits for its value

    def add(node: Node, event: Any) -> None:
        if not open_nodes:
            root.append(node)
            return
        parent, key = open_nodes[-1]
        if isinstance(parent.value, list):
            parent.value.append(node)
        elif key:
            parent.value[key.pop()] = node
        else:
            if not isinstance(event, yaml.ScalarEvent):
                raise refuse(event, "a list or mapping as a key", "use a text")
            if event.value in parent.value:
                raise refuse(event, f"the key {event.value!r} twice", "leave one out")
            key.append(event.value)

    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            if isinstance(event, yaml.DocumentStartEvent) and root:
                raise refuse(event, "a second document", "keep one")
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
                raise refuse(event, "an anchor or alias", "write the value out")
            if getattr(event, "tag", None) is not None:
                raise refuse(event, f"the tag {event.tag}", "leave it out")
            line = event.start_mark.line + 1
            if isinstance(event, yaml.ScalarEvent):
                add(Node(scalar_of(event.value, plain=event.implicit[0]), line), event)
            elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                node = Node({} if isinstance(event, yaml.MappingStartEvent) else [], line)
                add(node, event)
                if len(open_nodes) == MAX_DEPTH:
                    raise refuse(event, f"more than {MAX_DEPTH} levels", "a timeline has five")
                open_nodes.append((node, []))
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                open_nodes.pop()
    except yaml.YAMLError as error:
        mark, problem = (
            getattr(error, "problem_mark", None),
            getattr(error, "problem", None) or "a character it cannot have",
        )
        where = f"{name}, line {mark.line + 1}" if mark else name
        raise TimelineError(f"{where}: expected {form}, got: {problem}; correct it") from None
    return root[0] if root else Node(None, 1)


def scalar_of(text: str, plain: bool) -> Any:
    """What a scalar of YAML stands for: without quotes (`plain`) maybe a number, a truth value or nothing."""
    for pattern, meaning in CORE if plain else ():
        if pattern.fullmatch(text):
            return meaning(text)
    return text


class _Reader:
    """Makes a timeline of nodes, and remembers the lines of its fields for messages."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lines: dict[str, int | None] = {}

    def timeline(self, node: Node, seconds: float | None) -> Timeline:
        top = self._fields(node, "", TOP, ("timeline",))
        version = top["timeline"].plain
        if version != VERSION or isinstance(version, bool):
            raise self._error("timeline", f"expected version {VERSION}, got {version!r}; write timeline: {VERSION}")
        layers = [self._layer(layer, place) for layer, place in self._items(top.get("layers"), "layers")]
        events = [self._event(event, place) for event, place in self._items(top.get("events"), "events")]
        try:
            timeline = Timeline(tuple(layers), tuple(events))
        except ValueError as error:
            raise self._error("events", str(error)) from None
        if seconds is not None:
            for place, fault in timeline.outside(seconds):
                raise self._error(place, fault)
        return timeline

    def _layer(self, node: Node, place: str) -> Layer:
        given = self._fields(node, place, LAYER, ("controls",))
        tracks = []
        for control, values in self._mapping(given["controls"], f"{place}.controls").items():
            where = f"{place}.controls.{control}"
            self._lines[where] = values.line
            if control not in CATALOG:
                fault = unknown("the name of a control", control, CATALOG, "`ditto controls list` prints all names")
                raise self._error(where, str(fault))
            for n, key in enumerate(values.value if isinstance(values.value, list) else ()):
                self._lines[f"{where}[{n}]"] = key.line
            try:
                tracks.append(Track.of(control, values.plain))
            except KeyframeError as error:
                raise self._error(f"{where}[{error.index}]", str(error)) from None
            except (ValueError, TypeError) as error:
                raise self._error(where, str(error)) from None
        plain = {field: given[field].plain for field in given if field not in ("controls", "fade")}
        for field in ("start", "end"):
            if field in given:
                self._number(given[field], f"{place}.{field}")
        if (name := plain.get("name", "")) != "" and not (isinstance(name, str) and len(name) <= MAX_NAME):
            raise self._error(f"{place}.name", f"expected a text of at most {MAX_NAME} characters, got {_short(name)}")
        try:
            if "fade" in given and given["fade"].plain is None:
                raise TypeError("expected a fade in seconds, or two [in, out], got nothing; write one, or leave it out")
            fade = fades(given["fade"].plain if "fade" in given else None, plain.get("start"), plain.get("end"))
            return Layer(tuple(tracks), fade=fade, **plain)
        except KeyframeError as error:
            raise self._error(f"{place}.controls.{error.control}[{error.index}]", str(error)) from None
        except (ValueError, TypeError) as error:
            raise self._error(place, str(error)) from None

    def _event(self, node: Node, place: str) -> Event:
        given = self._fields(node, place, EVENT, ("kind", "at"))
        for field in ("at", "until"):
            if field in given:
                self._number(given[field], f"{place}.{field}")
        plain = {field: value.plain for field, value in given.items()}
        if "point" in plain:
            point = given["point"].value
            if not isinstance(point, list) or len(point) != 2:
                raise self._error(
                    f"{place}.point", f"expected a point [x, y], got {_short(plain['point'])}; write it so"
                )
            plain["point"] = tuple(self._number(value, f"{place}.point[{n}]") for n, value in enumerate(point))
        try:
            return Event(**plain)
        except (ValueError, TypeError) as error:
            raise self._error(place, str(error)) from None

    def _fields(self, node: Node, place: str, known: Sequence[str], required: Sequence[str]) -> dict[str, Node]:
        """The fields of a mapping by name, known ones only and all that are required."""
        self._lines[place] = node.line
        fields = self._mapping(node, place)
        for key, value in fields.items():
            where = f"{place}.{key}" if place else key
            self._lines[where] = value.line
            if key not in known:
                raise self._error(where, str(unknown("a field of a timeline", key, known)))
        for key in required:
            if key not in fields:
                raise self._error(place, f"expected the field {key}, got {', '.join(fields) or 'none'}; add it")
        return fields

    def _mapping(self, node: Node, place: str) -> dict[str, Node]:
        self._lines.setdefault(place, node.line)
        if not isinstance(node.value, dict):
            raise self._error(
                place, f"expected a mapping of names to values, got {_short(node.plain)}; write name: value"
            )
        return node.value

    def _items(self, node: Node | None, place: str) -> Iterator[tuple[Node, str]]:
        if node is None:
            return
        if not isinstance(node.value, list):
            raise self._error(place, f"expected a list, got {_short(node.plain)}; write one item a line after '- '")
        yield from ((item, f"{place}[{n}]") for n, item in enumerate(node.value))

    def _number(self, node: Node, place: str) -> float:
        self._lines[place] = node.line
        try:
            return as_float("a number", node.value)
        except TypeError:
            raise self._error(place, f"expected a number, got {_short(node.plain)}; give one") from None

    def _error(self, place: str, message: str) -> TimelineError:
        line = self._lines.get(
            place, self._lines.get(re.sub(r"\[\d+\]$", "", place))
        )  # a number that holds has no keyframes
        where = [self._name, *([f"line {line}"] if line is not None else []), *([place] if place else [])]
        return TimelineError(f"{', '.join(where)}: {message}")


def _short(value: object) -> str:
    shown = "nothing" if value is None else repr(value)
    return shown if len(shown) <= 40 else shown[:37] + "..."


def data_of(timeline: Timeline) -> dict[str, Any]:
    """The plain values of a timeline, for JSON; `timeline_of` gives the timeline back."""
    data: dict[str, Any] = {"timeline": VERSION}
    if timeline.layers:
        data["layers"] = [_layer_data(layer) for layer in timeline.layers]
    if timeline.events:
        data["events"] = [_event_data(event) for event in timeline.events]
    return data


def _event_data(event: Event) -> dict[str, Any]:
    data = {field: value for field in EVENT if (value := getattr(event, field)) is not None}
    return data | {"point": list(event.point)} if event.point is not None else data


def _layer_data(layer: Layer) -> dict[str, Any]:
    data: dict[str, Any] = {"name": layer.name} if layer.name else {}
    data["mode"] = layer.mode
    data |= {field: value for field in ("start", "end") if (value := getattr(layer, field)) is not None}
    if layer.start is not None or layer.end is not None:
        data["fade"] = list(layer.fade)
    data["controls"] = {track.name: _track_data(track) for track in layer.tracks}
    return data


def _track_data(track: Track) -> Any:
    if len(track.keyframes) == 1 and track.keyframes[0] == Keyframe(0.0, track.keyframes[0].value):
        return track.keyframes[0].value
    return [[*key[:2]] if key.ease == Keyframe._field_defaults["ease"] else [*key] for key in track.keyframes]


def yaml_of(timeline: Timeline) -> str:
    """The text of a YAML file of a timeline."""
    data = data_of(timeline)
    lines = [f"timeline: {VERSION}"]
    if "layers" in data:
        lines.append("layers:")
    for layer in data.get("layers", ()):
        fields = [f"{field}: {_flow(value)}" for field, value in layer.items() if field != "controls"]
        fields.append("controls:" if layer["controls"] else "controls: {}")
        for control, values in layer["controls"].items():
            on_one = f"  {control}: {_flow(values)}"
            if len(on_one) <= LINE_WIDTH:
                fields.append(on_one)
            else:
                fields += [f"  {control}:", *(f"    - {_flow(key)}" for key in values)]
        lines += [f"  {'- ' if n == 0 else '  '}{field}" for n, field in enumerate(fields)]
    if "events" in data:
        lines.append("events:")
    lines += [
        "  - {" + ", ".join(f"{field}: {_flow(value)}" for field, value in event.items()) + "}"
        for event in data.get("events", ())
    ]
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, str) and re.fullmatch(r"[a-z]+(\.[a-z]+)?", value) and scalar_of(value, plain=True) == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def write_timeline(timeline: Timeline, path: str | os.PathLike[str]) -> None:
    """Write a timeline as .json, .yaml or .yml; the file appears under its name when it is complete.

    Raises:
        OutputError: another suffix, or the file cannot be written there.
    """
    file = Path(path)
    if file.suffix.lower() not in SUFFIXES:
        raise OutputError(
            f"expected a timeline that ends in {', '.join(SUFFIXES)}, got {file.name!r}; choose one of them"
        )
    is_json = file.suffix.lower() == ".json"
    text = json.dumps(data_of(timeline), indent=1) + "\n" if is_json else yaml_of(timeline)
    write_file(file, text.encode())


def timeline_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of timeline files.

    It cannot say that keyframes ascend, that a layer is longer than its fades, that looks do not overlap, and where the
    recording ends; the reader checks those too.
    """
    seconds = {"type": "number", "minimum": -MOST_SECONDS, "maximum": MOST_SECONDS}
    fade = {"type": "number", "minimum": 0, "maximum": MOST_SECONDS}
    share = {"type": "number", "minimum": -MOST_POINT, "maximum": MOST_POINT}
    tracks: dict[str, Any] = {"factors": _track_schema(0.0, MOST_FACTOR)}
    controls = {}
    for name, control in CATALOG.items():
        kind = f"from {control.low:g} to {control.high:g}"
        tracks[kind] = _track_schema(control.low, control.high)
        description = f"{control.unit}; {control.neutral:g} changes nothing"
        controls[name] = {"description": description, "$ref": f"#/$defs/{kind}"}
    factors = {name: {"$ref": "#/$defs/factors"} for name in CATALOG}

    def checked(properties: dict[str, Any]) -> dict[str, Any]:
        return {"properties": {"controls": {"properties": properties, "additionalProperties": False}}}

    multiplies = {"properties": {"mode": {"const": "multiply"}}, "required": ["mode"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ditto timeline",
        "description": "Edits of a talking head over time. Times are in seconds from the beginning of the recording.",
        "type": "object",
        "properties": {
            "timeline": {"const": VERSION, "description": "version of this format"},
            "layers": {"type": "array", "items": {"$ref": "#/$defs/layer"}, "description": "from the lowest up"},
            "events": {"type": "array", "items": {"$ref": "#/$defs/event"}},
        },
        "required": ["timeline"],
        "additionalProperties": False,
        "$defs": {
            "layer": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "maxLength": MAX_NAME},
                    "mode": {"enum": [*MODES], "default": MODES[0]},
                    "start": seconds,
                    "end": seconds,
                    "fade": {
                        "oneOf": [fade, {"type": "array", "items": fade, "minItems": 2, "maxItems": 2}],
                        "description": "seconds, or [in, out]",
                    },
                    "controls": {"type": "object", "description": "a number that holds, or keyframes [seconds, value, ease]"},
                },
                "required": ["controls"],
                "additionalProperties": False,
                "if": multiplies,
                "then": checked(factors),
                "else": checked(controls),
            },
            "event": {
                "type": "object",
                "properties": {
                    "kind": {"enum": [*EVENTS]},
                    "at": seconds,
                    "until": seconds,
                    "point": {
                        "type": "array", "items": share, "minItems": 2, "maxItems": 2,
                        "description": "[x, y] as shares of the picture's width and height, from the left top corner",
                    },
                },
                "required": ["kind", "at"],
                "additionalProperties": False,
                "if": {"properties": {"kind": {"const": "look"}}},
                "then": {"required": ["point"]},
                "else": {"properties": {"until": False, "point": False}},
            },
            **tracks,
        },
    }  # fmt: skip


def _track_schema(low: float, high: float) -> dict[str, Any]:
    value = {"type": "number", "minimum": low, "maximum": high}
    seconds = {"type": "number", "minimum": -MOST_SECONDS, "maximum": MOST_SECONDS}
    keyframe = {"type": "array", "prefixItems": [seconds, value, {"enum": [*EASES]}], "items": False, "minItems": 2}
    return {"oneOf": [value, {"type": "array", "items": keyframe, "minItems": 1}]}
