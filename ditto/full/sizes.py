"""Sizes of the published networks, each stated once. Needs no torch.

Source: HuBERT (arXiv:2106.07447), the configuration of facebook/hubert-large-ls960-ft; the released Ditto at e9191cf
(`lmdm_v0.4_hubert.pth`, `hubert_streaming_fix_kv.onnx`); LivePortrait (arXiv:2407.03168) and its released code.
"""

from math import prod

from ditto.media.rates import SAMPLES_PER_FRAME
from ditto.motion.emotion import EMOTIONS
from ditto.motion.motion import KEYPOINTS as KEYPOINTS

# HuBERT: convolutions over the samples, then one row of features for every 320 samples.
KERNELS = (10, 3, 3, 3, 3, 2, 2)
STRIDES = (5, 2, 2, 2, 2, 2, 2)
SAMPLES_PER_ROW = prod(STRIDES)  # 320
ROWS_PER_FRAME = SAMPLES_PER_FRAME // SAMPLES_PER_ROW  # 2
RECEPTIVE_FIELD = 1 + sum((kernel - 1) * prod(STRIDES[:layer]) for layer, kernel in enumerate(KERNELS))  # 400 samples
ROW_OVERLAP = RECEPTIVE_FIELD - SAMPLES_PER_ROW  # 80 samples that a row shares with the row before
SPEECH_SIZE = 1024  # numbers of a feature

# The released Ditto runs HuBERT over windows of ten frames and keeps the five in the middle.
FRAMES_BEFORE, FRAMES_KEPT, FRAMES_AFTER = 3, 5, 2
WINDOW_SAMPLES = (FRAMES_BEFORE + FRAMES_KEPT + FRAMES_AFTER) * SAMPLES_PER_FRAME + ROW_OVERLAP  # 6480

# The motion diffusion network.
WINDOW = 80  # frames
LEVELS = 1000  # noise levels of training, and so the largest number of DDIM steps
LIDS, GAZE = 2, 6  # numbers of a frame's eye state: openings of two lids, direction of two eyes
EXPRESSION_SIZE = 3 * KEYPOINTS  # 63; also the size of canonical keypoints
CONDITION_SIZE = SPEECH_SIZE + len(EMOTIONS) + LIDS + GAZE + EXPRESSION_SIZE  # 1103

# LivePortrait's networks.
CROP_SIZE = 512  # pixels of a side: the crop that is animated, and the image that the decoder gives
EXTRACTOR_SIZE = 256  # pixels of a side: what the appearance and motion extractors take
