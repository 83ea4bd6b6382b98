"""How much one request may ask of the service."""

TEXT_CHARACTERS = 1_000
TEXTS = 10  # in one search
WHERE_CHARACTERS = 2_000
K = 20_000
COLLAPSED = 11_000  # rank of the last image of a list without near duplicates
WHOLE_ANSWER = 1_000  # images in an answer that is sent as a whole
OFFSET = 10_000
UPLOAD_BYTES = 20_000_000
BODY_BYTES = 1_000_000  # of every request but an upload
MULTIPART_BYTES = 100_000  # that an upload's form may add to its picture
SELECTIONS = 1_000
NAME_CHARACTERS = 100
KEYS = 10_000  # in one request
VERDICTS = 500  # right in one search, and as many wrong
SELECTED = 100_000  # images in one selection
REVIEWERS = 1_000
REVIEWED = 100_000  # verdicts of one reviewer
SAVED_SEARCHES = 1_000
QUEUES = 50  # of images to review, of one reviewer: the latest
QUEUED = 1_000  # images in one queue
ADDRESS_CHARACTERS = 8_000
SAMPLE = 100  # images in one sample
EXPORTED_BYTES = 2_000_000_000  # of pictures in one export
PICTURE_CACHE_BYTES = 256_000_000  # of pictures that were fetched from URLs and shards, in memory
