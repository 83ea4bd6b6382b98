"""Decode frames of untrusted videos by time; failures are reported, never fatal.

The frame at a time is the one that players show then: the last frame that starts no later, or the first frame.
"""

from __future__ import annotations  # PyAV's types can be subscripted by a type checker only

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, BinaryIO, Self, cast

import av
import numpy as np
from av.video.reformatter import Colorspace, ColorTrc
from PIL import Image

from forclip.data.images.decode import MAX_PIXELS, UnreachableImage, UnreadableImage
from forclip.data.images.fetch import open_seekable
from forclip.data.images.hdr import Transfer, map_hdr
from forclip.file_systems import Unreachable
from forclip.location import Location, Uri
from forclip.types import Doubles

# Names of FFmpeg's demuxers. Playlists (hls, dash, concat) are not among them: they open other files and addresses.
_CONTAINERS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "flv", "asf", "ogg", "mxf", "h264", "hevc", "mjpeg"),
    *("m4v", "ivf", "dv", "nut", "gif", "mp3", "wav", "aac", "flac"),
)
_THREADS = 2  # of each decoder
_HALF_MILLISECOND = 0.0005  # times are rounded to milliseconds
_STALE = 0.25  # seconds: a frame that is older than the one that should be shown stands for a damaged one
_CUT_OFF = 1.0  # seconds that may lack at the end, because headers round and tracks end at different times
# Streams have few times of their own; the first ones after a seek are wrong guesses.
_STREAMS, _STREAM_MARGIN = ("mpeg", "mpegts"), 3.0
_KEY_DISTANCE = 1.0  # seconds between key frames, at first
_HDR: dict[int, Transfer] = {ColorTrc.SMPTE2084: "pq", ColorTrc.ARIB_STD_B67: "hlg"}
_UNSPECIFIED, _HD_ROWS = 2, 720
_MAX_ASPECT = 4  # of a pixel; a larger one is a mistake


@dataclass(frozen=True)
class VideoScan:
    """When the frames of a video start. starts: [F] seconds, ascending, F > 0. end: of the last frame, in seconds.

    problem: why the end is missing, or None.
    """

    starts: Doubles
    end: float
    problem: str | None

    def sample(self, every: float) -> list[float]:
        """Return the multiples of `every` seconds before the end, without those that show the frame of the one before.

        Rounded to milliseconds. The first is 0.
        """
        times = every * np.arange(max(1, np.ceil(round(self.end / every, 6))))
        shown = np.searchsorted(self.starts, times + _HALF_MILLISECOND, side="right").clip(1)
        return [round(time, 3) for time in times[np.diff(shown, prepend=0) > 0].tolist()]


def scan_video(video: Location) -> VideoScan:
    """Read when the frames of a video start, without decoding them.

    Raises UnreadableImage, naming the file, for one that is missing, is no video or has no frame.
    """
    starts: list[float] = []
    end = any_end = 0.0
    problem = None
    with VideoReader(video, str(video)) as reader:
        container, stream = reader.container, reader.stream
        try:
            for packet in container.demux([*container.streams.video, *container.streams.audio]):
                if packet.size == 0 or packet.is_discard or packet.time_base is None:
                    continue
                seconds = float((packet.duration or 0) * packet.time_base)
                if packet.pts is not None:
                    ends = float(packet.pts * packet.time_base) + seconds - (container.start_time or 0) / av.time_base
                    any_end = max(any_end, ends)
                if packet.stream is stream:
                    starts.append(reader.packet_time(packet, len(starts)))
                    end = max(end, starts[-1] + seconds)
                    if packet.is_corrupt and problem is None:
                        problem = f"{video}: is damaged at {starts[-1]:.3f} s; frames may be missing or wrong"
        except av.FFmpegError as error:
            problem = f"{video}: has no frame from {end:.3f} s on: {_reason(error)}"
        if not starts:
            raise UnreadableImage(f"{video}: has no frame")
        # The header may give the number of frames, the stream's own length, or only that of the longest stream.
        lacks_frames = len(starts) + max(1.0, _CUT_OFF / reader.frame_seconds) < stream.frames
        lacks_time = (any_end if stream.duration is None else end) < reader.length - _CUT_OFF
        end = max(end, starts[-1] + reader.frame_seconds)
        if lacks_frames or lacks_time:
            promised = f"{stream.frames} frames" if lacks_frames else f"{reader.length:.3f} s"
            problem = f"{video}: is cut off at {end:.3f} s; its header says {promised}"
    return VideoScan(np.sort(np.array(starts, np.float64)), end, problem)


