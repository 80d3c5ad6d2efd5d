"""Every kind of image that Pillow opens is converted to RGB as in an independent computation, or is refused."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from corelib.errors import AssetError
from corelib.evaluation.features import _files_for_clean_fid
from corelib.files.image_files import MAX_SCANS, START_OF_SCAN, decode_image, read_image
from corelib.files.image_modes import UnusableImage, as_rgb
from corelib.worlds.assets.index_building import image_fault

SIDE = 16
RAMP = np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE)


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def pixels_of(content: bytes) -> NDArray[np.uint8]:
    image = decode_image(content, "x")
    assert image.mode == "RGB" and image_fault(content) is None
    return np.asarray(image)


def refusal_of(content: bytes) -> str:
    """The error for an image, which must be the same when the image is indexed and when it is read."""
    with pytest.raises(AssetError) as caught:
        decode_image(content, "x")
    assert image_fault(content) is not None and str(caught.value) == f"x: {image_fault(content)}."
    return str(caught.value)


# PNG, written by hand. Colour types: 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGB with alpha


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(values: NDArray[np.integer], bits: int, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of values (h, w, channels) with 1 to 16 bits each."""
    height, width, _ = values.shape
    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in values]
    elif bits == 8:
        rows = [row.astype(np.uint8).tobytes() for row in values]
    else:
        wide = np.unpackbits(values.astype(np.uint8), axis=-1, bitorder="big")[..., -bits:]
        rows = [np.packbits(row.reshape(-1)).tobytes() for row in wide]
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = [
        (b"IHDR", header),
        *chunks,
        (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, content) for kind, content in parts)


def values(bits: int, channels: int) -> NDArray[np.integer]:
    return np.random.default_rng([bits, channels]).integers(0, 2**bits, (SIDE, SIDE, channels))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_of_every_depth_is_converted_to_equal_channels(bits: int) -> None:
    grey = values(bits, 1)
    expected = grey / (2**bits - 1) * 255
    found = pixels_of(png(grey, bits, 0)).astype(float)
    assert np.array_equal(found[..., 0], found[..., 1]) and np.array_equal(found[..., 0], found[..., 2])
    assert np.abs(found[..., :1] - expected).max() < 1, "the upper eight of sixteen bits are kept, as for colours"
    if bits < 16:
        assert np.array_equal(found[..., :1], expected.round())


@pytest.mark.parametrize("bits", [8, 16])
def test_colours_of_every_depth_are_kept(bits: int) -> None:
    colours = values(bits, 3)
    assert np.array_equal(pixels_of(png(colours, bits, 2)), colours >> (bits - 8))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_indices_of_a_palette_become_its_colours(bits: int) -> None:
    palette = np.random.default_rng(bits).integers(0, 256, (2**bits, 3), dtype=np.uint8)
    numbers = values(bits, 1)
    found = pixels_of(png(numbers, bits, 3, (b"PLTE", palette.tobytes())))
    assert np.array_equal(found, palette[numbers[..., 0]])


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("colour", [4, 6])
def test_an_opaque_alpha_channel_is_dropped_and_a_transparent_one_refused(bits: int, colour: int) -> None:
    pixels = values(bits, 2 if colour == 4 else 4)
    pixels[..., -1] = 2**bits - 1
    shown = np.broadcast_to(pixels[..., :-1], (SIDE, SIDE, 3))
    assert np.array_equal(pixels_of(png(pixels, bits, colour)), shown >> (bits - 8))
    pixels[3, 4, -1] = 0
    assert "transparent" in refusal_of(png(pixels, bits, colour))


TRANSPARENT = {
    "grey": png(values(8, 1), 8, 0, (b"tRNS", struct.pack(">H", *map(int, values(8, 1)[0, 0])))),
    "grey of 16 bits": png(values(16, 1), 16, 0, (b"tRNS", struct.pack(">H", *map(int, values(16, 1)[0, 0])))),
    "colours": png(values(8, 3), 8, 2, (b"tRNS", struct.pack(">HHH", *map(int, values(8, 3)[0, 0])))),
    "palette": png(values(1, 1), 1, 3, (b"PLTE", bytes(6)), (b"tRNS", b"\x00\x80")),
}


@pytest.mark.parametrize("kind", TRANSPARENT)
def test_a_transparent_colour_is_refused(kind: str) -> None:
    assert "transparent" in refusal_of(TRANSPARENT[kind])


def test_a_palette_without_transparency_is_accepted() -> None:
    palette = bytes([10, 20, 30, 40, 50, 60])
    found = pixels_of(png(values(1, 1), 1, 3, (b"PLTE", palette), (b"tRNS", b"\xff\xff")))
    assert {tuple(colour) for colour in found.reshape(-1, 3).tolist()} == {(10, 20, 30), (40, 50, 60)}


def test_an_animated_png_is_refused() -> None:
    frames = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ("red", "blue")]
    assert "an animation of 2 pictures" in refusal_of(encode(frames[0], "PNG", save_all=True, append_images=frames[1:]))


