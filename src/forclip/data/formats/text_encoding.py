"""Decode text files of unknown encoding."""

import codecs
import re
from pathlib import Path
from typing import NamedTuple

import charset_normalizer
import pyarrow as pa

from forclip.one_line import one_line

_MARKS = {  # UTF-32's little-endian mark starts with UTF-16's, so it comes first
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_NOT_TEXT = {
    b"PK\x03\x04": "a workbook or a zip",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"%PDF": "a PDF",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"PAR1": "a Parquet file",
}
_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}
_SAMPLE = 1 << 20  # bytes, enough to guess an encoding from
_MOSTLY_FOREIGN = 0.7  # share of non-ASCII bytes in words; Latin scripts stay below, others are near 1
_WESTERN = ("cp1252", "mac_roman", "cp850")  # Windows', and Excel's "CSV (Macintosh)" and "CSV (MS-DOS)"
_WESTERN_LETTERS = re.compile(r"[äöüßéèêëàâçñáíóúîïôûùåæøœãõìò]|\b[ÄÖÜÉÈÀÇÑÁÍÓÚÅÆØŒ]")
_NOT_LATIN = re.compile(
    "cp1251|cp1253|cp1255|cp1256|cp866|koi8|gb|big5|hz|cp932|shift_jis|euc|iso2022|cp949|johab|tis|cp874"
)


class DecodedText(NamedTuple):
    """The text of a file. guessed: the encoding, if nothing in the file says which one it is, else None.

    A file that is UTF-8 up to damaged bytes has these as lone surrogates (`surrogateescape`).
    """

    text: str
    guessed: str | None = None


def read_unknown_text(file: Path, kind: str = "file") -> DecodedText:
    """Read UTF-8, UTF-16, UTF-32 or the older encoding that fits best; compressed files (.gz) are unpacked.

    Line ends stay as they are. kind: what a missing file is called. Raises ValueError, naming the file, if it is
    missing, unreadable or no text, and the line that no encoding fits.
    """
    try:
        # Opened here, because Arrow takes no name that is not UTF-8.
        with file.open("rb") as raw, pa.input_stream(raw, compression=_COMPRESSIONS.get(file.suffix.lower())) as stream:
            content: bytes = stream.read()
    except FileNotFoundError:
        raise ValueError(f"{file}: no such {kind}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: not readable as text: {one_line(error)[:200]}") from None
    for start, name in _NOT_TEXT.items():
        if content.startswith(start):
            raise ValueError(f"{file}: is {name}, not text; save it as CSV in UTF-8")
    return decode_unknown(content, str(file))


def decode_unknown(content: bytes, name: str) -> DecodedText:
    """Decode bytes as `read_unknown_text` does. name: of the file; it starts the message of the ValueError."""
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            return DecodedText(_decode(content, encoding, name))
    content = content.removeprefix(codecs.BOM_UTF8)
    if wide := _wide_encoding(content):
        return DecodedText(_decode(content, wide, name), wide)
    lenient = content.decode("utf-8", "surrogateescape")
    damaged = len(re.findall("[\udc80-\udcff]", lenient))
    if not damaged or len(re.findall(r"[^\x00-\x7f]", lenient)) >= 2 * damaged:  # as many whole characters
        return DecodedText(lenient)
    older = _older_encoding(content)
    return DecodedText(_decode(content, older or "utf-8", name), older)


def _decode(content: bytes, encoding: str, name: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        before = content[: error.start].decode(encoding, "ignore")
        line = len(re.findall("\r\n|\r|\n", before)) + 1
        raise ValueError(f"{name}: line {line} is not {encoding.upper()}; save the file in UTF-8") from None


def _wide_encoding(content: bytes) -> str | None:
    """Recognise UTF-16 without a mark by the zero bytes of its ASCII characters."""
    sample = content[: _SAMPLE // 2 * 2]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if len(sample) < 4 or max(even, odd) < len(sample) / 8 or min(even, odd) > max(even, odd) / 8:
        return None
    return "utf-16-be" if even > odd else "utf-16-le"


def _older_encoding(content: bytes) -> str | None:
    """Guess a one-byte or East Asian encoding that decodes everything, or None.

    Statistics fail on short texts, so the words decide. Latin scripts mix ASCII letters with others, and are read with
    the encoding for Western Europe that gives most letters. In other scripts nearly all bytes are above ASCII.
    """
    sample = content[:_SAMPLE]
    words = [word for word in re.findall(rb"[A-Za-z\x80-\xff]+", sample) if not word.isascii()]
    above = sum(byte > 0x7F for word in words for byte in word)
    candidates = [match.encoding for match in charset_normalizer.from_bytes(sample)]
    foreign = [e for e in candidates if _NOT_LATIN.match(e) and _is_plausible(sample, e)]
    if above > _MOSTLY_FOREIGN * sum(map(len, words)) and foreign:
        candidates = foreign + candidates
    else:
        letters = {e: len(_WESTERN_LETTERS.findall(sample.decode(e, "replace"))) for e in _WESTERN}
        candidates = sorted(_WESTERN, key=letters.__getitem__, reverse=True) + candidates
    return next((encoding for encoding in candidates if _decodes(content, encoding)), None)


def _is_plausible(content: bytes, encoding: str) -> bool:
    """Whether text in Korean or Japanese encodings has the letters of these languages."""
    above = re.sub(r"[\x00-\x7f]", "", content.decode(encoding, "ignore"))
    if re.match("cp949|johab|euc_kr", encoding):
        return len(re.findall("[\uac00-\ud7a3]", above)) > _MOSTLY_FOREIGN * len(above)
    if re.match("cp932|shift_jis|euc_ji|euc_jp", encoding):
        return re.search("[\u3041-\u30ff]", above) is not None
    return True


def _decodes(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
