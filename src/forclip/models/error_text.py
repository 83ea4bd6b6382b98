"""Shorten the errors of libraries to what fits into a sentence."""


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type's name if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
