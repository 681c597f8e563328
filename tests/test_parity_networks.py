"""The full-size networks against recorded outputs of the released ones, under weights that both can make."""

import gc

import pytest

torch = pytest.importorskip("torch", reason="the full-size networks need torch (pip install ditto[full])")

from fixtures.reference.recipe import Recorded, manifest, weights  # noqa: E402

from ditto.models.stitching import (  # noqa: E402
    EYE_RETARGETING,
    LIP_RETARGETING,
    STITCHING,
    RetargetingNetwork,
    StitchingNetwork,
)

FORWARD = 1e-4  # relative: float32 in another order of summation
NETWORKS = {
    "stitching_network": lambda: StitchingNetwork(STITCHING),
    "retarget_eye": lambda: RetargetingNetwork(EYE_RETARGETING),
    "retarget_lip": lambda: RetargetingNetwork(LIP_RETARGETING),
}


def build(name):
    """The network under the recipe's weights, loaded strictly."""
    network = NETWORKS[name]()
    state = network.state_dict()
    given = {key: torch.from_numpy(value) for key, value in weights(name).items()}
    tables = {entry["name"]: state[entry["name"]] for entry in manifest(name) if entry["kind"] == "table"}
    network.load_state_dict(given | tables)
    return network.eval()


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield
    gc.collect()


@pytest.mark.parametrize("name", NETWORKS)
def test_names_and_shapes_are_the_published_ones(name):
    with torch.device("meta"):
        state = NETWORKS[name]().state_dict()
    found = {key: (list(value.shape), str(value.dtype).removeprefix("torch.")) for key, value in state.items()}
    assert found == {entry["name"]: (entry["shape"], entry["dtype"]) for entry in manifest(name)}


def test_stitching():
    recorded, network = Recorded("stitching_network"), build("stitching_network")
    for case in ("case0", "case1"):
        source, driving = (torch.from_numpy(recorded[f"{case}/kp_{side}"]) for side in ("source", "driving"))
        assert recorded.error(f"{case}/out", network(source, driving)) <= FORWARD


@pytest.mark.parametrize("name", ["retarget_eye", "retarget_lip"])
def test_retargeting(name):
    recorded = Recorded(name)
    assert recorded.error("out", build(name)(torch.from_numpy(recorded["x"]))) <= FORWARD
