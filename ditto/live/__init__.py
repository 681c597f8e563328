"""Live sessions: push what comes, pull frames, interrupt; a face that lives between utterances."""

from ditto.live.items import Frame as Frame
from ditto.live.items import Item as Item
from ditto.live.items import SegmentEnd as SegmentEnd
from ditto.live.session import AsyncSession as AsyncSession
from ditto.live.session import Session as Session
from ditto.live.settings import SessionOptions as SessionOptions
from ditto.live.settings import utterance_seed as utterance_seed
from ditto.live.stage import Stage as Stage
