"""The motion map: complete, in the order of the numbers, and true of the mesh."""

import re
from pathlib import Path

import numpy as np
import pytest

from ditto.controls import CATALOG
from ditto.full.space import FullSpace
from ditto.lite.rendering.deform import BASIS_KEYPOINTS, displace, load_basis
from ditto.motion.map import FACE_UNITS_PER_CANONICAL, FULL_MAP, HARDLY, LITE_MAP, MAPS, NOTHING, TERMS, UNKNOWN
from ditto.motion.motion import EXPRESSION, IRISES, KEYPOINTS, UPPER_LIDS, Keypoint
from ditto.motion.regions import REGIONS
from ditto.motion.space import LITE_SPACE
from ditto.portrait.face_mesh import SELECTOR

ROOT = Path(__file__).parents[2]
STATISTICS = ROOT.parent / "shared" / "data" / "models" / "liveportrait_motion_stats.npz"
BOTH = pytest.mark.parametrize("face_map", [LITE_MAP, FULL_MAP], ids=["lite", "full"])


def test_each_space_has_its_map():
    assert {space.name: space.map for space in (LITE_SPACE, FullSpace)} == MAPS


@BOTH
def test_every_number_has_a_name_of_the_catalog_a_region_and_words(face_map):
    assert [d.number for d in face_map] == list(range(3 * KEYPOINTS))
    assert set(face_map.roles) == set(Keypoint)
    for dimension in face_map:
        assert CATALOG[dimension.name].unit == dimension.unit
        assert face_map.by_name[dimension.name] is dimension
        assert dimension.region in REGIONS
        assert dimension.minus and dimension.plus
        assert dimension.safe_low < 0.0 < dimension.safe_high


@pytest.mark.parametrize("space", [LITE_SPACE, FullSpace], ids=["lite", "full"])
def test_a_number_belongs_to_the_region_that_it_is_listed_in(space):
    for dimension in space.map:
        assert space.regions[dimension.region][EXPRESSION.start + dimension.number] == 1.0


@BOTH
def test_a_relation_corrects_its_own_measure_and_none_before_it(face_map):
    relations = face_map.relations
    for i, later in enumerate(relations):
        assert len(later.form) <= TERMS
        assert later.least < later.low < 0.0 < later.high < later.most
        for earlier in relations[: i + 1]:
            effect = sum(weight * later.move.get(number, 0.0) for number, weight in earlier.form.items())
            assert effect == pytest.approx(float(earlier is later), abs=1e-12), (earlier.name, later.name)


def test_no_relation_joins_two_wholes():
    for relation in LITE_MAP.relations:
        points = {Keypoint(number // 3) for number in relation.form}
        assert sum(bool(points & set(whole.keypoints)) for whole in LITE_MAP.wholes) == 1


def test_measures_are_all_numbers_then_all_relations():
    face = np.random.default_rng(0).normal(0, 0.02, (5, 63))
    measures = LITE_MAP.measures(face)
    np.testing.assert_array_equal(measures[:, :63], face)
    for i, relation in enumerate(LITE_MAP.relations):
        np.testing.assert_allclose(measures[:, 63 + i], relation.measure(face), atol=1e-15)


def test_a_lite_number_moves_its_own_part_of_the_mesh_where_the_map_says():
    basis = load_basis(ROOT / "ditto" / "bundles" / "lite" / "renderer.safetensors")
    outwards = {"right": -1.0, "left": 1.0}
    for dimension in LITE_MAP:
        keypoint, axis = dimension.keypoint, dimension.axis
        if keypoint not in BASIS_KEYPOINTS or axis == 2:
            continue  # the mesh hardly learned depth: clips show little of it
        delta = np.zeros((KEYPOINTS, 3))
        delta[keypoint, axis] = dimension.safe_high
        moved = (SELECTOR @ displace(basis, delta))[:, :2] / dimension.safe_high
        assert moved[keypoint, axis] > 0.5, dimension.name
        others = np.abs(np.delete(moved, [keypoint, *IRISES], 0))
        assert others.max() < moved[keypoint, axis], dimension.name
        if axis == 1 and keypoint not in UPPER_LIDS:
            assert re.search(r"\bup\b", dimension.minus) and re.search(r"\bdown\b", dimension.plus), dimension.name
        if axis == 0 and "outwards" in dimension.minus + dimension.plus:
            side = outwards[keypoint.name.split("_")[0].lower()]
            assert "outwards" in (dimension.plus if side > 0 else dimension.minus), dimension.name


def test_the_words_of_both_sides_mirror_each_other():
    for dimension in LITE_MAP:
        if not dimension.name.startswith("right_") or dimension.keypoint == Keypoint.RIGHT_IRIS:
            continue
        other = LITE_MAP.by_name[dimension.name.replace("right_", "left_")]
        words = (other.plus, other.minus) if dimension.axis == 0 else (other.minus, other.plus)
        assert tuple(word.replace("left ", "right ") for word in words) == (dimension.minus, dimension.plus)
        low, high = (-other.safe_high, -other.safe_low) if dimension.axis == 0 else (other.safe_low, other.safe_high)
        assert (low, high) == pytest.approx((dimension.safe_low, dimension.safe_high))


def test_what_does_nothing_is_said_to():
    nothing = {d.name for d in LITE_MAP if d.plus == NOTHING}
    assert nothing == {"neck.x", "neck.y", "neck.z", "right_iris.z", "left_iris.z"}
    assert {d.name for d in LITE_MAP if d.plus == HARDLY} == {
        "lower_lids.x", "lower_lids.z", "right_upper_lid.z", "left_upper_lid.z"
    }  # fmt: skip


def test_full_names_what_is_known_of_it():
    known = {d.number for d in FULL_MAP if (d.minus, d.plus) != (UNKNOWN, UNKNOWN)}
    assert {58, 33, 45, 34, 46} <= known
    assert "jaw opens" in FULL_MAP.by_name["chin.y"].plus and FULL_MAP.by_name["chin.y"].number == 58
    assert "close" in FULL_MAP.by_name["right_iris.y"].plus and "looks to the right" in FULL_MAP.by_name["left_iris.x"].plus
    unknown = (Keypoint.FOREHEAD, Keypoint.NOSE_TIP, Keypoint.GLABELLA, Keypoint.RIGHT_JAW, Keypoint.LOWER_LIDS)
    assert all(FULL_MAP.roles[k].moves == UNKNOWN for k in unknown)


@pytest.mark.skipif(not STATISTICS.exists(), reason="needs ../shared/data")
def test_full_ranges_hold_what_the_published_templates_do():
    with np.load(STATISTICS) as numbers:
        low, high = ((numbers[end] - numbers["mean"]) * FACE_UNITS_PER_CANONICAL for end in ("min", "max"))
    assert (FULL_MAP.low <= low + 1e-4).all() and (FULL_MAP.high >= high - 1e-4).all()
