"""A small corpus whose motion follows its speech, for tests of training."""

import numpy as np

from ditto.lite.phones import SILENCE
from ditto.lite.speech_encoder import FEATURE_SIZE, HIDDEN_SIZE
from ditto.motion.motion import EXPRESSION, KEYPOINTS, MOTION_SIZE, Keypoint
from ditto.portrait.face_mesh import TEMPLATE, keypoints
from ditto.training.dataset import Clip, ClipInfo, write_clip, write_index
from ditto.training.motion_batches import Corpus


def smooth(random, frames, numbers):
    """(frames, numbers) of a spread near one that change over a few frames."""
    kernel = np.exp(-0.5 * (np.arange(-6, 7) / 2.0) ** 2)
    noise = random.normal(size=(frames + 12, numbers)) / np.sqrt((kernel**2).sum())
    return np.stack([np.convolve(noise[:, i], kernel, "valid") for i in range(numbers)], 1)


def arrays_of_clip(random, frames):
    """Features (T, 368), motion (T, 70) and eyes (T, 8) of one clip; it begins in silence."""
    features = np.zeros((frames, FEATURE_SIZE), np.float32)
    features[:, :HIDDEN_SIZE] = 0.5 * smooth(random, frames, HIDDEN_SIZE)
    quiet = np.arange(frames) < 6
    features[quiet, HIDDEN_SIZE + SILENCE] = features[quiet, HIDDEN_SIZE + 40 + SILENCE] = 1.0
    motion = np.zeros((frames, MOTION_SIZE), np.float32)
    motion[:, :4] = smooth(random, frames, 4) * [0.01, 1.0, 1.0, 1.0]
    faces = 0.004 * smooth(random, frames, 3 * KEYPOINTS).reshape(frames, KEYPOINTS, 3)
    faces[:, Keypoint.LOWER_INNER_LIP, 1] += 0.06 * features[:, 0]
    faces[:, Keypoint.LEFT_MOUTH_CORNER, 0] += 0.04 * features[:, 1]
    faces[:, Keypoint.RIGHT_MOUTH_CORNER, 0] -= 0.04 * features[:, 1]
    motion[:, EXPRESSION] = faces.reshape(frames, -1)
    eyes = np.zeros((frames, 8), np.float32)
    eyes[:, :2] = 1.0
    return features, motion, eyes


def small_corpus(clips=4, frames=75, seed=0):
    """Clips of one pool, alike but for their random numbers."""
    random = np.random.default_rng(seed)
    made = [arrays_of_clip(random, frames) for _ in range(clips)]
    features, motion, eyes = (np.concatenate(column) for column in zip(*made, strict=True))
    length = np.full(clips, frames)
    return Corpus(
        names=tuple(f"clip{i}" for i in range(clips)),
        start=np.arange(clips) * frames,
        length=length,
        pool=np.zeros(clips, np.int64),
        shares=np.ones(1),
        features=features.astype(np.float16),
        motion=motion,
        eyes=eyes,
        emotion=np.tile(np.eye(8, dtype=np.float32)[4], (clips, 1)),
        canonical=np.tile(keypoints(TEMPLATE).reshape(-1).astype(np.float32), (clips, 1)),
        look_start=np.arange(clips),
        look_count=np.ones(clips, np.int64),
    )


def write_dataset(folder, encoder_sha256="", corpus=None, held=1):
    """The corpus as a prepared dataset; the last `held` clips are kept out."""
    corpus, infos = small_corpus() if corpus is None else corpus, []
    for i, name in enumerate(corpus.names):
        frames = int(corpus.length[i])
        rows = slice(corpus.start[i], corpus.start[i] + frames)
        split = "held" if i >= len(corpus.names) - held else "train"
        info = ClipInfo(name, "a.mp4", 0.0, frames / 25, 0, None, None, frames, 0, None, "neutral", split)
        arrays = (corpus.features[rows], corpus.motion[rows], corpus.eyes[rows], corpus.emotion[i], corpus.canonical[i])
        write_clip(folder, info, Clip(*arrays, np.zeros(640 * frames, np.int16)))
        infos.append(info)
    write_index(folder, "lite", encoder_sha256, {}, infos)
    return folder
