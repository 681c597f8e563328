"""Any common picture is read upright as RGB, over white where it is transparent; what is none is refused in words."""

import io
import os
import threading
from pathlib import Path

import cv2
import numpy as np
import PIL
import pytest
from PIL import Image, ImageCms

from ditto.errors import ImageError
from ditto.media import images
from ditto.media.images import OpenedPicture, read_picture, straight_colours
from ditto.media.pixels import OUTPUTS

CUTOUT = Path(__file__).parents[1] / "fixtures" / "pictures" / "cutout_soft.png"


def gradient(height=90, width=120):
    y, x = np.mgrid[:height, :width]
    return np.stack([2 * x, 2 * y, np.full_like(x, 60)], -1).astype(np.uint8)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA", "WEBP", "GIF", "JPEG", "JPEG2000"])
def test_common_formats_give_the_same_picture(kind):
    options = {"JPEG": {"quality": 97}, "WEBP": {"lossless": True}}.get(kind, {})
    rgb, alpha = read_picture(encoded(Image.fromarray(gradient()), kind, **options))
    assert rgb.shape == (90, 120, 3) and rgb.dtype == np.uint8 and alpha is None
    worst = {"JPEG": 6, "GIF": 24}.get(kind, 0)  # lossy; 256 colours
    assert np.abs(rgb.astype(int) - gradient()).max() <= worst


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    upright = gradient()
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    rgb, _ = read_picture(encoded(Image.fromarray(np.ascontiguousarray(turned)), "PNG", exif=exif.tobytes()))
    assert (rgb == upright).all()


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "LAB", "I;16", "I", "F", "LA", "RGBA"])
def test_every_mode_becomes_rgb(mode):
    grey = Image.fromarray(gradient()[..., 0])
    deep = np.asarray(grey).astype(np.uint16) * 257
    image = {
        "I;16": lambda: Image.fromarray(deep),
        "I": lambda: Image.fromarray(deep.astype(np.int32)),
        "F": lambda: Image.fromarray(np.asarray(grey).astype(np.float32) / 255),
        "LAB": lambda: ImageCms.profileToProfile(
            grey.convert("RGB"), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        ),
    }.get(mode, lambda: grey.convert("RGB").convert(mode))()
    if mode == "YCbCr" and int(PIL.__version__.split(".")[0]) < 13:
        pytest.skip("Pillow before 13 cannot read the YCbCr TIFF it writes")
    rgb, alpha = read_picture(encoded(image, "TIFF"))
    assert rgb.shape == (90, 120, 3) and alpha is None
    if mode not in ("1", "P"):  # two colours; a web palette
        assert np.abs(rgb.astype(int) - np.asarray(grey)[..., None]).max() <= 4


def over_white(pixels):
    """What a browser shows of (H, W, 4) on a white page."""
    share = pixels[..., 3:] / 255.0
    return np.rint(pixels[..., :3] * share + 255.0 * (1.0 - share)).astype(int)


def banded():
    """The gradient in bands of every kind of alpha."""
    alpha = np.repeat(np.array([0, 1, 64, 102, 128, 191, 254, 255, 255], np.uint8), 10)
    return np.dstack([gradient(), np.broadcast_to(alpha[:, None], (90, 120))])


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "TGA", "AVIF", "array", "float array", "image"])
def test_transparency_is_kept_and_its_colours_lie_over_white(kind):
    pixels = banded()
    image = Image.fromarray(pixels)
    given = {"array": pixels, "float array": pixels / 255.0, "image": image}.get(kind)
    if given is None:
        options = {"WEBP": {"lossless": True, "exact": True}, "AVIF": {"quality": 100}}.get(kind, {})
        given = encoded(image, kind, **options)
    rgb, alpha = read_picture(given)
    near = 4 if kind == "AVIF" else 1  # AVIF is lossy here
    assert np.abs(alpha.astype(int) - pixels[..., 3]).max() <= near - 1
    assert np.abs(rgb.astype(int) - over_white(pixels)).max() <= near