# JPEG


def test_grey_and_colours_of_a_jpeg_are_close_to_the_original() -> None:
    assert (
        np.abs(pixels_of(encode(Image.fromarray(RAMP), "JPEG", quality=100)).astype(int) - RAMP[..., None]).max() <= 2
    )
    plain = np.full((SIDE, SIDE, 3), (200, 30, 90), dtype=np.uint8)
    assert np.abs(pixels_of(encode(Image.fromarray(plain), "JPEG", quality=100)).astype(int) - plain).max() <= 2


def test_cmyk_colours_are_refused() -> None:
    error = refusal_of(encode(Image.new("CMYK", (SIDE, SIDE), (10, 20, 30, 40)), "JPEG"))
    assert "CMYK" in error and "expected RGB or grey" in error


def mpo(*pictures: Image.Image) -> bytes:
    return encode(pictures[0], "MPO", save_all=True, append_images=list(pictures[1:]))


def test_the_first_picture_of_an_mpo_file_is_read() -> None:
    pictures = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ((250, 0, 0), (0, 0, 250))]
    content = mpo(*pictures)
    assert Image.open(io.BytesIO(content)).format == "MPO"
    found = pixels_of(content)
    assert found[..., 0].min() > 240 and found[..., 2].max() < 10


@pytest.mark.parametrize("form", ["JPEG", "MPO"])
def test_a_jpeg_or_mpo_file_with_too_many_scans_is_refused(form: str) -> None:
    picture = Image.new("RGB", (SIDE, SIDE))
    content = mpo(picture, picture) if form == "MPO" else encode(picture, "JPEG")
    bomb = content + START_OF_SCAN * (MAX_SCANS + 1)
    assert "scans, expected at most" in refusal_of(bomb)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_picture_is_rotated_by_its_exif_orientation(form: str, orientation: int) -> None:
    upright = np.zeros((16, 32, 3), dtype=np.uint8)
    upright[:8, :16] = 250  # above, left
    # stored pixels for the eight values in the EXIF standard; the comments name the sides of row 0 and column 0
    stored = {
        1: upright,  # top, left
        2: upright[:, ::-1],  # top, right
        3: upright[::-1, ::-1],  # bottom, right
        4: upright[::-1],  # bottom, left
        5: upright.swapaxes(0, 1),  # left, top
        6: upright.swapaxes(0, 1)[::-1],  # right, top
        7: upright.swapaxes(0, 1)[::-1, ::-1],  # right, bottom
        8: upright.swapaxes(0, 1)[:, ::-1],  # left, bottom
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(Image.fromarray(np.ascontiguousarray(stored)), form, exif=exif)
    found = pixels_of(content).astype(int)
    assert found.shape == upright.shape and np.abs(found - upright).max() < 40


def test_damaged_exif_data_is_ignored() -> None:
    content = encode(Image.fromarray(RAMP), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert pixels_of(content).shape == (SIDE, SIDE, 3)


# Colour profiles


def profile(primaries: tuple[tuple[float, float, float], ...], gamma: float) -> bytes:
    """A version 2 profile of a display, from the XYZ of its primaries (adapted to D50) and a gamma."""

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(point: tuple[float, float, float]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, point))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    white = (0.9642, 1.0, 0.8249)
    text = b"desc\0\0\0\0" + struct.pack(">I", 2) + b"x\0" + bytes(78 + 4)
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0x\0\0\0", b"wtpt": xyz(white)}
    tags |= {name: xyz(point) for name, point in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    offset = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", offset + len(body), len(content))
        body += content
    size = offset + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"\0\0\0\0", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(4) + bytes(4 * 4) + bytes(8)
    head += b"".join(map(fixed, white))
    return head.ljust(128, b"\0") + table + body


ADOBE_RGB = (0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)
SRGB = (0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)


def in_srgb(pixels: NDArray[np.uint8], primaries: tuple[tuple[float, float, float], ...], gamma: float) -> NDArray:
    """Convert pixels to sRGB by the matrices and the two curves."""
    linear = (pixels / 255) ** gamma @ np.array(primaries) @ np.linalg.inv(np.array(SRGB))
    linear = linear.clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_colours_of_another_space_are_converted_to_srgb(form: str) -> None:
    colours = np.random.default_rng(4).integers(60, 200, (4, 4, 3), dtype=np.uint8)
    pixels = colours.repeat(16, axis=0).repeat(16, axis=1)
    content = encode(
        Image.fromarray(pixels), form, icc_profile=profile(ADOBE_RGB, 563 / 256),
        **({"quality": 100, "subsampling": 0} if form == "JPEG" else {}),
    )  # fmt: skip
    found, expected = pixels_of(content).astype(float), in_srgb(pixels, ADOBE_RGB, 563 / 256)
    assert np.abs(expected - pixels).max() > 10, "the profile has an effect"
    assert np.abs(found - expected).max() < (2 if form == "PNG" else 5)


@pytest.mark.parametrize(
    "icc_profile",
    [ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), b"", b"no profile", bytes(200)],
    ids=["sRGB", "empty", "no profile", "zeros"],
)
def test_a_profile_that_describes_srgb_changes_no_value(icc_profile: bytes) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    assert np.array_equal(pixels_of(encode(Image.fromarray(pixels), "PNG", icc_profile=icc_profile)), pixels)


def test_a_profile_of_unreasonable_size_is_refused() -> None:
    content = encode(Image.fromarray(RAMP), "JPEG", icc_profile=bytes(5 * 2**20))
    assert "colour profile" in refusal_of(content)


# Other files and modes


def tiff(*pictures: Image.Image) -> bytes:
    return encode(pictures[0], "TIFF", save_all=True, append_images=list(pictures[1:]))


TIFF_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "I", "I;16", "I;16B", "F")
OTHER_FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "GIF": (lambda: encode(Image.new("P", (SIDE, SIDE)), "GIF"), "a GIF file"),
    "an animated GIF": (
        lambda: encode(
            Image.new("RGB", (SIDE, SIDE), "red"), "GIF", save_all=True,
            append_images=[Image.new("RGB", (SIDE, SIDE), "blue")],
        ),
        "a GIF file",
    ),
    "WebP": (lambda: encode(Image.new("RGB", (SIDE, SIDE)), "WEBP"), "a WebP file"),
    "an animated WebP": (
        lambda: encode(
            Image.new("RGB", (SIDE, SIDE), "red"), "WEBP", save_all=True,
            append_images=[Image.new("RGB", (SIDE, SIDE), "blue")],
        ),
        "a WebP file",
    ),
    "BMP": (lambda: encode(Image.new("RGB", (SIDE, SIDE)), "BMP"), "a BMP file"),
    "AVIF": (lambda: encode(Image.new("RGB", (SIDE, SIDE)), "AVIF"), "an AVIF file"),
    "JPEG 2000": (lambda: encode(Image.new("RGB", (SIDE, SIDE)), "JPEG2000"), "a JPEG 2000 file"),
    "a TIFF of two pages": (lambda: tiff(*[Image.new("RGB", (SIDE, SIDE))] * 2), "a TIFF file"),
    **{
        f"TIFF {mode}": (lambda mode=mode: tiff(Image.new(mode, (SIDE, SIDE))), "a TIFF file")
        for mode in TIFF_MODES
    },
    "an empty file": (lambda: b"", "empty"),
    "a text": (lambda: b"not an image", "not an image"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHER_FILES)
