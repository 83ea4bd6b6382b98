"""Divide a listing among jobs that don't know of each other, as array jobs of Slurm or Kubernetes."""

import re
from dataclasses import dataclass
from hashlib import blake2b

from forclip.data.images.frame_location import is_video, split_frame
from forclip.location import Location, Uri, absolute

_ROWS, _BYTES = 4096, 1 << 28  # of a table and of a tar that one job reads
_TEXT = re.compile(r"(\d{1,9})/(\d{1,9})")


@dataclass(frozen=True)
class Shard:
    """The part `index` of `count` parts of any listing. Raises ValueError for a part that there is not."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            last = f"0/{self.count} to {self.count - 1}/{self.count}" if self.count > 0 else "0/1"
            raise ValueError(f"--shard {self}: the shards are {last}")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def holds(self, image_id: str, path: Location) -> bool:
        """Whether an image or a video is in this part. Every job gives the same answer, whatever else is listed.

        The frames of a video are where the video is, so that it is decoded once. Pictures that are next to each other
        in a tar or a table are in one part, so that it is not read by every job.
        """
        video = path if is_video(path) else (split_frame(path) or (None,))[0]
        key = image_id if video is None else "/".join(str(absolute(video)).split("/")[-2:])
        if video is None and isinstance(path, Uri) and path.member:
            place = int(path.member) // _ROWS if path.member.isdecimal() else path.start // _BYTES
            key = f"{'/'.join(path.container.split('/')[-2:])}#{place}"
        digest = blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count == self.index


def parse_shard(text: str) -> Shard:
    """Parse `3/64`: the part 3 of 64, counted from 0. Raises ValueError for anything else."""
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"--shard {text}: write it as 3/64, which is the part 3 of 64, counted from 0")
    return Shard(int(match[1]), int(match[2]))