def test_a_reduced_cutout_has_no_dark_edge_and_nothing_of_its_background():
    y, x = np.mgrid[:400, :400]
    alpha = np.clip(160.0 - np.hypot(x - 200, y - 200), 0.0, 20.0) / 20.0
    for behind in (0, 255):  # a removed background that is still in the file
        pixels = np.where(alpha[..., None] > 0.5, [200, 150, 120], [0, behind, 0])
        pixels = np.dstack([pixels, np.rint(255.0 * alpha)]).astype(np.uint8)
        pixels[alpha == 0.0, :3] = (0, behind, 0)
        rgb, small = read_picture(encoded(Image.fromarray(pixels), "PNG"), 100)
        full = over_white(pixels)
        assert np.abs(rgb.astype(int) - full.reshape(100, 4, 100, 4, 3).mean((1, 3))).max() < 30.0
        assert (rgb[small == 0] >= 254).all()


def test_colours_multiplied_by_alpha_already_are_not_multiplied_again():
    alpha = np.broadcast_to(np.arange(256, dtype=np.uint8), (20, 256))
    colour = np.array([210, 160, 130])
    stored = np.rint(colour * (alpha[..., None] / 255.0)).astype(np.uint8)
    rgb, kept = read_picture(encoded(Image.fromarray(np.dstack([stored, alpha])), "PNG"))
    straight = np.dstack([np.broadcast_to(colour, (20, 256, 3)), alpha]).astype(np.uint8)
    assert (kept == alpha).all() and np.abs(rgb.astype(int) - over_white(straight)).max() <= 1
    dark = np.dstack([np.full((20, 256, 3), 12, np.uint8), alpha])  # straight: 12 is above the faintest
    assert np.abs(read_picture(encoded(Image.fromarray(dark), "PNG"))[0].astype(int) - over_white(dark)).max() <= 1


def test_the_soft_cutout_fades_into_white():
    rgb, alpha = read_picture(CUTOUT)
    assert len(np.unique(alpha)) > 200
    assert (rgb[alpha == 0] == 255).all() and rgb[alpha < 20].min() > 230
    assert (rgb == Image.open(CUTOUT).convert("RGB"))[alpha == 255].all()


@pytest.mark.parametrize("mode", ["LA", "PA", "GIF", "tRNS L", "tRNS RGB", "tRNS P", "16 bits", "16 bits grey", "uint16"])
def test_every_kind_of_transparency(mode):
    pixels = banded()
    pixels[..., :3] = pixels[..., :1]
    if mode in ("GIF", "tRNS P", "PA", "tRNS L", "tRNS RGB", "16 bits grey"):  # all or nothing
        pixels[..., 3] = np.where(pixels[..., 3] < 128, 0, 255)
    clear = pixels[..., 3] == 0
    image = Image.fromarray(pixels)
    grey = np.where(clear, 7, np.maximum(pixels[..., 0], 8)).astype(np.uint8)
    if mode == "LA":
        given = encoded(image.convert("LA"), "PNG")
    elif mode == "PA":
        palette = Image.fromarray(grey).convert("P")
        palette.putalpha(Image.fromarray(pixels[..., 3]))
        given = palette
    elif mode == "GIF":
        given = encoded(image, "GIF")
    elif mode == "tRNS L":
        given = encoded(Image.fromarray(grey), "PNG", transparency=7)
    elif mode == "tRNS RGB":
        given = encoded(Image.fromarray(grey).convert("RGB"), "PNG", transparency=(7, 7, 7))
    elif mode == "tRNS P":
        given = encoded(Image.fromarray(grey).convert("P"), "PNG", transparency=bytes([255] * 7 + [0]))
    elif mode == "16 bits":
        given = cv2.imencode(".png", pixels[..., [2, 1, 0, 3]].astype(np.uint16) * 257)[1].tobytes()
    elif mode == "16 bits grey":
        deep = Image.fromarray(grey.astype(np.uint16) * 257)
        given = encoded(deep, "PNG", transparency=7 * 257)
    else:
        given = pixels.astype(np.uint16) * 257
    rgb, alpha = read_picture(given)
    assert (alpha == pixels[..., 3]).all()
    seen = np.dstack([np.where(clear, 0, grey)] * 3 + [pixels[..., 3]]) if mode not in ("LA", "16 bits", "uint16") else pixels
    assert np.abs(rgb.astype(int) - over_white(seen)).max() <= (8 if mode == "GIF" else 1)  # a palette


