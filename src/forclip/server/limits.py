"""How much one request may ask of the service."""

TEXT_CHARACTERS = 1_000
TEXTS = 10  # in one search
WHERE_CHARACTERS = 2_000
K = 1_000
OFFSET = 10_000
UPLOAD_BYTES = 20_000_000
BODY_BYTES = 1_000_000  # of everything but an upload
MULTIPART_BYTES = 100_000  # what an upload's form may add to its picture
SELECTIONS = 1_000
NAME_CHARACTERS = 100
KEYS = 10_000  # in one request
PICKS = 500  # right ones in a search, and as many wrong ones
SELECTED = 100_000  # in one selection
EXPORTED_BYTES = 2_000_000_000  # of pictures in one export
