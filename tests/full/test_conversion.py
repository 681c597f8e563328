"""Published checkpoints to a bundle, at sizes a test can afford; once, marked slow, at full size."""

import errno
import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fixtures.reference.recipe import Recorded, manifest
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="reading checkpoints needs torch (pip install ditto[full])")

from checkpoints import HUBERT, RECORDED, SETTINGS, TINY, config_json, convert_tiny, publish, publish_full_size  # noqa: E402

from ditto.app.cli import app  # noqa: E402
from ditto.bundle import Bundle, examine, seal  # noqa: E402
from ditto.errors import BundleError, InputError, OutputError  # noqa: E402
from ditto.full.conversion import convert  # noqa: E402
from ditto.full.conversion.hubert import weights_file  # noqa: E402
from ditto.full.conversion.published import HUBERT_ONNX, PUBLISHED, find_first  # noqa: E402
from ditto.full.conversion.settings import released_settings  # noqa: E402
from ditto.full.networks.hubert import Hubert, HubertConfig  # noqa: E402
from ditto.full.networks.loading import build, load_part  # noqa: E402
from ditto.full.networks.weights import specs_of  # noqa: E402

MODELS = Path("ditto_pytorch/models")
DECODER, WARP, LMDM = MODELS / "decoder.pth", MODELS / "warp_network.pth", MODELS / "lmdm_v0.4_hubert.pth"
APPEARANCE, STITCH = MODELS / "appearance_extractor.pth", MODELS / "stitch_network.pth"
SPEECH = Path("hubert-large-ls960-ft")
OFFLINE = Path("ditto_cfg/v0.4_hubert_cfg_pytorch.pkl")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The tiny published folder, never changed, and the networks in it."""
    folder = tmp_path_factory.mktemp("published")
    return SimpleNamespace(folder=folder, networks=publish(folder))


@pytest.fixture
def folder(published, tmp_path):
    """A copy of it to spoil."""
    return Path(shutil.copytree(published.folder, tmp_path / "checkpoints"))


@pytest.fixture(scope="module")
def bundle(published, tmp_path_factory):
    return convert_tiny(published.folder, tmp_path_factory.mktemp("bundles") / "full")


def change(file, edit):
    """Rewrite a torch file."""
    loaded = torch.load(file, weights_only=True)
    torch.save(edit(loaded) or loaded, file)


def refused(folder, *match, error=BundleError):
    """The message with which a folder is refused; nothing is left beside it."""
    target = folder.parent / "full"
    with pytest.raises(error) as raised:
        convert_tiny(folder, target)
    assert [path.name for path in folder.parent.iterdir() if "full" in path.name] == []
    for text in match:
        assert text in str(raised.value)
    return str(raised.value)


def test_every_network_comes_out_as_it_went_in(published, bundle):
    bundle.verify()
    assert list(bundle.parts) == [
        "encoder", "motion", "appearance", "motion_extractor", "warping", "decoder", "stitching", "eye_retargeting",
        "lip_retargeting", "settings",
    ]  # fmt: skip
    for name, network in published.networks.items():
        loaded = load_part(bundle.part(name))
        found, expected = loaded.state_dict(), network.state_dict()
        assert not loaded.training
        shared = found.keys() & expected.keys()
        assert len(shared) > len(found) / 2, "the decoder's spectral norms are folded, the rest is by the same name"
        assert all(torch.equal(found[key], expected[key]) for key in shared), name


def test_networks_of_a_bundle_compute_the_same(published, bundle):
    samples = torch.randn(1, 6480)
    assert torch.equal(load_part(bundle.part("encoder"))(samples), published.networks["encoder"](samples))
    feature = torch.randn(1, 16, 8, 8)
    found, expected = load_part(bundle.part("decoder"))(feature), published.networks["decoder"](feature)
    assert torch.allclose(found, expected, atol=1e-6)  # the norm is divided out before instead of at every call


def test_verify_is_green(bundle):
    checks = list(examine(bundle))
    assert len(checks) == 10
    assert all(check.ok for check in checks), [check.detail for check in checks if not check.ok]
    motion = next(check.detail for check in checks if check.part == "motion")
    assert motion.endswith("61 tensors, no NaN, all of lmdm, one forward is finite")


def test_settings_keep_their_values_and_arrays(bundle):
    offline = released_settings(bundle.part("settings"), "offline")
    expected = SETTINGS["default_kwargs"]
    for key in ("overlap_v2", "online_mode", "fix_kp_cond_dim", "overall_ctrl_info", "smo_k_d"):
        assert offline[key] == expected[key]
    assert np.array_equal(offline["emo"], expected["emo"])
    assert np.array_equal(offline["v_min_max_for_clip"], expected["v_min_max_for_clip"])
    assert np.array_equal(offline["ch_info"]["x_s_info_lst"][0]["kp"], np.ones((1, 63)))
    online = released_settings(bundle.part("settings"), "online")
    assert (online["overlap_v2"], online["online_mode"]) == (70, True)
    with pytest.raises(BundleError, match=r"expected settings 'other' .* got offline, online"):
        released_settings(bundle.part("settings"), "other")


def test_settings_may_be_json(folder, bundle):
    described = {"default_kwargs": {"overlap_v2": 12, "emo": [[0.5] * 8, [0.25] * 8], "fix_kp_cond_dim": [0, 202]}}
    (folder / OFFLINE).unlink()
    (folder / OFFLINE).with_suffix(".json").write_text(json.dumps(described))
    found = released_settings(convert_tiny(folder, folder.parent / "full").part("settings"), "offline")
    assert found["overlap_v2"] == 12
    assert found["fix_kp_cond_dim"] == [0, 202]
    assert np.array_equal(found["emo"], described["default_kwargs"]["emo"])


def test_without_settings_a_bundle_has_none(folder, caplog):
    shutil.rmtree(folder / "ditto_cfg")
    assert "settings" not in convert_tiny(folder, folder.parent / "full").parts
    assert "no settings" in caplog.text


def test_prefixes_wrappers_and_half_precision_are_seen_through(published, folder, caplog):
    change(folder / DECODER, lambda state: {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}})
    change(folder / APPEARANCE, lambda state: {k: v.half() if v.is_floating_point() else v for k, v in state.items()})
    change(folder / WARP, lambda state: OrderedDict((f"_orig_mod.module.{k}", v.double()) for k, v in state.items()))
    change(folder / WARP, lambda state: {k: v.long() if "num_batches" in k else v for k, v in state.items()})
    made = convert_tiny(folder, folder.parent / "full")
    assert all(check.ok for check in examine(made))
    found = load_part(made.part("appearance")).state_dict()["first.conv.weight"]
    expected = published.networks["appearance"].state_dict()["first.conv.weight"]
    assert found.dtype == torch.float32
    assert torch.equal(found, expected.half().float())
    assert "appearance_extractor.pth is in half precision" in caplog.text


def test_files_of_the_old_torch_format_are_read(published, folder):
    state = torch.load(folder / WARP, weights_only=True)
    torch.save(state, folder / WARP, _use_new_zipfile_serialization=False)
    found = load_part(convert_tiny(folder, folder.parent / "full").part("warping")).state_dict()
    assert all(torch.equal(found[key], value) for key, value in published.networks["warping"].state_dict().items())


def test_live_portrait_s_names_are_known(folder):
    for old, new in (
        ("appearance_extractor", "appearance_feature_extractor"), ("warp_network", "warping_module"),
        ("decoder", "spade_generator"), ("stitch_network", "stitching_retargeting_module"),
    ):  # fmt: skip
        (folder / MODELS / f"{old}.pth").rename(folder / MODELS / f"{new}.pth")
    convert_tiny(folder, folder.parent / "full").verify()


def test_retargeting_is_not_needed(folder):
    change(folder / STITCH, lambda state: {"retarget_shoulder": state["retarget_shoulder"]})
    parts = convert_tiny(folder, folder.parent / "full").parts
    assert "stitching" in parts
    assert "eye_retargeting" not in parts


def export(network, file):
    """The network as the released HuBERT is exported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (torch.zeros(1, 6480),), str(file), dynamo=False, opset_version=17,
            input_names=["input_values"], output_names=["encoding_out"],
        )  # fmt: skip