def test_the_error_for_another_kind_of_file_names_the_kind(kind: str) -> None:
    write, description = OTHER_FILES[kind]
    sentence = refusal_of(write())
    assert sentence.startswith(f"x: {description}, expected a JPEG")


MODES = {
    "1": True, "L": True, "P": True, "RGB": True, "LA": True, "PA": True, "RGBA": True, "I;16": True,
    "I;16L": True, "I;16B": True,
    "La": False, "RGBa": False, "RGBX": False, "CMYK": False, "YCbCr": False, "LAB": False, "HSV": False,
    "I": False, "F": False,
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_pillow_is_converted_or_refused_by_name(mode: str) -> None:
    """An image in any mode, as a later Pillow might read it from a JPEG or PNG file."""
    white = {"1": 1, "I;16": 65535, "I;16L": 65535, "I;16B": 65535}.get(mode, 255)
    bands = len(Image.new(mode, (1, 1)).getbands())
    image = Image.new(mode, (SIDE, SIDE), white if bands == 1 else (white,) * bands)
    if mode in ("P", "PA"):
        image.putpalette([255, 255, 255] * 256)
    if MODES[mode]:
        assert np.asarray(as_rgb(image)).min() == 255
    else:
        with pytest.raises(UnusableImage, match=f"its colours are {mode}.*, expected RGB or grey"):
            as_rgb(image)


# Files passed to libraries


def test_clean_fid_reads_the_same_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    colours = values(8, 3).astype(np.uint8)
    kinds = {
        "plain.jpg": encode(Image.fromarray(RAMP), "JPEG"),
        "deep.png": png(values(16, 1), 16, 0),
        "turned.jpg": encode(Image.fromarray(RAMP), "JPEG", exif=exif),
        "adobe.png": encode(Image.fromarray(colours), "PNG", icc_profile=profile(ADOBE_RGB, 2.2)),
        "palette.png": png(values(4, 1), 4, 3, (b"PLTE", bytes(range(48)))),
    }
    paths = []
    for name, content in kinds.items():
        (tmp_path / name).write_bytes(content)
        paths.append(tmp_path / name)
    with _files_for_clean_fid(paths) as files:
        assert files[0] == paths[0], "most files are read in place"
        for path, file in zip(paths, files, strict=True):
            assert np.array_equal(np.asarray(Image.open(file).convert("RGB")), np.asarray(read_image(path)))
    assert all(path.exists() for path in paths) and not files[1].exists()
