"""Groups of equal files against a naive comparison."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from forclip.data.images.content import content_digest, file_state, find_identical_files
from forclip.data.images.frame_location import frame_path


@given(st.lists(st.binary(max_size=2), max_size=12))
def test_groups_are_those_of_equal_bytes(contents: list[bytes]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / str(k) for k in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        found = find_identical_files(paths)
    naive = {content: [k for k, other in enumerate(contents) if other == content] for content in contents}
    assert found == sorted(group for group in naive.values() if len(group) > 1)


def test_missing_files_are_in_no_group(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").write_bytes(b"x")
    advances: list[int] = []
    assert find_identical_files([tmp_path / name for name in ("gone", "a", "away", "b")], advances.append) == [[1, 3]]
    assert sum(advances) == 4


def test_a_frame_is_known_by_its_video_and_time(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    video.write_bytes(b"one")
    one, two = frame_path(video, 1), frame_path(video, 2)
    assert file_state(one) == file_state(video)
    assert content_digest(one) == f"{content_digest(video)}#t=1.000"
    assert content_digest(two) != content_digest(one)
    assert content_digest(frame_path(tmp_path / "gone.mp4", 1)) is None
    video.write_bytes(b"other")
    assert content_digest(one) == f"{content_digest(video)}#t=1.000"
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(b"other")
    paths = [one, two, frame_path(copy, 2), frame_path(copy, 3)]
    assert find_identical_files(paths) == [[1, 2]]
