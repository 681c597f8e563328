"""The smallest performer of the other kind: pixels in blocks, an opaque state, no motion to edit."""

from collections import deque  # what stands for a device tensor: compared by nothing, copied by nobody

import numpy as np

from ditto.performer import Advanced, Appearance, Capability, Drawn, Face, Shot, State, check_latency, expect_own

BLOCK = 16  # frames


class BlockAppearance(Appearance):
    def __init__(self, picture):
        self.picture = picture


class Generated(State):
    def __init__(self, appearance, seed, cache, frames=0, held=()):
        self.appearance, self.seed, self.cache, self.frames, self.held = appearance, seed, cache, frames, held


class Pixels(Shot):
    def __init__(self, image):
        self.image = image


class BlockPerformer:
    """Frames whose colour follows from the loudness of their block, the seed and the last block's colour."""

    supports = frozenset({Capability.IDLE})
    latencies = "quality", "low"
    hop_samples = BLOCK * 640
    motion_space = None

    def delay_seconds(self, latency):
        check_latency(latency, self.latencies)
        return BLOCK / 25

    def prepare(self, portrait):
        return BlockAppearance(portrait.picture)

    def begin(self, appearance, seed, latency, after=None):
        check_latency(latency, self.latencies)
        cache = deque([0.0], maxlen=1) if after is None else expect_own(after, Generated).cache
        return Generated(expect_own(appearance, BlockAppearance), seed, cache)

    def advance(self, jobs):
        return [
            self._ahead(expect_own(job.state, Generated))
            if job.pause
            else self._block(expect_own(job.state, Generated), job.samples, job.final)
            for job in jobs
        ]

    def idle(self, jobs):
        held = [self._ahead(expect_own(job.state, Generated)) for job in jobs]
        return [one if job.ahead else self._given(one.state) for job, one in zip(jobs, held, strict=True)]

    def face(self, appearance, seed, joined=True):
        return Face()

    def draw(self, jobs):
        return [Drawn(job.shot.image, job.face) for job in jobs]

    def move(self, jobs):
        raise ValueError("this performer has no motion")

    def observe(self, observer):
        return lambda: None

    def _block(self, state, samples, final):
        count = -(-samples.size // 640) if final else BLOCK
        random = np.random.default_rng([state.seed, state.frames])
        level = 0.5 * state.cache[-1] + float(np.abs(samples).mean() if samples.size else 0.0) + 0.01 * random.random()
        images = [np.full_like(state.appearance.picture, int(255 * min(level, 1.0)) // 2 + n) for n in range(count)]
        after = Generated(state.appearance, state.seed, deque([level], maxlen=1), state.frames + count)
        return Advanced([Pixels(image) for image in images], after)

    def _ahead(self, state):
        """A silent block, held."""
        if not state.held:
            block = self._block(state, np.zeros(self.hop_samples, np.float32), False)
            state = Generated(state.appearance, state.seed, block.state.cache, block.state.frames, block.shots)
        return Advanced([], state, len(state.held))

    def _given(self, state):
        """The block that is held."""
        return Advanced(state.held, Generated(state.appearance, state.seed, state.cache, state.frames))
