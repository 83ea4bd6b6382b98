from pathlib import Path

import pytest

from forclip.data.images.frame_location import file_of, frame_path, is_video, parse_interval, split_frame


def test_a_location_is_split_into_what_it_was_made_of() -> None:
    for video in (Path("clip.mp4"), Path("a#b/c d.v1.MOV"), Path("/x/clip#t=3.mp4")):
        for seconds in (0.0, 0.001, 12.5, 3600.04):
            assert split_frame(frame_path(video, seconds)) == (video, seconds)
    assert str(frame_path(Path("clip.mp4"), 12.5)) == "clip.mp4#t=12.500"


@pytest.mark.parametrize(("name", "seconds"), [("a.mp4#t=7", 7), ("a.mp4#t=.5", 0.5), ("a.mp4#t=npt:2.25s", 2.25)])
def test_times_as_people_write_them(name: str, seconds: float) -> None:
    assert split_frame(Path(name)) == (Path("a.mp4"), seconds)


@pytest.mark.parametrize("name", ["a.mp4", "a.mp4#t=", "a.mp4#t=x", "a.mp4#t=-1", "a.mp4#t=1,2", "#t=1", "a.mp4#t=nan"])
def test_other_names_are_files(name: str) -> None:
    assert split_frame(Path(name)) is None
    assert file_of(Path(name)) == Path(name)


def test_a_file_that_is_called_like_a_frame_is_itself(tmp_path: Path) -> None:
    file = tmp_path / "a.png#t=1"
    file.touch()
    assert split_frame(file) is None
    assert file_of(tmp_path / "b.mp4#t=1") == tmp_path / "b.mp4"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("0.5s", 0.5), ("500ms", 0.5), ("2min", 120), ("2 m", 120), ("1h", 3600), ("10", 10), (" 3 SEC ", 3)],
)
def test_intervals(text: str, seconds: float) -> None:
    assert parse_interval(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "0", "0s", "-1s", "1x", "30 frames", "0.1ms", "nan", "inf", "1s2", "1e3"])
def test_bad_intervals_are_named(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text!r} is no time"):
        parse_interval(text)


def test_videos_are_known_by_their_names(tmp_path: Path) -> None:
    assert all(is_video(Path(name)) for name in ("a.mp4", "b.MOV", "c.webm"))
    assert not any(is_video(Path(name)) for name in ("a.mp3", "mp4", "a.jpg", ".mp4x"))
    stream, script = tmp_path / "a.ts", tmp_path / "b.ts"
    stream.write_bytes((b"G" + bytes(187)) * 2)
    script.write_text("Good: number" * 50)
    assert is_video(stream)
    assert not is_video(script)
    assert not is_video(tmp_path / "missing.ts")