def test_a_fully_transparent_picture_is_refused():
    clear = np.dstack([gradient(), np.zeros((90, 120), np.uint8)])
    for given in (clear, encoded(Image.fromarray(clear), "PNG"), Image.fromarray(clear)):
        with pytest.raises(ImageError, match="fully transparent"):
            read_picture(given)
    clear[40, 40, 3] = 1
    assert read_picture(clear)[1].max() == 1


def test_white_is_taken_off_again_for_pictures_with_alpha():
    pixels = banded()
    rgb, alpha = read_picture(pixels)
    straight = straight_colours(rgb, alpha)
    assert np.abs(over_white(np.dstack([straight, alpha])) - rgb).max() <= 1
    surely = alpha >= 64
    assert np.abs(straight[surely].astype(int) - pixels[surely][:, :3]).max() <= 4
    rgba = OUTPUTS["rgba"](rgb, alpha)
    assert (rgba[..., :3] == straight).all() and (rgba[..., 3] == alpha).all()


def test_the_first_frame_that_shows_something_is_taken(caplog):
    black, shown = Image.new("RGB", (120, 90)), Image.fromarray(gradient())
    data = encoded(black, "GIF", save_all=True, append_images=[Image.new("RGB", (120, 90), (3, 3, 3)), shown])
    rgb, _ = read_picture(data)
    assert np.abs(rgb.astype(int) - gradient()).max() <= 24
    assert "is blank; ditto takes frame 3" in caplog.text
    caplog.clear()
    clear = encoded(Image.new("RGBA", (120, 90)), "PNG", save_all=True, append_images=[shown.convert("RGBA")])
    assert np.abs(read_picture(clear)[0].astype(int) - gradient()).max() <= 1
    assert "ditto takes frame 2" in caplog.text
    caplog.clear()
    rgb, _ = read_picture(encoded(black, "GIF", save_all=True, append_images=[Image.new("RGB", (120, 90), (3, 3, 3))]))
    assert not rgb.any() and not caplog.records  # none does


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("shape", ["grey", "RGB", "RGBA"])
@pytest.mark.parametrize("kind", ["png", "tiff", "array"])
def test_bits_that_are_not_used_do_not_darken(bits, shape, kind, caplog):
    pixels = gradient() if shape != "grey" else gradient()[..., 0]
    pixels = np.where(pixels == pixels.max(), 255, pixels)  # so that all of the bits are used
    deep = np.rint(pixels * (((1 << bits) - 1) / 255.0)).astype(np.uint16)
    if shape == "RGBA":
        deep = np.dstack([deep, np.full(deep.shape[:2], 65535, np.uint16)])
    if kind == "array":
        given = deep
    else:
        order = deep if shape == "grey" else deep[..., [2, 1, 0, 3][: deep.shape[-1]]]
        given = cv2.imencode(f".{kind}", order)[1].tobytes()
    rgb, alpha = read_picture(given)
    assert alpha is None
    assert np.abs(rgb.astype(int) - (pixels[..., None] if shape == "grey" else pixels)).max() <= 1
    assert (f"uses {bits} of them" in caplog.text) == (bits < 16)


