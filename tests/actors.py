"""A head whose networks cost nothing, for what sessions do apart from speech and pictures."""

import time
from types import SimpleNamespace

import numpy as np

from ditto.latency import latency_of
from ditto.live import AsyncSession, Session, Stage
from ditto.live.settings import Settings
from ditto.motion import COMPACT_SIZE, KEYPOINTS, drive

PICTURE = np.zeros((2, 2, 3), np.uint8)
PORTRAIT = SimpleNamespace(
    rotation=np.eye(3),
    scale=1.0,
    translation=np.zeros(3),
    expression=np.zeros((KEYPOINTS, 3)),
    canonical_keypoints=np.zeros((KEYPOINTS, 3)),
    eye_open=np.ones(2),
    alpha=None,
)


class Actor:
    """Stands where a `TalkingHead` stands. `error` is what its encoder raises when it hears a sample of `bad`."""

    hop_samples, lead_features = 1280, 2

    def __init__(self, error=None, bad=None, pause_seconds=0.0001, max_sessions=8):
        self.encoder = self.sampler = self.renderer = self
        self.error, self.bad, self.pause_seconds = error, bad, pause_seconds
        self.largest_batch = 0
        self.stage = Stage(self, max_sessions)

    def session(self, **options):
        return AsyncSession(self.stage, PORTRAIT, Settings(**options))

    def blocking_session(self, **options):
        return Session(self.stage, PORTRAIT, Settings(**options))

    def appearance(self, portrait):
        return SimpleNamespace(mesh=None, paste_back=lambda crop: crop)

    def sampler_for(self, latency):
        self.delay_seconds = latency_of(latency).plan.delay_seconds
        return self

    def initial_state(self, *_):
        return 0

    begin = initial_state

    def together(self, first, states=None):
        """As the encoder: hops and states; as the sampler: jobs."""
        time.sleep(self.pause_seconds)  # as computing would, so that other things happen in the midst of it
        self.largest_batch = max(self.largest_batch, len(first))
        if states is None:
            return [(np.zeros((len(job.features), COMPACT_SIZE), np.float32), job.state + 1) for job in first]
        if self.error is not None and any(self.bad is None or np.any(hop == self.bad) for hop in first):
            raise self.error
        return [(np.zeros((2, 368), np.float32), state + 1) for state in states]

    face_units = True

    def translate(self, mesh, row):
        return row

    def drive(self, portrait, motion):
        return drive(portrait, motion)

    def render(self, mesh, drive):
        return PICTURE