def read_frame(video: Location, seconds: float) -> Image.Image:
    """Decode one frame to RGB, upright. Raises UnreadableImage."""
    with VideoReader(video, str(video)) as reader:
        return reader.frame_at(seconds)


class VideoReader:
    """An open video. Frames in ascending order of time are decoded in one pass, others by seeking."""

    def __init__(self, file: Location | BinaryIO, name: str) -> None:
        """name: what error messages call the video.

        Raises UnreadableImage for a file that is missing, is no video, or has frames of more than MAX_PIXELS.
        """
        self.file, self.name = file, name
        try:
            self._open()
        except FileNotFoundError:
            raise UnreadableImage(f"{name}: no such file") from None
        except UnreadableImage:
            raise
        except Unreachable as error:
            raise UnreachableImage(str(error)) from None
        except Exception as error:
            raise UnreadableImage(f"{name}: not a video that FFmpeg can read: {_reason(error)}") from None
        self._can_seek, self._key_distance = self.stream.start_time is not None, _KEY_DISTANCE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.container.close()

    def frame_at(self, seconds: float) -> Image.Image:
        """Decode the frame at a time to RGB, upright. Raises UnreadableImage, naming the video and the time."""
        try:
            frame = self._find(seconds + _HALF_MILLISECOND)
            return _to_image(frame, self.stream.sample_aspect_ratio)
        except UnreadableImage:
            raise
        except Unreachable as error:
            raise UnreachableImage(str(error)) from None
        except Exception as error:
            raise UnreadableImage(f"{self.name}: no frame at {seconds:.3f} s: {_reason(error)}") from None

    @property
    def frame_seconds(self) -> float:
        """The mean time between two frames; 1/25 if unknown."""
        rate = self.stream.average_rate or self.stream.guessed_rate
        return 1 / float(rate) if rate else 0.04

    def packet_time(self, packet: av.VideoFrame | av.Packet[Any], count: int) -> float:
        """When a packet or a frame starts, in seconds since the video's start. count: how many come before.

        Streams without times, such as bare H.264, have the count of frames alone.
        """
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is None or packet.time_base is None:
            return count * self.frame_seconds
        start = 0 if self.stream.start_time is None else self.stream.start_time
        return max(0.0, float((stamp - start) * packet.time_base))

    def _open(self) -> None:
        source = open_seekable(self.file.container) if isinstance(self.file, Uri) else self.file
        self.container = av.open(source, "r", options={"format_whitelist": ",".join(_CONTAINERS)})
        # Music has its cover as a stream of one picture.
        pictures = av.stream.Disposition.attached_pic
        streams = [stream for stream in self.container.streams.video if not stream.disposition & pictures]
        if not streams:
            self.container.close()
            raise UnreadableImage(f"{self.name}: has no video stream")
        self.stream, self._tick = streams[0], streams[0].time_base or Fraction(1, av.time_base)
        width, height = self.stream.codec_context.width, self.stream.codec_context.height
        if width * height > MAX_PIXELS:
            self.container.close()
            raise UnreadableImage(f"{self.name}: {width} x {height} is over {MAX_PIXELS} pixels")
        self.stream.thread_type, self.stream.codec_context.thread_count = "AUTO", _THREADS
        self._start()

    def _start(self) -> None:
        """Forget what was decoded: the next packet is that of the file's or of a key frame's position."""
        self._packets = self.container.demux(self.stream)
        self._decoded: deque[av.VideoFrame] = deque()
        self._sent: list[float] = []  # times of packets, of which the frame on screen is not later
        self._end, self._count = 0.0, 0
        self._shown: tuple[float, av.VideoFrame] | None = None
        self._next: tuple[float, av.VideoFrame] | None = None

    def _find(self, until: float) -> av.VideoFrame:
        """The last frame that starts until then, or the first one. Raises ValueError where it can't be decoded."""
        shown = 0.0 if self._shown is None else self._shown[0]
        if self._can_seek and not 0 <= until - shown <= self._key_distance:
            self._seek(until)
        elif until < shown:
            self._restart()
        if self._shown is None:
            self._shown, self._next = self._next or self._advance(), self._advance()
        while self._next is not None and self._next[0] <= until:
            self._shown, self._next = self._next, self._advance()
        if self._shown is None:
            raise ValueError("there is no frame")
        time, frame = self._shown
        self._sent = [sent for sent in self._sent if sent > time]
        if any(time + _STALE < sent <= until for sent in self._sent):
            raise ValueError("damaged")
        if self._next is None and until > max(self._end, time + _CUT_OFF, self.length):
            raise ValueError(f"it ends at {self._end:.3f} s")
        return frame

    def _advance(self) -> tuple[float, av.VideoFrame] | None:
        """The next decoded frame and its time, in the order of display; None at the end."""
        while not self._decoded:
            try:
                packet = next(self._packets)
            except (StopIteration, av.FFmpegError):
                return None
            if packet.size and not packet.is_discard:
                self._sent.append(self.packet_time(packet, self._count + len(self._sent)))
                self._end = max(self._end, self._sent[-1] + float((packet.duration or 0) * self._tick))
            try:
                self._decoded += packet.decode()
            except av.FFmpegError:
                continue  # the frame is missed when it should be shown
        frame = self._decoded.popleft()
        time = self.packet_time(frame, self._count)
        self._count += 1
        return time, frame

    def _seek(self, until: float) -> None:
        """Go to the last key frame that starts until then, or to the start, and learn how far apart key frames are."""
        start = self.stream.start_time or 0
        back = margin = _STREAM_MARGIN if self.container.format.name in _STREAMS else 0.0
        while back < until:
            try:
                target = start + int((until - back) / self._tick)
                self.container.seek(target, stream=self.stream)
            except av.FFmpegError:
                break
            self._start()
            # Some containers don't know their key frames. Before the first, a picture lacks what it builds on.
            while (decoded := self._advance()) is not None and not decoded[1].key_frame:
                pass
            if decoded is not None and decoded[0] <= until:
                self._next = decoded
                self._key_distance = max(self._key_distance, 1.5 * (until - margin - decoded[0]))
                return
            back = 4 * (back or self._key_distance)
        self._can_seek = False
        self._restart()

    def _restart(self) -> None:
        self.container.close()
        self._open()

    @property
    def length(self) -> float:
        """Seconds, by the file's header; 0 if unknown."""
        if self.stream.duration is not None:
            return float(self.stream.duration * self._tick)
        return (self.container.duration or 0) / av.time_base


