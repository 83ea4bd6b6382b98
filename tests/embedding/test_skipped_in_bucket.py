"""The list of unreadable images of a store in a bucket, to which any number of machines add."""

from forclip.bucket_path import BucketPath
from forclip.embedding.changes import UnreadableImage
from forclip.embedding.skipped_list import read_unreadable, shorten_unreadable, write_unreadable


def test_additions_of_all_machines_stay_until_they_are_taken_off(bucket: str) -> None:
    store = BucketPath(f"{bucket}/s")
    images = {f"{k}": UnreadableImage(f"/x/{k}", k, k, "torn") for k in range(40)}
    for image_id, image in images.items():
        write_unreadable(store, {image_id: image})
    write_unreadable(store, {}, removed=["3"])
    del images["3"]
    assert read_unreadable(store) == images
    shorten_unreadable(store)
    assert read_unreadable(store) == images
    assert len(store.sizes()) == 1
    write_unreadable(store, {"new": images["4"]}, removed=["4"])
    assert read_unreadable(store).keys() == (images.keys() - {"4"}) | {"new"}
