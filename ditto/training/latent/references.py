"""What more references give a codec: its figures on held clips, with the portrait alone and with views that lite renders.

    python -m ditto.training.latent.references CLIPS CODEC PORTRAITS [--turned] [--frames 125]

CLIPS is a folder of `ditto.training.latent.data`, CODEC one of `ditto train codec`, PORTRAITS the one that the clips were
rendered from.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import numpy as np

from ditto.commands import Arguments, run, whole_number
from ditto.errors import DittoError, InputError
from ditto.latent.region import cut_square, square_of
from ditto.latent.views import STILL_VIEWS, TURNED_VIEWS, Views, ViewsConfig
from ditto.portrait.registration import register
from ditto.training.latent.codec import Pictures, evaluate, lines, read_codec
from ditto.training.latent.data import PICTURE_SIZE, ClipInfo, open_clips
from ditto.training.latent.latents import codec_window


class References:
    """The views of the portraits of clips, cut as the clips are.

    Args:
        views: renders them.
        portraits: folder.
        side: of the clips' pictures.
    """

    def __init__(self, views: Views, portraits: Path, side: int) -> None:
        self._views, self._portraits, self._side = views, portraits, side
        self._of = cache(self._cut)

    def __call__(self, clip: ClipInfo) -> Pictures:
        """(M, side, side, 3) of a clip's portrait.

        Raises:
            InputError: the folder does not have it.
            NoFaceError, ImageError: it is not the picture that it was.
        """
        return self._of(clip.portrait)

    def _cut(self, name: str) -> Pictures:
        path = self._portraits / name
        if not path.is_file():
            raise InputError(f"expected the portrait {name} of the clips in {self._portraits}, got none; give its folder")
        portrait = register(path, max_size=PICTURE_SIZE)
        square = square_of(portrait)
        return np.stack([cut_square(picture, square, self._side) for picture in self._views(portrait)])


def main(arguments: list[str] | None = None) -> int:
    parser = Arguments(prog="python -m ditto.training.latent.references", description="What references give.")
    parser.add_argument("clips", type=Path)
    parser.add_argument("codec", type=Path)
    parser.add_argument("portraits", type=Path)
    parser.add_argument("--turned", action="store_true", help="turned heads, in place of an open mouth and closed eyes")
    parser.add_argument("--frames", type=whole_number(1, 100_000), default=125, help="4 n + 1, or 8 n + 1 for a codec of RAP")
    given = parser.parse_args(arguments)
    try:
        clips, codec, window = open_clips(given.clips), read_codec(given.codec), codec_window(given.codec)
        codec.config.latents(given.frames)
        views = ViewsConfig(TURNED_VIEWS if given.turned else STILL_VIEWS).open()
        for count, extra in ((1, None), (1 + len(views.config.views), References(views, given.portraits, clips.side))):
            for line in lines({str(given.frames): evaluate(codec, clips, window, given.frames, extra)}):
                print(f"M = {count}: {line}")
    except DittoError as error:
        print(f"ditto: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    run(main)
