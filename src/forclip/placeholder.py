"""Recognise files that stand for another one: pointers of Git LFS and git-annex, and web pages."""

_POINTER_BYTES = 1024  # a pointer is shorter


def describe_placeholder(start: bytes) -> str | None:
    """Say what a file that starts like this is in place of the wanted one, and what to do; None for any other file."""
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself; run `git lfs pull` in its folder"
    if b"annex/objects/" in start and len(start) < _POINTER_BYTES:
        return "a git-annex pointer, not the file itself; run `git annex get` in its folder"
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "a web page, not the file itself; download it again"
    return None