def test_hubert_comes_out_of_the_released_graph(published, folder):
    pytest.importorskip("onnx", reason="exporting a graph needs onnx")
    shutil.rmtree(folder / SPEECH)
    file = folder / "ditto_pytorch" / "aux_models" / "hubert_streaming_fix_kv.onnx"
    file.parent.mkdir()
    export(published.networks["encoder"], file)
    part = convert_tiny(folder, folder.parent / "full").part("encoder")
    assert part.file("onnx").read_bytes() == file.read_bytes(), "the graph itself goes along"
    samples = torch.randn(1, 6480)
    found, expected = load_part(part)(samples), published.networks["encoder"](samples)
    assert torch.allclose(found, expected, atol=1e-5)  # the weight norm is multiplied out and taken apart again
    file.write_bytes(file.read_bytes()[: -len(file.read_bytes()) // 3])
    shutil.rmtree(folder.parent / "full")
    refused(folder, "hubert_streaming_fix_kv.onnx", "expected a complete ONNX file")
    file.write_bytes(b"\x00" * 50)
    refused(folder, "ONNX file", "hubert_streaming_fix_kv.onnx")
    torch.save(published.networks["motion"].state_dict(), file)
    refused(folder, "ONNX file", "hubert_streaming_fix_kv.onnx")


def test_a_graph_of_something_else_is_refused(folder):
    pytest.importorskip("onnx", reason="exporting a graph needs onnx")
    shutil.rmtree(folder / SPEECH)
    torch.manual_seed(0)
    export(torch.nn.Sequential(torch.nn.Unflatten(1, (1, -1)), torch.nn.Conv1d(1, 2, 3)), folder / "hubert.onnx")
    refused(folder, "hubert.onnx", "expected HuBERT's feature_projection.layer_norm.bias")
    (folder / "hubert.onnx").unlink()
    smaller = Hubert(HUBERT.__class__(**{**vars(HUBERT), "layers": 1})).eval()
    for parameter in smaller.parameters():
        torch.nn.init.normal_(parameter)
    export(smaller, folder / "hubert.onnx")
    refused(folder, "got none for encoder.layers.1.", "give the weights with --hubert")


def test_hubert_may_be_safetensors_and_elsewhere(published, folder, tmp_path):
    from safetensors.torch import save_file

    elsewhere = tmp_path / "speech"
    (folder / SPEECH).rename(elsewhere)
    state = torch.load(elsewhere / "pytorch_model.bin", weights_only=True)
    (elsewhere / "pytorch_model.bin").unlink()
    save_file({key: value.bfloat16() for key, value in state.items()}, elsewhere / "model.safetensors")
    refused(folder, "expected a HuBERT in", "--hubert")
    made = convert_tiny(folder, tmp_path / "full", hubert=elsewhere)
    found = load_part(made.part("encoder")).state_dict()["encoder.layer_norm.bias"]
    assert torch.equal(found, published.networks["encoder"].state_dict()["encoder.layer_norm.bias"].bfloat16().float())
    file = elsewhere / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    shutil.rmtree(tmp_path / "full")
    with pytest.raises(BundleError, match=r"expected a complete safetensors file, got .*model\.safetensors"):
        convert_tiny(folder, tmp_path / "full", hubert=elsewhere)
    file.unlink()
    with pytest.raises(
        BundleError, match=r"expected model\.safetensors or pytorch_model\.bin beside config\.json, got"
    ):
        convert_tiny(folder, tmp_path / "full", hubert=elsewhere)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"do_stable_layer_norm": False}, "expected do_stable_layer_norm True, got False"),
        ({"feat_extract_norm": "group"}, "expected feat_extract_norm 'layer', got 'group'"),
        ({"model_type": "wav2vec2"}, "expected a HuBERT in"),
        ({"conv_dim": []}, "expected the config.json of a published HuBERT, got IndexError"),
    ],
)
def test_a_hubert_of_another_kind_is_refused(folder, fields, message):
    configs = {part: config for part, config in TINY.items() if part != "encoder"}
    (folder / SPEECH / "config.json").write_text(json.dumps(config_json(HUBERT) | fields))
    with pytest.raises(BundleError) as raised:
        convert_tiny(folder, folder.parent / "full", configs=configs)
    assert message in str(raised.value)


