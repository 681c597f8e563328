"""Live sessions around a stream: push what comes, pull frames, interrupt."""

from ditto.live.session import AsyncSession as AsyncSession
from ditto.live.session import Frame as Frame
from ditto.live.session import Item as Item
from ditto.live.session import SegmentEnd as SegmentEnd
from ditto.live.session import Session as Session