def test_first_frame_of_an_animation():
    frames = [Image.fromarray(np.full((40, 40, 3), level, np.uint8)) for level in (200, 90)]
    rgb, _ = read_picture(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert np.abs(rgb.astype(int) - 200).max() <= 3


def test_colour_profile_is_converted():
    swapped = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    lab = ImageCms.profileToProfile(
        Image.fromarray(gradient()), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    rgb, _ = read_picture(encoded(lab, "TIFF", icc_profile=swapped))
    assert np.abs(rgb.astype(int) - gradient()).mean() < 3


def test_unusable_colour_profile_is_told_and_left_out(caplog):
    rgb, _ = read_picture(encoded(Image.fromarray(gradient()), "PNG", icc_profile=b"not a profile"))
    assert (rgb == gradient()).all() and "colour profile" in caplog.text


def test_large_pictures_are_limited_and_sides_are_even():
    rgb, _ = read_picture(gradient(333, 777), max_size=256)
    assert rgb.shape == (110, 256, 3)
    assert read_picture(gradient(91, 121))[0].shape == (90, 120, 3)
    assert (read_picture(gradient(91, 121))[0] == gradient(90, 120)).all()


def test_reduction_averages():
    checker = np.where(np.indices((600, 600)).sum(0) % 2, 255, 0).astype(np.uint8)
    rgb, _ = read_picture(checker, max_size=100)
    assert np.abs(rgb.astype(int) - 127).max() < 20


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 1), (40, 60, 3), (40, 60, 4)])
def test_arrays(dtype, shape):
    white = {np.uint8: 255, np.uint16: 65535}.get(dtype, 1.0)
    array = (np.full(shape, 0.6) * white).astype(dtype)
    if shape[-1] == 4:
        array[..., 3] = white
    rgb, alpha = read_picture(array)
    assert rgb.shape == (40, 60, 3) and np.abs(rgb.astype(int) - 153).max() <= 1
    assert alpha is None


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_arrays_with_alpha_lie_over_white(dtype):
    white = {np.uint8: 255, np.uint16: 65535}.get(dtype, 1.0)
    array = (np.full((40, 60, 4), 0.6) * white).astype(dtype)
    rgb, alpha = read_picture(array)
    assert np.abs(rgb.astype(int) - (0.6 * 153 + 0.4 * 255)).max() <= 1 and (alpha == 153).all()


