"""Opening the lite bundle: the config of its part `postprocess`, and weights that make no sense."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from drawn import drawn_portrait
from safetensors.numpy import load_file, save_file

import ditto
from ditto.bundle import SHIPPED, seal
from ditto.errors import BundleError


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return Path(shutil.copytree(SHIPPED / "lite", tmp_path_factory.mktemp("bundles") / "lite"))


def rewritten(copy, **changes):
    """The copy with changes to the config of `postprocess`; None takes a key out."""
    described = json.loads((SHIPPED / "lite" / "bundle.json").read_text())
    config = described["parts"]["postprocess"]["config"] | changes
    described["parts"]["postprocess"]["config"] = {key: value for key, value in config.items() if value is not None}
    (copy / "bundle.json").write_text(json.dumps(described))
    return copy


@pytest.mark.parametrize("value", [0.0, -1.5, True, "1.5", [1.5], float("inf"), float("nan"), 1e9])
def test_a_bad_value_in_the_postprocess_config_is_refused(copy, value):
    with pytest.raises(BundleError, match="part 'postprocess', config: expected slow_smoothing_frames "):
        ditto.load(rewritten(copy, slow_smoothing_frames=value))


def test_a_missing_key_in_the_postprocess_config_is_refused(copy):
    with pytest.raises(BundleError, match=r"part 'postprocess', config: .*missing: target_gap;"):
        ditto.load(rewritten(copy, target_gap=None))


def test_an_unknown_key_in_the_postprocess_config_is_refused(copy):
    with pytest.raises(BundleError, match=r"part 'postprocess', config: .*unknown: gap, missing: none;"):
        ditto.load(rewritten(copy, gap=0.1))


def test_finite_weights_that_are_absurd_give_no_pictures(tmp_path):
    copy = Path(shutil.copytree(SHIPPED / "lite", tmp_path / "lite"))
    file = copy / "motion.safetensors"
    weights = load_file(file)
    save_file({name: array * np.float32(1e38) if name == "sampler.scale" else array for name, array in weights.items()}, file)
    seal(copy)
    head = ditto.load(copy)
    with pytest.raises(BundleError, match=r"expected numbers up to .* of the bundle's motion network, got NaN or larger"):
        list(head.animate(drawn_portrait(64), np.zeros(16000, np.float32)))


def test_the_config_as_shipped_is_accepted(copy):
    assert ditto.load(rewritten(copy)).performer.supports
