"""When and with what an image was taken: golden values, and files cut at every byte of their metadata."""

from io import BytesIO

import pytest
from PIL import ExifTags, Image

from forclip.data.images.capture import Capture, read_capture

MAKE, MODEL, CHANGED = ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.DateTime
TAKEN, OFFSET = ExifTags.Base.DateTimeOriginal, ExifTags.Base.OffsetTimeOriginal


def exif_of(tags: dict[int, object], inner: dict[int, object]) -> Image.Exif:
    exif = Image.Exif()
    exif.update(tags)
    exif.get_ifd(ExifTags.IFD.Exif).update(inner)
    return exif


def picture(exif: Image.Exif | bytes, format: str = "JPEG") -> BytesIO:
    file = BytesIO()
    Image.new("RGB", (8, 8)).save(file, format, exif=exif)
    file.seek(0)
    return file


FULL = exif_of({MAKE: "Canon", MODEL: "Canon EOS R5"}, {TAKEN: "2024:05:17 13:02:11", OFFSET: "+02:00"})


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "MPO"])
def test_time_and_camera_are_read_from_every_format(format: str) -> None:
    assert read_capture(picture(FULL, format)) == Capture("2024-05-17T13:02:11+02:00", "Canon EOS R5")


def test_a_tiff_has_them_among_its_own_tags() -> None:
    """Pillow writes no others to a TIFF."""
    file = picture(exif_of({MODEL: "X100", CHANGED: "2024:05:17 13:02:11"}, {}), "TIFF")
    assert read_capture(file) == Capture("2024-05-17T13:02:11", "X100")


@pytest.mark.parametrize(
    ("make", "model", "camera"),
    [
        ("NIKON CORPORATION", "NIKON D750", "NIKON D750"),
        ("Apple", "iPhone 15", "Apple iPhone 15"),
        ("Apple", "", "Apple"),
        ("", "X100\0 and more", "X100"),
        (" Fuji\n film ", "X", "Fuji film X"),
        ("", "", None),
    ],
)
def test_a_camera_is_named_once(make: str, model: str, camera: str | None) -> None:
    assert read_capture(picture(exif_of({MAKE: make, MODEL: model}, {}))).camera == camera


@pytest.mark.parametrize(
    ("changed", "taken", "offset", "time"),
    [
        ("2020:01:02 03:04:05", "2021:01:02 03:04:05", "", "2021-01-02T03:04:05"),
        ("2020:01:02 03:04:05", "0000:00:00 00:00:00", "+01:00", "2020-01-02T03:04:05"),
        ("2020:01:02 03:04:05", "    :  :     :  :  ", "", "2020-01-02T03:04:05"),
        ("", "2021-01-02T03:04", "later", "2021-01-02T03:04:00"),
        ("", "2021:13:02 03:04:05", "", None),
        ("", "yesterday", "", None),
    ],
)
def test_the_first_time_that_makes_sense_counts(changed: str, taken: str, offset: str, time: str | None) -> None:
    assert read_capture(picture(exif_of({CHANGED: changed}, {TAKEN: taken, OFFSET: offset}))).time == time


@pytest.mark.filterwarnings("ignore::UserWarning")  # forclip itself silences Pillow's
def test_metadata_cut_anywhere_never_fail() -> None:
    """What a cut leaves is read; nothing is made up."""
    whole = FULL.tobytes()
    seen = {read_capture(picture(whole[:length])) for length in range(6, len(whole) + 1)}
    times, cameras = {found.time for found in seen}, {found.camera or "" for found in seen}
    assert times <= {None, "2024-05-17T13:02:11", "2024-05-17T13:02:11+02:00"}
    assert Capture("2024-05-17T13:02:11+02:00", "Canon EOS R5") in seen
    assert all("Canon EOS R5".startswith(camera) for camera in cameras)


def test_a_file_cut_anywhere_never_fails() -> None:
    whole = picture(FULL).getvalue()
    for length in range(len(whole)):
        read_capture(BytesIO(whole[:length]))


def test_what_is_no_image_has_no_capture() -> None:
    assert read_capture(BytesIO(b"")) == read_capture(BytesIO(b"no image")) == Capture()
