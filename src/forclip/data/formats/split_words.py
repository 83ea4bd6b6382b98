"""Words that tools use for the same part of a dataset."""

SPLIT_WORDS = (("train", "training"), ("val", "valid", "validation"), ("test", "testing"))


def words_for_split(split: str) -> tuple[str, ...]:
    """The words that may name a split, the given one first."""
    return (split, *(word for words in SPLIT_WORDS if split in words for word in words if word != split))
