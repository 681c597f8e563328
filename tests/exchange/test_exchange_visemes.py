"""Oculus visemes: from phones, as JSON and as WebVTT."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ditto.errors import ExchangeError
from ditto.exchange.visemes import (
    OCULUS_VISEMES,
    VISEME_OF_PHONE,
    Viseme,
    read_json,
    read_webvtt,
    visemes_of_phones,
    write_json,
    write_webvtt,
)
from ditto.lite.phones import PHONES

SAID = [Viseme("sil", 0.0, 0.5), Viseme("PP", 0.5, 0.62), Viseme("aa", 0.62, 3725.9), Viseme("sil", 3725.9, 3726.0)]
WAYS = {"json": (write_json, read_json), "vtt": (write_webvtt, read_webvtt)}


def probabilities_of(*phones):
    """A token of each phone, none sure."""
    p = np.full((len(phones), len(PHONES)), 0.2 / len(PHONES))
    for n, phone in enumerate(phones):
        p[n, PHONES.index(phone)] += 0.8
    return p


def test_there_are_the_fifteen_visemes_and_every_phone_has_one():
    assert OCULUS_VISEMES == ("sil", "PP", "FF", "TH", "DD", "kk", "CH", "SS", "nn", "RR", "aa", "E", "I", "O", "U")
    assert {VISEME_OF_PHONE[phone] for phone in PHONES} == set(OCULUS_VISEMES)


def test_phones_become_visemes_without_gaps():
    phones = ["SIL"] * 5 + ["P"] * 3 + ["AA"] * 4 + ["AE"] * 2 + ["S"] * 4 + ["SIL"] * 2
    found = visemes_of_phones(probabilities_of(*phones), PHONES)
    assert [v.name for v in found] == ["sil", "PP", "aa", "SS", "sil"]
    np.testing.assert_allclose([v.start for v in found], [0.0, 0.1, 0.16, 0.28, 0.36])
    np.testing.assert_allclose([v.end for v in found], [0.1, 0.16, 0.28, 0.36, 0.4])


def test_phones_of_one_viseme_count_together():
    p = np.full((1, len(PHONES)), 0.0)
    p[0, [PHONES.index(x) for x in ("P", "B", "M")]] = 0.2
    p[0, PHONES.index("AA")] = 0.4
    assert visemes_of_phones(p, PHONES)[0].name == "PP"


def test_a_viseme_of_one_token_belongs_to_the_one_before():
    found = visemes_of_phones(probabilities_of(*["AA"] * 4, "S", *["AA"] * 4, *["P"] * 2), PHONES)
    assert [(v.name, v.start, v.end) for v in found] == [("aa", 0.0, 0.18), ("PP", 0.18, 0.22)]


@pytest.mark.parametrize("way", WAYS)
def test_visemes_come_back(way, tmp_path):
    write, read = WAYS[way]
    write(SAID, tmp_path / "x")
    for back in (read(tmp_path / "x"), read((tmp_path / "x").read_bytes())):
        assert [v.name for v in back] == [v.name for v in SAID]
        np.testing.assert_allclose([v[1:] for v in back], [v[1:] for v in SAID], atol=6e-4)  # thousandths of a second


def test_webvtt_is_as_browsers_take_it(tmp_path):
    write_webvtt(SAID[:2], tmp_path / "x.vtt")
    assert (tmp_path / "x.vtt").read_text() == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:00.500\nsil\n\n00:00:00.500 --> 00:00:00.620\nPP\n"
    )


def test_webvtt_of_other_tools_with_names_notes_and_settings():
    text = "WEBVTT visemes\n\nNOTE made\n\n1\n00:00.100 --> 00:00.200 align:start\nPP\n\n00:00.200 --> 00:01.000\naa\n"
    assert read_webvtt(text.encode()) == [Viseme("PP", 0.1, 0.2), Viseme("aa", 0.2, 1.0)]


@pytest.mark.parametrize(
    ("way", "text", "message"),
    [
        ("vtt", "hello", "line 1: expected WEBVTT"), ("vtt", "WEBVTT\n\n", "expected 1 to 1000000 visemes, got 0"),
        ("vtt", "WEBVTT\n\n00:00.1 --> 00:00.200\nPP", "line 3: expected 00:00.000 --> 00:00.000"),
        ("vtt", "WEBVTT\n\n00:00.100 --> 00:00.200\nhello", "line 4: expected a viseme of sil, PP"),
        ("vtt", "WEBVTT\n\n00:00.300 --> 00:00.200\nPP", "line 4: expected times that rise"),
        ("json", "[]", "expected a JSON object"), ("json", "{}", "expected visemes as list, got nothing"),
        ("json", '{"visemes": []}', "got 0"), ("json", '{"visemes": [1]}', "visemes[0]: expected an object"),
        ("json", '{"visemes": [{"viseme": "PP", "start": 0}]}', "visemes[0].end: expected a finite number"),
        ("json", '{"visemes": [{"viseme": "pp", "start": 0, "end": 1}]}', "visemes[0]: expected a viseme"),
        ("json", '{"visemes": [{"viseme": "PP", "start": NaN, "end": 1}]}', "visemes[0].start: expected a finite number"),
    ],
)  # fmt: skip
def test_bad_visemes_are_named_by_place(way, text, message):
    with pytest.raises(ExchangeError) as error:
        WAYS[way][1](text.encode())
    assert message in str(error.value)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([*WAYS]), st.binary(min_size=1, max_size=120), st.floats(0, 1))
def test_no_damage_makes_anything_but_a_typed_error(way, data, at):
    good = b"WEBVTT\n\n00:00.100 --> 00:00.200\nPP\n" if way == "vtt" else json.dumps(
        {"visemes": [{"viseme": "PP", "start": 0.0, "end": 0.1}]}
    ).encode()  # fmt: skip
    place = int(at * len(good))
    try:
        WAYS[way][1](good[:place] + data + good[place + len(data) :])
    except ExchangeError:
        pass


def test_other_probabilities_are_refused():
    with pytest.raises(ValueError, match=r"expected probabilities \(N, 40\)"):
        visemes_of_phones(np.zeros((2, 39)), PHONES)
    with pytest.raises(ValueError, match="expected phones of ARPAbet, got XX"):
        visemes_of_phones(np.zeros((1, 1)), ["XX"])
