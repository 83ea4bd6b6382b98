"""Recognise files that stand for another one: pointers of Git LFS and git-annex, and web pages."""


def describe_placeholder(start: bytes) -> str | None:
    """Say what a file that starts like this is in place of the wanted one, and what to do; None for any other file."""
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself; run `git lfs pull` in its folder"
    # The pointer itself, or the target of a link that was saved as text.
    if start.lstrip(b"./").startswith((b"annex/objects/", b"git/annex/objects/")):
        return "a git-annex pointer, not the file itself; run `git annex get` in its folder"
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "a web page, not the file itself; download it again"
    return None
