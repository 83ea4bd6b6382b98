"""Messages on one line, with the user's text as it was given."""

import re


def one_line(message: object) -> str:
    """Join the lines of a message. Other white space stays: it may belong to a name or a filter that the user gave."""
    return re.sub(r"\s*[\r\n]+\s*", " ", str(message).strip())
