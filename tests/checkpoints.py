"""A folder as Ditto's checkpoints are published: of networks small enough for a test, or of the published sizes."""

import json
import pickle
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from engine_networks import HUBERT
from engine_networks import PARTS as TINY
from fixtures.reference.recipe import manifest, weights

from ditto.full.conversion.bundling import convert
from ditto.full.conversion.published import ENCODER, PUBLISHED
from ditto.full.networks.hubert import KERNELS, STRIDES, Hubert, HubertConfig
from ditto.full.networks.lmdm import LMDM
from ditto.full.networks.loading import MODELS

RECORDED = {  # part -> network with recorded outputs
    "encoder": "hubert_large", "motion": "lmdm", "appearance": "appearance_feature_extractor",
    "motion_extractor": "motion_extractor", "warping": "warping_network", "decoder": "spade_decoder",
    "stitching": "stitching_network", "eye_retargeting": "retarget_eye", "lip_retargeting": "retarget_lip",
}  # fmt: skip
SETTINGS = {
    "base_cfg": {"decoder_cfg": {"model_path": "models/decoder.pth"}},
    "audio2motion_cfg": {"model_path": "models/lmdm_v0.4_hubert.pth"},
    "default_kwargs": {
        "overlap_v2": 10,
        "online_mode": False,
        "fix_kp_cond_dim": [0, 202],
        "smo_k_d": np.int64(3),
        "overall_ctrl_info": {"delta_pitch": 2},
        "emo": np.arange(24, dtype=np.float64).reshape(3, 8),
        "v_min_max_for_clip": np.array([[-np.inf] * 265, [1.0] * 265]),
        "ch_info": {"x_s_info_lst": [{"kp": np.ones((1, 63), np.float32)}]},
    },
}


def convert_tiny(*arguments, configs=TINY, **options):
    """`convert` for the folder of `publish`: networks without one in `configs` have the published sizes."""

    def sized(network):
        return replace(network, config=configs.get(network.part, network.config))

    sizes = {"PUBLISHED": tuple(map(sized, PUBLISHED)), "ENCODER": sized(ENCODER)}
    with patch.multiple("ditto.full.conversion.bundling", **sizes):
        return convert(*arguments, **options)


def networks():
    """Networks with seeded weights, by part."""
    torch.manual_seed(0)
    out = {n.part: MODELS[n.model].build(TINY.get(n.part, n.config)).eval() for n in PUBLISHED}
    out["encoder"] = Hubert(HUBERT).eval()
    for network in out.values():
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, 0.02, 0.2)
    return out


def hugging_face(state):
    """A state dict with the names of Hugging Face's fine-tuned HuBERT."""
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    out = {"lm_head.weight": torch.zeros(32, len(state["masked_spec_embed"])), "lm_head.bias": torch.zeros(32)}
    for key, tensor in state.items():
        for new, old in names.items():
            key = key.replace(new, old)
        out[f"hubert.{key}"] = tensor
    return out


def publish(folder: Path) -> dict[str, torch.nn.Module]:
    """Write the folder; gives the networks whose weights are in it, by part."""
    made = networks()
    write_checkpoints(folder, {part: network.state_dict() for part, network in made.items()}, HUBERT)
    cfg = folder / "ditto_cfg"
    cfg.mkdir()
    (cfg / "v0.4_hubert_cfg_pytorch.pkl").write_bytes(pickle.dumps(SETTINGS))
    online = {"default_kwargs": {**SETTINGS["default_kwargs"], "overlap_v2": 70, "online_mode": True}}
    (cfg / "v0.4_hubert_cfg_trt_online.pkl").write_bytes(pickle.dumps(online, protocol=2))
    return made


def publish_full_size(folder: Path) -> None:
    """The same at the published sizes, 2 GB, with the deterministic weights of the recorded outputs."""
    tables = LMDM().state_dict()
    states = {}
    for part, name in RECORDED.items():
        made = {key: torch.from_numpy(value) for key, value in weights(name).items()}
        states[part] = {entry["name"]: made.get(entry["name"], tables.get(entry["name"])) for entry in manifest(name)}
    write_checkpoints(folder, states, HubertConfig())


def write_checkpoints(folder: Path, states: dict[str, dict[str, torch.Tensor]], hubert: HubertConfig) -> None:
    """The files of torch, by part."""
    models, speech = folder / "ditto_pytorch" / "models", folder / "hubert-large-ls960-ft"
    for path in (models, speech):
        path.mkdir(parents=True)
    stitching = {}
    for network in PUBLISHED:
        state = states[network.part]
        if network.module:
            stitching[network.module] = {f"module.{key}": tensor for key, tensor in state.items()}
        else:
            torch.save({"model_state_dict": state} if network.part == "motion" else state, models / network.files[0])
    torch.save(stitching, models / "stitch_network.pth")
    torch.save(hugging_face(states["encoder"]), speech / "pytorch_model.bin")
    (speech / "config.json").write_text(json.dumps(config_json(hubert)))


def config_json(hubert: HubertConfig) -> dict:
    """What Hugging Face's config.json says of a HuBERT."""
    return {
        "model_type": "hubert", "feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True,
        "conv_kernel": list(KERNELS), "conv_stride": list(STRIDES), "conv_dim": [hubert.channels] * 7,
        "hidden_size": hubert.width, "num_hidden_layers": hubert.layers, "num_attention_heads": hubert.heads,
        "intermediate_size": hubert.inner, "num_conv_pos_embeddings": hubert.position_kernel,
        "num_conv_pos_embedding_groups": hubert.position_groups,
    }  # fmt: skip
