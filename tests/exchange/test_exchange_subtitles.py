"""Subtitles: cues of words, as WebVTT, SubRip and JSON."""

import json

from ditto.exchange.subtitles import Word, cues_of, write_json, write_subrip, write_webvtt

WORDS = [Word("a", 0, 0.5, 0.7), Word("<b>", 0, 0.7, 1.0), Word("c", 1, 61.25, 62.0)]


def test_a_line_of_the_text_begins_a_cue_and_cues_have_two_lines_at_most():
    assert [(cue.text, cue.start, cue.end) for cue in cues_of(WORDS)] == [("a <b>", 0.5, 1.0), ("c", 61.25, 62.0)]
    cues = list(cues_of([Word("abcdefghi", 0, n, n + 1.0) for n in range(20)]))
    assert [len(cue.text.split()) for cue in cues] == [8, 8, 4]
    assert all(len(line) <= 42 for cue in cues for line in cue.text.split("\n"))
    assert [cue.start for cue in cues] == [0, 8, 16]


def test_the_files_are_as_players_take_them(tmp_path):
    write_webvtt(WORDS, tmp_path / "a.vtt")
    assert (tmp_path / "a.vtt").read_text() == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:01.000\na &lt;b&gt;\n\n00:01:01.250 --> 00:01:02.000\nc\n"
    )
    write_subrip(WORDS, tmp_path / "a.srt")
    assert (tmp_path / "a.srt").read_text() == (
        "1\n00:00:00,500 --> 00:00:01,000\na <b>\n\n2\n00:01:01,250 --> 00:01:02,000\nc\n"
    )
    write_json(WORDS, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())["words"][2] == {"word": "c", "start": 61.25, "end": 62.0}
