"""Which settings make a store smaller, and what they cost in mAP."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from forclip.index.capacity import Stored, disk_bytes, index_bytes, merged_share
from forclip.index.index_kinds import CODES, Codes

# Change of mAP@50 (base, novel classes) by the precision of stored vectors and the cosine from which they are merged:
# FOR on the toy world, three seeds (docs/results/compactness.json). Both together: the sum. The precision of the index
# changes at most 0.02, because the images that it finds are scored by their stored vectors.
MEASURED_CHANGES = {
    ("fp16", None): (0.0, 0.0),
    ("int8", None): (0.0, -0.06),
    ("int8", 0.98): (-0.15, -0.13),
}
MOST_LOST = 0.5  # mAP that a recommended setting may lose


@dataclass(frozen=True)
class Setting:
    """A way to store the same images. new: whether it needs a new store; options: of `forclip index` for a new store,
    else of `forclip compact`; bytes_per_image: on disk, search files included; change: of mAP, the larger loss of base
    and novel classes."""

    new: bool
    options: str
    bytes_per_image: float
    change: float


def smaller_settings(stored: Stored, codes: Codes | None, merge: float | None) -> list[Setting]:
    """Return the settings that make a store smaller by a tenth or more, largest first.

    stored: what the store holds; codes: precision of its index, None without one; merge: the cosine from which its
    vectors are merged.
    """
    if not stored.images:
        return []
    now = disk_bytes(stored, codes or "sq8")
    settings = [
        setting for setting in _settings(stored, codes, merge) if setting.bytes_per_image * stored.images < 0.9 * now
    ]
    return sorted(settings, key=lambda setting: -setting.bytes_per_image)


def recommended(settings: list[Setting]) -> Setting | None:
    """Return the smallest setting that loses little."""
    return min((s for s in settings if s.change >= -MOST_LOST), key=lambda s: s.bytes_per_image, default=None)


def _settings(stored: Stored, codes: Codes | None, merge: float | None) -> Iterator[Setting]:
    if codes is not None:
        for other in CODES:
            yield _setting(False, f"--index {other}", stored, other, (stored.precision, None))
    least = CODES[-1]
    then = f", then compact --index {least}" if index_bytes(stored) else ""
    eight_bits = replace(stored, precision="int8")
    if stored.precision != "int8":
        yield _setting(True, f"--precision int8{then}", eight_bits, least, ("int8", None))
    if merge is None:
        for cosine in (cosine for _, cosine in MEASURED_CHANGES if cosine is not None):
            fewer = replace(eight_bits, vectors_per_image=stored.vectors_per_image * merged_share(cosine))
            yield _setting(True, f"--precision int8 --merge {cosine}{then}", fewer, least, ("int8", cosine))


def _setting(new: bool, options: str, stored: Stored, codes: Codes, measured: tuple[str, float | None]) -> Setting:
    return Setting(new, options, disk_bytes(stored, codes) / stored.images, min(MEASURED_CHANGES[measured]))
