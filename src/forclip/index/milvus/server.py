"""A connection to Milvus: the collections of a published store, and errors in one sentence."""

import base64
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from forclip.index.milvus.address import MilvusAddress, token
from forclip.index.milvus.columns import LONGEST_TEXT
from forclip.index.milvus.filters import quoted_text
from forclip.one_line import one_line

Result = TypeVar("Result")

MOST_ROWS = 16_384  # that Milvus returns at once
CURRENT = "Strong"  # consistency level: what was acknowledged is read
_CHUNK = LONGEST_TEXT // 4 * 3  # bytes that fit a text in base64
_UNUSED = [1.0, 0.0]
_TRIES, _FIRST_WAIT = 6, 0.5
_CONNECT_TRIES, _CONNECT_SECONDS = 3, 10.0  # few, so that a wrong address is soon reported


class MilvusServer:
    """The three collections of one published store."""

    def __init__(self, address: MilvusAddress) -> None:
        """Connect. Raises ValueError where pymilvus is not installed, or no server answers."""
        try:
            from pymilvus import MilvusClient
        except ImportError:
            raise ValueError(f"{address}: needs pymilvus: pip install 'forclip[milvus]'") from None
        self.address = address
        self.vectors = address.collection
        self.images, self.texts = f"{address.collection}_images", f"{address.collection}_store"
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # its errors are raised, too

        def connect() -> MilvusClient:
            return MilvusClient(address.uri, token=token(), db_name=address.database, timeout=_CONNECT_SECONDS)

        self.client = self._retry(connect, _CONNECT_TRIES)
        with self.errors():
            self.version = self.client.get_server_version()
        self.is_lite = "lite" in self.version
        self._is_loaded = False  # the collection of texts

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Raise pymilvus's errors as ValueError in one short sentence."""
        from grpc import RpcError
        from pymilvus.exceptions import MilvusException

        try:
            yield
        except (MilvusException, RpcError, ConnectionError) as error:
            details = error.details() if isinstance(error, RpcError) else getattr(error, "message", "")
            message = one_line(details or error)[:300]
            secret = token()
            raise ValueError(f"{self.address}: {message.replace(secret, '…') if secret else message}") from None

    def exists(self) -> bool:
        """Whether there is a published store. A creation that was killed left none."""
        with self.errors():
            return self.client.has_collection(self.vectors) and bool(self.read_text("settings"))

    def forget(self) -> None:
        """Look again which collections there are."""
        self._is_loaded = False

    def load(self) -> None:
        """Have the server load the collections."""
        with self.errors():
            for name in (self.texts, self.images, self.vectors):
                self.client.load_collection(name)

    def query(self, collection: str, fields: Sequence[str], **others: Any) -> list[dict[str, Any]]:
        """Read rows by `filter` or `ids`, at most MOST_ROWS of them."""
        with self.errors():
            rows: list[dict[str, Any]] = list(self.client.query(collection, output_fields=[*fields], **others))
            return rows

    def rows(self, collection: str, fields: Sequence[str], filter: str = "", **others: Any) -> Iterator[dict[str, Any]]:
        """Read any number of rows in the order of their primary keys."""
        with self.errors():
            pages = self.client.query_iterator(
                collection, batch_size=MOST_ROWS // 2, filter=filter, output_fields=[*fields], **others
            )
            try:
                while page := pages.next():
                    yield from page
            finally:
                pages.close()

    def count(self, collection: str, filter: str = "", **others: Any) -> int:
        """Count rows."""
        return int(self.query(collection, ["count(*)"], filter=filter, **others)[0]["count(*)"])

    def write(self, collection: str, rows: list[dict[str, Any]], is_new: bool = False) -> None:
        """Store rows; a row with the primary key of another one replaces it.

        is_new: none of the rows was ever sent, which is faster. After an error it is not known whether the rows
        arrived: they are sent again, and replace what did.
        """
        if not rows:
            return
        tries = 0

        def send() -> None:
            nonlocal tries
            tries += 1
            if is_new and tries == 1:
                self.client.insert(collection, rows, retry_times=0)
            else:
                self.client.upsert(collection, rows)

        self._retry(send)

    def delete(self, collection: str, filter: str) -> None:
        """Delete rows. Without any, nothing happens."""
        self._retry(lambda: self.client.delete(collection, filter=filter))

    def _retry(self, work: Callable[[], Result], tries: int = _TRIES) -> Result:
        """Try again after an error of the network or of an overloaded server."""
        from grpc import RpcError
        from pymilvus.exceptions import MilvusException, ParamError

        for attempt in range(tries):
            try:
                return work()
            except (MilvusException, RpcError) as error:
                if isinstance(error, ParamError) or attempt + 1 == tries:
                    with self.errors():
                        raise
                time.sleep(_FIRST_WAIT * 2**attempt)
        raise AssertionError

    def read_text(self, name: str) -> str:
        """Return a text, empty if there is none."""
        with self.errors():
            if not self._is_loaded:
                if not self.client.has_collection(self.texts):
                    return ""
                self.client.load_collection(self.texts)
                self._is_loaded = True
        rows = self.query(self.texts, ["text"], filter=f"name == {quoted_text(name)}", consistency_level=CURRENT)
        return str(rows[0]["text"]) if rows else ""

    def write_texts(self, texts: Mapping[str, str]) -> None:
        """Store texts by name."""
        self.write(self.texts, [{"name": name, "text": text, "unused": _UNUSED} for name, text in texts.items()])

    def read_json(self, name: str) -> Any:
        """Return a JSON value, None if there is none."""
        text = self.read_text(name)
        return json.loads(text) if text else None

    def write_file(self, name: str, content: bytes) -> int:
        """Store a file in parts and return how many."""
        starts = range(0, max(1, len(content)), _CHUNK)
        for part, start in enumerate(starts):
            text = base64.b64encode(content[start : start + _CHUNK]).decode()
            self.write_texts({f"file/{name}/{part}": text})
        return len(starts)

    def read_file(self, name: str, parts: int) -> bytes:
        """Return a file's content. Raises ValueError where a part is missing."""
        texts = [self.read_text(f"file/{name}/{part}") for part in range(parts)]
        return b"".join(base64.b64decode(text) for text in texts)


def integers(values: Sequence[int]) -> str:
    """Write whole numbers as a list for Milvus."""
    return f"[{', '.join(map(str, values))}]"


def texts(values: Sequence[str]) -> str:
    """Write texts as a list for Milvus."""
    return f"[{', '.join(map(quoted_text, values))}]"
