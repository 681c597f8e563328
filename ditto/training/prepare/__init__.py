"""`ditto train prepare`: footage of talking people to a dataset (`ditto.training.dataset`), in steps that can be resumed.

    media     sound at 16 kHz on the pictures' time axis      ditto/training/prepare/video.py
    scenes    pieces without a cut                            scenes.py
    faces     every face of a piece, followed                 faces.py
    filters   small, cut off, blurred, turned away, silent    filters.py
    sync      sound against lips                              lip_sync.py
    motion    motion, eyes, canonical keypoints               clips.py
    emotion   weights of eight emotions                       clips.py
    features  of the streaming speech encoder                 clips.py
    export    the clip's file                                 clips.py

Each step reads what the steps before it wrote, item by item; `work.py` has the types and the loop.
"""

from ditto.training.prepare.pipeline import STEPS as STEPS
from ditto.training.prepare.pipeline import Result as Result
from ditto.training.prepare.pipeline import prepare as prepare
from ditto.training.prepare.work import Options as Options