BAD_ARRAYS = {
    "shape": np.zeros((4, 5, 2), np.uint8),
    "one axis": np.zeros(12, np.uint8),
    "empty": np.zeros((0, 4, 3), np.uint8),
    "type": np.zeros((40, 40, 3), np.int64),
    "NaN": np.full((40, 40, 3), np.nan, np.float32),
    "infinite": np.full((40, 40, 3), np.inf),
    "range": np.full((40, 40, 3), 255.0),
    "tiny": np.zeros((1, 40, 3), np.uint8),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_bad_arrays_are_refused(name):
    with pytest.raises(ImageError, match=r"array|pixels"):
        read_picture(BAD_ARRAYS[name])


def test_bad_files_are_refused(tmp_path):
    good = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3)).astype(np.uint8)), "PNG")
    files = {
        "empty.png": (b"", "empty"),
        "cut.png": (good[: len(good) // 2], "truncated"),
        "cut.jpg": (encoded(Image.fromarray(gradient()), "JPEG")[:700], "truncated"),
        "words.jpg": (b"this is no picture at all", "which is none of these"),
        "sound.wav": (b"RIFF\x00\x00\x00\x00WAVEfmt ", "which is none of these"),
        "vector.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "which is none of these"),
    }
    for name, (data, words) in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError, match=words) as error:
            read_picture(tmp_path / name)
        assert name in str(error.value)
    with pytest.raises(ImageError, match="No such file"):
        read_picture(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="folder"):
        read_picture(tmp_path)
    with pytest.raises(ImageError, match="expected a path"):
        read_picture(7)
    with pytest.raises(ValueError, match="max_size"):
        read_picture(gradient(), max_size=3)


def test_damaged_bytes_never_raise_anything_else():
    good = encoded(Image.fromarray(gradient()), "PNG"), encoded(Image.fromarray(gradient()), "JPEG")
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(150):
        data = bytearray(good[rng.integers(2)])
        for at in rng.integers(0, len(data), 6):
            data[at] = rng.integers(256)
        try:
            assert read_picture(bytes(data))[0].ndim == 3
        except ImageError:
            refused += 1
    assert refused > 20


def test_a_phones_jpeg_is_decoded_at_a_fraction(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 4000)
    monkeypatch.setattr(images, "MAX_JPEG_PIXELS", 64 * 4000)
    y, x = np.mgrid[:360, :640]
    smooth = np.stack([x * 255 // 640, y * 255 // 360, np.full_like(x, 90)], -1).astype(np.uint8)
    data = encoded(Image.fromarray(smooth), "JPEG", quality=95)
    rgb, _ = OpenedPicture(data).read(1280)
    assert rgb.shape == (44, 80, 3)  # 1/8 is 3600 pixels, 1/4 would be 14400
    assert np.abs(rgb.astype(int) - smooth[4::8, 4::8][:44]).max() < 8
    with pytest.raises(ImageError, match=r"at most 0 megapixels .*, got 800 x 800"):
        read_picture(encoded(Image.new("L", (800, 800)), "JPEG"))
    monkeypatch.setattr(images, "MAX_PROGRESSIVE_PIXELS", 8 * 4000)
    with pytest.raises(ImageError, match="progressive"):
        read_picture(encoded(Image.fromarray(smooth), "JPEG", progressive=True))


def test_200_megapixels_of_jpeg_are_read():
    strip = encoded(Image.new("L", (16320, 16), 90), "JPEG")
    head, scan = strip[: strip.index(b"\xff\xda")], strip[strip.index(b"\xff\xda") :]
    sof = head.index(b"\xff\xc0")
    tall = head[: sof + 5] + (12240).to_bytes(2, "big") + head[sof + 7 :] + scan  # the decoder repeats the last rows
    rgb, _ = read_picture(tall)
    assert rgb.shape == (1440, 1920, 3) and (rgb[0] == 90).all()


def test_whatever_holds_a_picture_is_read(tmp_path):
    data = encoded(Image.fromarray(gradient()), "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    written = io.BytesIO()
    Image.fromarray(gradient()).save(written, "PNG")  # its position is at the end
    os.mkfifo(tmp_path / "pipe")
    threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(data), daemon=True).start()
    with path.open("rb") as file, os.scandir(tmp_path) as entries, Image.open(path) as lazy:
        entry = next(e for e in entries if e.name == "a.png")
        for given in (path, str(path), entry, data, memoryview(data), written, file, lazy, tmp_path / "pipe"):
            assert (read_picture(given)[0] == gradient()).all(), given
    with path.open("r", encoding="latin1") as text, pytest.raises(ImageError, match="opened for text"):
        read_picture(text)
    with pytest.raises(ImageError, match="closed file"):
        read_picture(file)
    once = OpenedPicture(written)
    assert once.read(64)[0].shape == (48, 64, 3) and once.read(1280)[0].shape == (90, 120, 3)


def test_over_40_megapixels_is_refused_without_decoding():
    header = encoded(Image.new("1", (8000, 5001)), "PNG")
    with pytest.raises(ImageError, match=r"at most 40 megapixels .*, got 8000 x 5001"):
        read_picture(header)
    assert images.MAX_PIXELS == 40_000_000


def test_40_megapixels_are_read():
    rgb, _ = read_picture(encoded(Image.new("L", (8000, 5000), 90), "JPEG"))
    assert rgb.shape == (1200, 1920, 3) and (rgb == 90).all()


def test_reduce_keeps_sides_even_and_content() -> None:
    from ditto.media.images import reduce

    rgb = np.full((301, 203, 3), (10, 200, 30), np.uint8)
    small, alpha = reduce(rgb, np.full((301, 203), 255, np.uint8), 0.5)
    assert small.shape == (150, 100, 3)
    assert alpha is not None and alpha.shape == (150, 100)
    assert (small == (10, 200, 30)).all()
