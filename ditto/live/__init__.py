"""Live sessions: push speech as it comes, read frames, interrupt; the face keeps moving between utterances."""

from ditto.frame import Frame as Frame
from ditto.frame import Item as Item
from ditto.frame import SegmentEnd as SegmentEnd
from ditto.live.scheduler import Scheduler as Scheduler
from ditto.live.session import AsyncSession as AsyncSession
from ditto.live.session import Session as Session
from ditto.live.settings import SessionOptions as SessionOptions
from ditto.live.settings import utterance_seed as utterance_seed