def test_a_hubert_of_another_width_is_refused(published, tmp_path):
    configs = {part: config for part, config in TINY.items() if part != "motion"}
    with pytest.raises(BundleError, match="features of 1024 numbers, got 64"):
        convert_tiny(published.folder, tmp_path / "full", configs=configs)


def test_missing_files_are_all_named(folder):
    (folder / DECODER).unlink()
    (folder / WARP).rename(folder / MODELS / "warp.pth")
    text = refused(folder, "expected warp_network.pth or warping_module.pth, decoder.pth or spade_generator.pth in")
    assert "warp.pth" in text.partition("got the .pth files")[2]


def test_a_folder_of_engines_alone_is_told_apart(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in ("decoder.onnx", "warp_network_fp16.engine"):
        (tmp_path / "checkpoints" / name).write_bytes(b"x")
    refused(tmp_path / "checkpoints", "got .engine and .onnx files, which cannot be converted", "ditto_pytorch/models")


def test_the_same_name_twice_is_ambiguous(folder):
    shutil.copytree(folder / MODELS, folder / "old")
    refused(folder, f"got {folder / LMDM} and {folder / 'old' / 'lmdm_v0.4_hubert.pth'}; move all but the right one")


def test_a_truncated_file_is_named(folder):
    data = (folder / DECODER).read_bytes()
    (folder / DECODER).write_bytes(data[: len(data) // 2])
    refused(folder, "decoder.pth", "expected a complete torch file", f"({len(data) // 2:,} bytes)")
    (folder / DECODER).write_bytes(b"")
    refused(folder, "decoder.pth (0 bytes)")


def test_a_flipped_bit_is_found_by_the_checksum_in_the_file(folder):
    with zipfile.ZipFile(folder / WARP) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    data = bytearray((folder / WARP).read_bytes())
    data[largest.header_offset + largest.file_size // 2] ^= 0x40
    (folder / WARP).write_bytes(data)
    refused(folder, "warp_network.pth: expected right checksums", largest.filename)


def test_swapped_files_are_told(folder):
    decoder, warp = (folder / DECODER).read_bytes(), (folder / WARP).read_bytes()
    (folder / DECODER).write_bytes(warp)
    (folder / WARP).write_bytes(decoder)
    refused(
        folder,
        "warp_network.pth: expected the network 'warping', got 'decoder' (decoder.pth or spade_generator.pth); files",
    )


def test_missing_extra_and_other_entries_are_named_with_what_was_expected(folder):
    def spoil(state):
        del state["fc.bias"]
        state["fc.gain"] = torch.zeros(3)
        state["fc.weight"] = state["fc.weight"][:5]

    change(folder / DECODER, spoil)
    refused(
        folder, "decoder.pth does not fit its network", "it lacks fc.bias (float32 (32,))",
        "the network has no fc.gain (float32 (3,))",
        "it differs in fc.weight (expected float32 (32, 16, 3, 3), got float32 (5, 16, 3, 3))",
    )  # fmt: skip


def test_another_type_of_number_is_refused(folder):
    change(folder / DECODER, lambda state: state.update({"fc.bias": state["fc.bias"].int()}))
    refused(folder, "fc.bias (expected float32 (32,), got int32 (32,))")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_weights_that_are_no_numbers_are_refused(folder, value):
    def spoil(state):
        state["fc.bias"] = state["fc.bias"].double()
        state["fc.bias"][3] = value

    change(folder / DECODER, spoil)
    refused(folder, "decoder.pth: fc.bias holds 1 numbers of 32 that are NaN or infinite")


def spoil(name, value):
    """An edit of a state dict: one tensor, the first whose name ends so, is filled with a value."""

    def edit(state):
        key = next(key for key in state if key.endswith(name))
        state[key] = torch.full_like(state[key], value)

    return edit


@pytest.mark.parametrize(
    ("file", "edit", "text"),
    [
        (DECODER, spoil("weight_u", 0.0), ("weight_u are zero",)),
        (DECODER, spoil("weight_v", 0.0), ("weight_v are zero",)),
        (DECODER, spoil("weight_orig", 0.0), ("weight_orig are zero",)),
        (DECODER, spoil("fc.weight", 0.0), ("numbers of fc.weight are zero",)),
        (DECODER, spoil("fc.weight", 3e38), ("layer fc (its tensors: fc.weight, fc.bias)",)),
        (DECODER, spoil("fc.bias", float("-inf")), ("fc.bias holds 32 numbers of 32 that are NaN or infinite",)),
        (APPEARANCE, spoil("running_var", -0.5), ("running_var holds", "below zero, but it is a variance")),
        (WARP, spoil("running_var", -1e-3), ("running_var holds", "below zero")),
        (WARP, spoil("running_mean", float("nan")), ("running_mean holds", "NaN or infinite")),
        (LMDM, spoil("weight", 0.0), ("weight are zero",)),
        (
            MODELS / "motion_extractor.pth",
            spoil("gamma", 3e38),
            ("expected finite numbers from one small forward", "grn"),
        ),
        (SPEECH / "pytorch_model.bin", spoil("conv.weight_g", 0.0), ("original0 are zero",)),
        (
            SPEECH / "pytorch_model.bin",
            spoil("final_layer_norm.weight", float("nan")),
            ("final_layer_norm.weight holds",),
        ),
    ],
)
def test_values_that_no_training_leaves_are_refused_by_name(folder, file, edit, text):
    change(folder / file, lambda state: edit(state.get("model_state_dict", state)))
    refused(folder, str(folder / file), *text)


def test_a_slice_of_weights_without_a_norm_is_found_by_the_forward(folder):
    def edit(state):
        key = next(key for key in state if key.endswith("weight_v") and "pos_conv" in key)
        state[key][..., 3] = 0.0  # its norm is what the layer divides by

    change(folder / SPEECH / "pytorch_model.bin", edit)
    refused(folder, "expected finite numbers from one small forward", "pos_conv", "original1")


@pytest.mark.parametrize("kind", [torch.int32, torch.int64, torch.bool, torch.complex64, torch.uint8])
def test_weights_of_another_type_are_refused_by_name(folder, kind):
    change(folder / DECODER, lambda state: {**state, "fc.weight": state["fc.weight"].to(kind)})
    refused(folder, f"it differs in fc.weight (expected float32 (32, 16, 3, 3), got {str(kind).removeprefix('torch.')}")


def test_weights_without_numbers_are_refused_by_name(folder):
    change(folder / DECODER, lambda state: {**state, "fc.weight": torch.zeros(0, 16, 3, 3)})
    refused(folder, "it differs in fc.weight (expected float32 (32, 16, 3, 3), got float32 (0, 16, 3, 3))")


def test_networks_exchanged_inside_one_file_are_told_as_that(folder):
    def edit(state):
        state["retarget_shoulder"], state["retarget_eye"] = state["retarget_eye"], state["retarget_shoulder"]

    change(folder / STITCH, edit)
    text = refused(
        folder, f"{folder / STITCH}: expected the network 'stitching' under 'retarget_shoulder', got 'eye_retargeting', "
        "which belongs under 'retarget_eye'; the file has its networks swapped"
    )  # fmt: skip
    assert "give each its own name" not in text


def test_what_has_the_name_of_a_file_and_is_none_is_told_as_what_it_is(folder):
    (folder / DECODER).rename(folder / "kept")
    (folder / DECODER).mkdir()
    text = refused(folder, f"expected decoder.pth to be a file, {folder / DECODER} is a folder")
    assert "lacks" not in text
    (folder / DECODER).rmdir()
    (folder / DECODER).symlink_to("nowhere.pth")
    text = refused(folder, f"{folder / DECODER} is a link to nowhere.pth, which does not exist")
    assert "lacks" not in text
    (folder / DECODER).unlink()
    (folder / DECODER).symlink_to(folder / "kept")  # a link to the file is as good
    (folder / "again").mkdir()
    (folder / "again" / "decoder.pth").symlink_to(folder / "kept")  # and a second one to the same is no other file
    convert_tiny(folder, folder.parent / "full").verify()
    with pytest.raises(InputError, match="link is a link to nowhere, which does not exist"):
        (folder / "link").symlink_to("nowhere")
        convert(folder / "link", folder.parent / "other")


def test_two_files_for_one_network_are_both_named(folder):
    shutil.copy(folder / DECODER, folder / "spade_generator.pth")
    refused(folder, f"got {folder / DECODER} and {folder / 'spade_generator.pth'}")
    (folder / "spade_generator.pth").unlink()
    shutil.copytree(folder / SPEECH, folder / "z_hubert")
    refused(folder, f"expected one HuBERT in {folder}, got {folder / SPEECH} and {folder / 'z_hubert'}")
    shutil.rmtree(folder / "z_hubert")
    (folder / OFFLINE).with_suffix(".json").write_text('{"default_kwargs": {}}')
    refused(folder, f"got {(folder / OFFLINE).with_suffix('.json')} and {folder / OFFLINE}")


def test_of_two_released_huberts_the_streaming_one_is_taken_and_told(tmp_path, caplog):
    for name in ("hubert.onnx", "hubert_streaming_fix_kv.onnx"):  # the published folder has both
        (tmp_path / name).write_bytes(b"x")
    assert find_first(tmp_path, HUBERT_ONNX) == tmp_path / "hubert_streaming_fix_kv.onnx"
    assert caplog.messages == [
        f"using {tmp_path / 'hubert_streaming_fix_kv.onnx'}, ignoring {tmp_path / 'hubert.onnx'}"
    ]
    caplog.clear()
    for name in ("pytorch_model.bin", "model.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    assert weights_file(tmp_path) == tmp_path / "model.safetensors"
    assert caplog.messages == [f"using {tmp_path / 'model.safetensors'}, ignoring pytorch_model.bin"]


def test_a_file_that_may_not_be_read_is_not_called_damaged(folder, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(torch, "load", refuse)
    refused(folder, "got: Permission denied; check its permissions")


@pytest.mark.parametrize("content", [b"", b'{"model_type": "hubert", ', b"\xff\xfe", b"[" * 100_000])
def test_a_broken_config_of_a_hubert_is_broken_and_not_missing(folder, content):
    file = folder / SPEECH / "config.json"
    file.write_bytes(content)
    text = refused(folder, f"{file}: expected JSON, got: ")
    assert "lacks" not in text
    with pytest.raises(BundleError, match="expected JSON, got: "):
        convert(folder, folder.parent / "full", hubert=folder / SPEECH)


def test_what_stands_in_the_place_of_a_hubert_is_named(folder):
    file = folder / SPEECH / "config.json"
    file.write_text('{"model_type": "bert"}')
    refused(folder, "expected a HuBERT in", f"{file} with model_type 'bert'")
    file.unlink()
    with pytest.raises(BundleError, match=r"expected a config\.json, .*config\.json does not exist"):
        convert(folder, folder.parent / "full", hubert=folder / SPEECH)
    file.write_text(json.dumps(config_json(HUBERT)))
    (folder / SPEECH / "pytorch_model.bin").unlink()
    (folder / SPEECH / "model.safetensors").mkdir()
    refused(folder, "model.safetensors is a folder and", "pytorch_model.bin does not exist")


@pytest.mark.parametrize("fields", [{"hidden_size": "wide"}, {"num_attention_heads": 0}, {"conv_dim": [-3] * 7}])
def test_sizes_that_no_hubert_can_have_are_refused(folder, fields):
    configs = {part: config for part, config in TINY.items() if part != "encoder"}
    (folder / SPEECH / "config.json").write_text(json.dumps(config_json(HUBERT) | fields))
    with pytest.raises(BundleError, match=r"config\.json"):
        convert_tiny(folder, folder.parent / "full", configs=configs)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_settings_are_read_as_any_numpy_has_pickled_them(folder, protocol):
    data = pickle.dumps(SETTINGS, protocol=protocol)
    if protocol < 4:  # names are in plain text without their length
        other = b"numpy._core." if b"numpy.core." in data else b"numpy.core."
        data = data.replace(b"numpy._core." if other == b"numpy.core." else b"numpy.core.", other)
    (folder / OFFLINE).write_bytes(data)
    part = convert_tiny(folder, folder.parent / "full").part("settings")
    assert np.array_equal(released_settings(part, "offline")["emo"], SETTINGS["default_kwargs"]["emo"])


def test_a_bundle_that_is_there_stays_unless_it_may_go(published, bundle, tmp_path):
    copy = Path(shutil.copytree(bundle.path, tmp_path / "full"))
    before = (copy / "bundle.json").stat().st_mtime_ns
    with pytest.raises(InputError, match="which is a bundle; give another path"):
        convert_tiny(published.folder, copy)
    assert (copy / "bundle.json").stat().st_mtime_ns == before
    convert_tiny(published.folder, copy, replace=True).verify()
    assert (copy / "bundle.json").stat().st_mtime_ns != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match=r"a file or folder without bundle\.json"):
        convert_tiny(published.folder, tmp_path / "mine", replace=True)


def test_a_bundle_that_cannot_be_replaced_stays(published, bundle, tmp_path, monkeypatch):
    copy, rename = Path(shutil.copytree(bundle.path, tmp_path / "full")), os.rename

    def refuse(old, new):
        if Path(old).suffix == ".part":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(old, new)

    monkeypatch.setattr("ditto.full.conversion.bundling.os.rename", refuse)
    with pytest.raises(OutputError, match="expected to write the bundle to"):
        convert_tiny(published.folder, copy, replace=True)
    Bundle.open(copy).verify()
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


@pytest.mark.parametrize("name", ["missing", "checkpoints/hubert-large-ls960-ft/config.json"])
def test_what_is_no_folder_is_the_caller_s_mistake(folder, name):
    with pytest.raises(
        InputError, match=r"expected a folder of published checkpoints, .* (does not exist|is a file); check"
    ):
        convert(folder.parent / name, folder.parent / "full")


def test_too_little_space_is_told_before_anything_is_written(folder, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    refused(folder, "got 0.00 GB; choose another place with -o", error=OutputError)


def test_a_disk_that_fills_up_leaves_nothing(folder, monkeypatch):
    def full(path, *rest):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    refused(folder, "no space left on the disk; nothing was kept", error=OutputError)


def test_an_interruption_leaves_nothing(folder):
    def stop(text):
        if text == "warping: writing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_tiny(folder, folder.parent / "full", report=stop)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["checkpoints"]


def rewrite(bundle, tmp_path, edit):
    """A copy of the bundle whose decoder weights are edited and sealed anew."""
    from safetensors.torch import load_file, save_file

    copy = Path(shutil.copytree(bundle.path, tmp_path / "full"))
    file = copy / "decoder.safetensors"
    tensors = {key: value.clone() for key, value in load_file(file).items()}
    edit(tensors)
    save_file(tensors, file)
    seal(copy)
    return Bundle.open(copy)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.update({"fc.bias": t["fc.bias"].half()}), "fc.bias (expected float32 (32,), got float16 (32,))"),
        (lambda t: t.pop("fc.bias"), "it lacks fc.bias (float32 (32,))"),
        (lambda t: t.update({"fc.gain": torch.zeros(3)}), "the network has no fc.gain (float32 (3,))"),
        (lambda t: t["fc.bias"].fill_(float("nan")), "fc.bias holds 32 numbers of 32 that are NaN or infinite"),
        (lambda t: t["fc.bias"][3:5].fill_(float("inf")), "fc.bias holds 2 numbers of 32 that are NaN or infinite"),
        (lambda t: t["fc.weight"].zero_(), "all 4608 numbers of fc.weight are zero"),
        (lambda t: t["G_middle_0.conv_0.weight_u"].zero_(), "all 32 numbers of G_middle_0.conv_0.weight_u are zero"),
        (
            lambda t: t["fc.weight"].fill_(3e38),
            "expected finite numbers from one small forward, got NaN or infinity, first",
        ),
    ],
)
def test_verify_and_load_name_what_is_wrong_with_a_resealed_bundle(bundle, tmp_path, edit, message):
    spoilt = rewrite(bundle, tmp_path, edit)
    wrong = [check for check in examine(spoilt) if not check.ok]
    assert [check.file for check in wrong] == ["decoder.safetensors"]
    assert message in wrong[0].detail
    if "float32" in message:
        with pytest.raises(BundleError) as raised:
            load_part(spoilt.part("decoder"))
        assert message in str(raised.value)
        assert "decoder.safetensors" in str(raised.value)


def test_verify_says_what_it_cannot_do_without_torch(bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "ditto.full.networks.loading", None)
    check = next(check for check in examine(bundle) if check.part == "motion")
    assert check.ok
    assert check.detail.endswith("no NaN, shapes not compared (needs torch)")


def test_a_part_that_is_no_network_is_refused(bundle, tmp_path):
    with pytest.raises(BundleError, match=r"expected a model of hubert, lmdm, .* got 'released_settings'"):
        load_part(bundle.part("settings"))
    copy = Path(shutil.copytree(bundle.path, tmp_path / "full"))
    file = copy / "bundle.json"
    described = json.loads(file.read_text())
    described["parts"]["decoder"]["config"]["colour"] = "red"
    file.write_text(json.dumps(described))
    with pytest.raises(BundleError, match=r"part 'decoder': expected keys .* unknown: colour"):
        load_part(Bundle.open(copy).part("decoder"))


@pytest.mark.parametrize("huge", [10**6, 10**9, 10**30])
def test_sizes_that_the_weights_do_not_have_are_refused_and_take_no_memory(bundle, tmp_path, huge):
    copy = Path(shutil.copytree(bundle.path, tmp_path / "full"))
    text = (copy / "bundle.json").read_text()
    for name in ("encoder", "motion", "motion_extractor", "warping", "decoder", "stitching"):
        for size in json.loads(text)["parts"][name]["config"]:
            described = json.loads(text)
            config = described["parts"][name]["config"]
            config[size] = [huge] * len(config[size]) if isinstance(config[size], list) else huge
            (copy / "bundle.json").write_text(json.dumps(described))
            with pytest.raises(BundleError):
                load_part(Bundle.open(copy).part(name))


def test_what_is_written_is_what_safetensors_reads(bundle):
    from safetensors.torch import load_file

    for file in bundle.path.glob("*.safetensors"):
        data = file.read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        assert length % 8 == 0
        assert load_file(file)


@pytest.fixture
def run(monkeypatch):
    """`ditto bundle ...` with a converter that knows the tiny sizes."""
    monkeypatch.setattr("ditto.full.conversion.convert", convert_tiny)
    return lambda *arguments: CliRunner().invoke(app, ["bundle", *map(str, arguments)])


def test_the_command_writes_a_bundle_and_checks_it(published, tmp_path, run):
    done = run("convert", "--from", published.folder, "-o", tmp_path / "full")
    assert done.exit_code == 0, done.stderr
    assert "full: all 10 files passed" in done.stdout.replace("\n", " ")
    report = json.loads(run("verify", tmp_path / "full", "--json").stdout)
    assert report["ok"] is True
    assert "motion.safetensors" in report["files"]
    file = tmp_path / "full" / "motion.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    done = run("verify", tmp_path / "full")
    assert done.exit_code == 1
    assert "no  motion" in done.stdout
    assert "expected SHA-256" in done.stderr and "motion.safetensors" in done.stderr


def test_the_command_tells_what_is_wrong_in_one_line(folder, run):
    (folder / DECODER).write_bytes(b"not torch")
    done = run("convert", "--from", folder, "-o", folder.parent / "full")
    assert done.exit_code == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "decoder.pth (9 bytes); get it again" in done.stderr
    assert run("convert", "--from", folder / "nowhere").exit_code == 2


def test_parts_are_those_with_recorded_outputs():
    sizes = {n.part: (n.model, n.config) for n in PUBLISHED} | {"encoder": ("hubert", HubertConfig())}
    assert sizes.keys() == RECORDED.keys()
    for part, name in RECORDED.items():
        expected = {entry["name"]: (tuple(entry["shape"]), entry["dtype"]) for entry in manifest(name)}
        assert specs_of(build(*sizes[part])) == expected


TELL_LARGEST = """
import atexit, sys
from ditto.app.cli import main
atexit.register(lambda: print(open("/proc/self/status").read(), file=sys.stderr))
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="how much memory a process took is read as Linux tells it")
def test_the_published_sizes_go_through_in_less_memory_than_they_take(tmp_path):
    """2 GB in and 2 GB out. What is mapped from a file counts here, so holding it once more would not fit."""
    publish_full_size(tmp_path / "checkpoints")
    command = [sys.executable, "-c", TELL_LARGEST, "bundle", "convert", "--json"]
    command += ["--from", str(tmp_path / "checkpoints"), "-o", str(tmp_path / "full")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert json.loads(done.stdout)["ok"] is True
    bundle = Bundle.open(tmp_path / "full")
    assert sum(1 for check in examine(bundle) if check.ok) == len(RECORDED)
    largest = int(re.search(r"VmHWM:\s+(\d+) kB", done.stderr)[1]) * 1024
    assert largest < sum(file.stat().st_size for file in bundle.path.iterdir())
    stitching = load_part(bundle.part("stitching"))
    recorded = Recorded("stitching_network")
    source, driving = (torch.from_numpy(recorded[f"case0/kp_{side}"]) for side in ("source", "driving"))
    assert recorded.error("case0/out", stitching(source, driving)) <= 1e-4
