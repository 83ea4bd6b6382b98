"""Frames by time, whether decoded in one pass or by seeking."""

import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from forclip.data.images.decode import UnreadableImage, image_size, read_image
from forclip.data.images.frame_location import frame_path
from forclip.data.images.video import VideoReader, VideoScan, read_frame, scan_video
from tests.videos import BLUE, GREEN, RED, WHITE, frame_number, write_sound, write_video

FILES = {
    "mp4 with B-frames": ("clip.mp4", {"key_every": 40}),
    "mkv": ("clip.mkv", {}),
    "webm": ("clip.webm", {"codec": "libvpx", "key_every": 30}),
    "avi": ("clip.avi", {"codec": "mpeg4"}),
    "transport stream, which starts late": ("clip.ts", {"key_every": 40}),
    "program stream, whose key frames are unknown": ("clip.mpg", {"codec": "mpeg2video"}),
    "bare H.264, without times": ("clip.h264", {}),
    "fragments, without a length": ("clip.mp4", {"options": {"movflags": "frag_keyframe+empty_moov"}}),
}


@pytest.mark.parametrize(("name", "settings"), FILES.values(), ids=FILES.keys())
def test_each_frame_is_found_in_any_order(tmp_path: Path, name: str, settings: dict[str, object]) -> None:
    """The frame on screen at t is number 25 t, rounded down."""
    count = 200
    video = write_video(tmp_path / name, count, **settings)  # type: ignore[arg-type]
    scan = scan_video(video)
    assert len(scan.starts) == count
    assert scan.end == pytest.approx(count / 25, abs=0.05)
    assert scan.problem is None
    times = [0.03, 0.31, 0.35, 0.51, 1.71, 1.79, 4.03, 7.63, 7.99]
    with VideoReader(video, name) as reader:
        in_order = {time: frame_number(reader.frame_at(time), count) for time in times}
        expected = np.array([round(1000 * time) // 40 for time in times])
        # The times of program streams are off by up to a frame.
        assert np.abs(np.array(list(in_order.values())) - expected).max() <= (1 if name == "clip.mpg" else 0)
        for time in random.Random(0).sample(times, len(times)):
            assert frame_number(reader.frame_at(time), count) == in_order[time]
    for time in (0.51, 7.63):
        assert frame_number(read_image(frame_path(video, time)), count) == in_order[time]


def test_a_location_is_a_picture(tmp_path: Path) -> None:
    location = frame_path(write_video(tmp_path / "clip.mp4"), 0.5)
    assert read_image(location).size == image_size(location) == (64, 48)
    with pytest.raises(UnreadableImage, match=r"clip\.mp4: .*9\.000.*ends at 2\.000"):
        read_image(tmp_path / "clip.mp4#t=9")
    with pytest.raises(UnreadableImage, match=r"gone\.mp4: no such file"):
        read_image(tmp_path / "gone.mp4#t=1")
    assert image_size(tmp_path / "gone.mp4#t=1") is None


def test_samples_are_the_multiples_that_show_another_frame() -> None:
    def sample(starts: list[float], end: float, every: float) -> list[float]:
        return VideoScan(np.array(starts), end, None).sample(every)

    steady = [k / 30 for k in range(95)]
    assert sample(steady, 95 / 30, 1) == [0, 1, 2, 3]
    assert sample(steady, 3.0, 1) == [0, 1, 2]  # nothing is on screen at the end
    assert sample(steady, 95 / 30, 0.5) == [0, 0.5, 1, 1.5, 2, 2.5, 3]
    assert sample(steady, 95 / 30, 100) == [0]
    assert sample(steady, 95 / 30, 0.1 + 0.2)[:4] == [0, 0.3, 0.6, 0.9]
    # A picture that stays on screen is taken once.
    assert sample([0, 0.9, 5.2, 5.3], 60, 1) == [0, 1, 6]
    assert sample([0.04], 0.08, 1) == [0]


def test_frames_of_variable_length(tmp_path: Path) -> None:
    starts = [0, 1000, 1040, 9000, 20_000]
    video = write_video(tmp_path / "screen.mp4", 5, starts=starts)
    scan = scan_video(video)
    assert scan.starts == pytest.approx(np.array(starts) / 1000, abs=1e-3)
    assert scan.sample(1)[:5] == [0, 1, 2, 9, 20]
    assert [frame_number(read_frame(video, time), 5) for time in (0, 0.9, 1, 8.9, 9, 19.9, 20)] == [0, 0, 1, 2, 3, 3, 4]


def corners(image: Image.Image) -> list[tuple[int, int, int]]:
    """The nearest primary colour in the middle of each quarter, row by row."""
    known = np.array([RED, GREEN, BLUE, WHITE])
    pixels = np.asarray(image).astype(int)
    height, width = pixels.shape[:2]
    found = [pixels[y * height // 4, x * width // 4] for y in (1, 3) for x in (1, 3)]
    return [tuple(known[np.abs(known - pixel).sum(1).argmin()].tolist()) for pixel in found]


def quarters(scale: int = 1) -> Image.Image:
    image = Image.new("RGB", (64 * scale, 48 * scale), RED)
    for colour, place in ((GREEN, (1, 0)), (BLUE, (0, 1)), (WHITE, (1, 1))):
        image.paste(
            colour,
            (32 * scale * place[0], 24 * scale * place[1], 64 * scale, 48 * scale)
            if place != (0, 1)
            else (0, 24 * scale, 32 * scale, 48 * scale),
        )
    return image


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_frames_are_upright(tmp_path: Path, degrees: int, mirrored: bool) -> None:
    """As phones store them: turned, and mirrored by front cameras."""
    video = write_video(tmp_path / "phone.mp4", 30, picture=quarters(), rotation=(degrees, mirrored))
    expected = quarters().rotate(degrees, expand=True)
    expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else expected
    for time in (0.0, 1.1):
        frame = read_frame(video, time)
        assert frame.size == expected.size
        assert corners(frame) == corners(expected)


def test_pixels_are_square(tmp_path: Path) -> None:
    video = write_video(tmp_path / "dvd.mkv", 3, picture=quarters(), aspect=Fraction(4, 3))
    assert read_frame(video, 0).size == (85, 48)


def test_hd_without_a_mark_has_the_colours_of_hd(tmp_path: Path) -> None:
    """Players take it for BT.709."""
    with av.open(tmp_path / "hd.mkv", "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv444p"
        frame = av.VideoFrame.from_ndarray(np.full((720, 1280, 3), (200, 30, 30), np.uint8), "rgb24")
        converted = frame.reformat(format="yuv444p", dst_colorspace="ITU709")
        converted.colorspace = 2
        container.mux(stream.encode(converted))
        container.mux(stream.encode())
    assert np.abs(np.asarray(read_frame(tmp_path / "hd.mkv", 0))[0, 0] - np.array([200, 30, 30])).max() <= 3


@pytest.mark.parametrize("keep", [0.5, 0.7])
def test_frames_before_a_cut_are_kept(tmp_path: Path, keep: float) -> None:
    video = write_video(tmp_path / "clip.mp4", 200, options={"movflags": "faststart"})
    content = video.read_bytes()
    video.write_bytes(content[: int(keep * len(content))])
    scan = scan_video(video)
    assert scan.problem is not None
    assert "clip.mp4: is cut off" in scan.problem
    assert 10 < len(scan.starts) < 200
    times = scan.sample(0.5)
    with VideoReader(video, "clip.mp4") as reader:
        assert [frame_number(reader.frame_at(time), 200) for time in times[:-1]] == [
            int(25 * time) for time in times[:-1]
        ]


def test_frames_around_damage_are_kept(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.mp4", 200, size=(160, 96), options={"movflags": "faststart"})
    content = bytearray(video.read_bytes())
    middle = slice(len(content) // 2, len(content) // 2 + len(content) // 8)
    content[middle] = bytes(len(content[middle]))
    video.write_bytes(content)
    read, damaged = 0, 0
    with VideoReader(video, "clip.mp4") as reader:
        for time in scan_video(video).sample(0.2):
            try:
                read += frame_number(reader.frame_at(time), 200) == int(round(1000 * time) // 40)
            except UnreadableImage as error:
                assert f"{time:.3f}" in str(error)  # noqa: PT017
                damaged += 1
    assert damaged > 0
    assert read > 20


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video " * 100)
    write_sound(tmp_path / "sound.mp4")
    (tmp_path / "unfinished.mp4").write_bytes(write_video(tmp_path / "whole.mp4").read_bytes()[:1000])
    for name in ("empty.mp4", "text.mp4", "sound.mp4", "unfinished.mp4", "missing.mp4"):
        with pytest.raises(UnreadableImage, match=name):
            scan_video(tmp_path / name)
        with pytest.raises(UnreadableImage, match=name):
            read_frame(tmp_path / name, 0)


def test_playlists_open_nothing_else(tmp_path: Path) -> None:
    target = write_video(tmp_path / "secret.ts")
    playlist = tmp_path / "clip.mp4"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:2,\nfile://{target}\n#EXT-X-ENDLIST\n")
    with pytest.raises(UnreadableImage):
        scan_video(playlist)
    (tmp_path / "list.avi").write_text(f"ffconcat version 1.0\nfile '{target}'\n")
    with pytest.raises(UnreadableImage):
        scan_video(tmp_path / "list.avi")


def test_large_frames_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = write_video(tmp_path / "clip.mp4", 3)
    monkeypatch.setattr("forclip.data.images.video.MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(UnreadableImage, match="64 x 48"):
        read_frame(video, 0)


def test_the_cover_of_music_is_no_video(tmp_path: Path) -> None:
    """A stream of one picture that is marked as attached."""
    cover = write_video(tmp_path / "cover.mkv", 1, codec="mjpeg", pixels="yuvj420p")
    with av.open(cover) as source, av.open(tmp_path / "music.mp4", "w") as container:
        sound = container.add_stream("aac", rate=16_000)
        picture = container.add_stream_from_template(source.streams.video[0])
        picture.disposition = av.stream.Disposition.attached_pic
        assert isinstance(sound, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.sample_rate = 16_000
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = picture
                container.mux(packet)
    with pytest.raises(UnreadableImage, match="no video stream"):
        scan_video(tmp_path / "music.mp4")