def _to_image(frame: av.VideoFrame, pixel_aspect: Fraction | None) -> Image.Image:
    """Convert to 8-bit RGB as a player shows it: upright, with square pixels, and with HDR mapped to a usual screen."""
    if frame.width * frame.height > MAX_PIXELS:
        raise ValueError(f"{frame.width} x {frame.height} is over {MAX_PIXELS} pixels")
    # Without a mark players take HD for BT.709; FFmpeg takes everything for television before HD.
    unmarked_hd = frame.colorspace == _UNSPECIFIED and frame.height >= _HD_ROWS
    matrix = Colorspace.ITU709 if unmarked_hd else None
    if frame.color_trc in _HDR:
        pixels = frame.reformat(format="rgb48le", src_colorspace=matrix).to_ndarray().astype(np.uint16, copy=False)
        image = Image.fromarray(map_hdr(pixels, _HDR[frame.color_trc]))
    else:
        image = Image.fromarray(frame.reformat(format="rgb24", src_colorspace=matrix).to_ndarray())
    if pixel_aspect and pixel_aspect != 1 and 1 / _MAX_ASPECT <= pixel_aspect <= _MAX_ASPECT:
        image = image.resize((round(image.width * pixel_aspect), image.height), Image.Resampling.BICUBIC)
    data = cast(Mapping[str, bytes], frame.side_data)  # what PyAV says of it holds for motion vectors alone
    return _upright(image, bytes(data.get("DISPLAYMATRIX", b"")))


def _upright(image: Image.Image, display_matrix: bytes) -> Image.Image:
    """Turn and mirror by quarters. The matrix (a, b, u, c, d, v, ...) maps x to a x + c y, and y to b x + d y."""
    if not display_matrix:
        return image
    a, b, _, c, d, *_ = np.frombuffer(display_matrix, np.int32).tolist()
    if abs(b) > abs(a):
        image, across, down = image.transpose(Image.Transpose.TRANSPOSE), c, b
    else:
        across, down = a, d
    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if across < 0 else image
    return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if down < 0 else image


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, av.FFmpegError) else str(error)
