"""Every network that engines run, at a size that takes no time, and at full size (of the two HuBERTs one)."""

import torch

from ditto.full.networks.appearance import AppearanceConfig, AppearanceExtractor
from ditto.full.networks.decoder import DecoderConfig, SpadeDecoder, fold_spectral_norm
from ditto.full.networks.hubert import Hubert, HubertConfig
from ditto.full.networks.lmdm import LMDM, LMDMConfig, ddim_schedule
from ditto.full.networks.lmdm_fast import FastLMDM
from ditto.full.networks.motion_extractor import MotionExtractor, MotionExtractorConfig
from ditto.full.networks.neural_renderer import NeuralRenderer
from ditto.full.networks.stitching import EYE_RETARGETING, LIP_RETARGETING, RetargetingNetwork, StitchingNetwork
from ditto.full.networks.streaming_hubert import StreamingHubert
from ditto.full.networks.warping import WarpingConfig, WarpingNetwork

APPEARANCE = AppearanceConfig(base=8, channels=4, depth=4, residual_blocks=2)
MOTION = MotionExtractorConfig(depths=(1, 1, 2, 1), widths=(8, 16, 24, 32))
WARPING = WarpingConfig(channels=4, depth=4, compressed=2, base=8, widest=32, levels=2, outputs=16)
DECODER = DecoderConfig(inputs=16, width=32, outputs=8)
HUBERT = HubertConfig(channels=32, width=64, layers=2, heads=4, inner=128, position_kernel=16, position_groups=4)
DIFFUSION = LMDMConfig(motion=9, condition=15, frames=12, width=32, inner=48, heads=4, condition_layers=1, layers=1)
PARTS = {  # of a bundle whose networks fit together, as small as the others: what each part is made of
    "encoder": HUBERT,
    "motion": LMDMConfig(condition=HUBERT.width + 79, width=32, inner=64, heads=4, condition_layers=1, layers=1),
    "appearance": AppearanceConfig(base=8, channels=4, depth=4, residual_blocks=1),
    "motion_extractor": MotionExtractorConfig(depths=(1, 1, 1, 1), widths=(8, 16, 24, 32)),
    "warping": WarpingConfig(channels=4, depth=4, compressed=2, base=4, widest=16, levels=2, outputs=16),
    "decoder": DecoderConfig(inputs=16, width=32, outputs=8),
}


class ShortUnits(StreamingHubert):
    unit, left = 6, 14


def decoder(config=None):
    network = SpadeDecoder(config)
    fold_spectral_norm(network)
    return network


TINY = {
    "appearance": lambda: AppearanceExtractor(APPEARANCE),
    "motion_extractor": lambda: MotionExtractor(MOTION),
    "stitching": StitchingNetwork,
    "retarget_eye": lambda: RetargetingNetwork(EYE_RETARGETING),
    "retarget_lip": lambda: RetargetingNetwork(LIP_RETARGETING),
    "warping": lambda: WarpingNetwork(WARPING),
    "decoder": lambda: decoder(DECODER),
    "renderer": lambda: NeuralRenderer(WarpingNetwork(WARPING), decoder(DECODER)),
    "lmdm": lambda: LMDM(DIFFUSION),
    "lmdm_fast": lambda: FastLMDM(LMDM(DIFFUSION), ddim_schedule(2)),
    "hubert": lambda: Hubert(HUBERT),
    "hubert_streaming": lambda: ShortUnits(Hubert(HUBERT)),
}
TINY_PARTS = {
    "encoder": lambda: Hubert(PARTS["encoder"]),
    "motion": lambda: LMDM(PARTS["motion"]),
    "appearance": lambda: AppearanceExtractor(PARTS["appearance"]),
    "motion_extractor": lambda: MotionExtractor(PARTS["motion_extractor"]),
    "warping": lambda: WarpingNetwork(PARTS["warping"]),
    "decoder": lambda: decoder(PARTS["decoder"]),
    "stitching": StitchingNetwork,
}
FULL = {
    "appearance": AppearanceExtractor,
    "motion_extractor": MotionExtractor,
    "warping": WarpingNetwork,
    "decoder": decoder,
    "lmdm": LMDM,
    "lmdm_fast": lambda: FastLMDM(LMDM(), ddim_schedule(2)),
    "hubert_2_layers": lambda: Hubert(HubertConfig(layers=2)),
    "hubert_streaming": lambda: StreamingHubert(Hubert()),
}


def make(networks, name):
    """A network with seeded weights, norms away from one."""
    torch.manual_seed(0)
    network = networks[name]().eval().requires_grad_(False)
    for key, buffer in network.named_buffers():
        if key.endswith("running_var"):
            buffer.uniform_(0.8, 1.2)
        elif key.endswith("running_mean"):
            buffer.normal_(0, 0.1)
    return network
