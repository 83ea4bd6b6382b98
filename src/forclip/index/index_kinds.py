"""Names of approximate indexes: the precision of their codes, and FAISS's factory strings for it."""

from typing import Literal, get_args

import faiss

NO_INDEX = "none"
Codes = Literal["sq8", "rabitq4", "rabitq1"]
CODES: tuple[Codes, ...] = get_args(Codes)
_FACTORY: dict[Codes, str] = {"sq8": "SQ8", "rabitq4": "RaBitQ4", "rabitq1": "RaBitQ"}
_RABITQ_BITS: dict[Codes, int] = {"rabitq4": 4, "rabitq1": 1}
_ROW_NUMBER = 8  # bytes that an inverted list keeps with each code


def parse_codes(name: str | None) -> Codes | None:
    """Return the precision of that name, None for any other text."""
    return next((codes for codes in CODES if codes == name), None)


def lists_kind(lists: int, dim: int, codes: Codes = "sq8") -> str:
    """Return FAISS's name of inverted lists. Half-precision centres, since all are compared.

    sq8: 8 bits a dimension; rabitq4, rabitq1: 4 bits or 1 bit a dimension (RaBitQ, arXiv 2405.12497) of vectors that
    are rotated at random, so that the bits say equally much.
    """
    rotation = "" if codes == "sq8" else f"RR{dim},"
    return f"{rotation}IVF{lists}(SQfp16),{_FACTORY[codes]}"


def scan_kind(dim: int) -> str:
    """Return FAISS's name of codes for search without lists: product quantisation, 4 bits for two dimensions."""
    return f"PQ{dim // 2 if dim % 2 == 0 else dim}x4fs"


def codes_of(kind: str) -> Codes | None:
    """Return the precision of inverted lists by FAISS's name, None for a kind that `lists_kind` does not name."""
    codes = kind.rpartition(",")[2]
    return next((name for name, factory in _FACTORY.items() if "IVF" in kind and factory == codes), None)


def bytes_per_vector(codes: Codes, dim: int) -> int:
    """Return what a vector takes in inverted lists, its number included."""
    if codes == "sq8":
        return dim + _ROW_NUMBER
    return int(faiss.RaBitQuantizer(dim).compute_code_size(dim, _RABITQ_BITS[codes])) + _ROW_NUMBER
