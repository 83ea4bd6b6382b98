"""Addresses of published stores: `milvus://HOST:PORT/COLLECTION`."""

import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

TOKEN_VARIABLE = "FORCLIP_MILVUS_TOKEN"
_SCHEMES = {"milvus": "http", "milvus+https": "https", "milvus-lite": ""}
_PORT = 19530
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_EXAMPLE = "milvus://localhost:19530/photos"


@dataclass(frozen=True)
class MilvusAddress:
    """Where a store is published. uri: of the server, or the file of Milvus Lite, as pymilvus takes it.

    Credentials are no part of it: `token` reads them from the environment.
    """

    text: str
    uri: str
    database: str
    collection: str

    def __str__(self) -> str:
        return self.text

    @property
    def is_lite(self) -> bool:
        """Whether pymilvus starts Milvus Lite in this process."""
        return "://" not in self.uri


def is_milvus(place: object) -> bool:
    """Whether a store's place is an address of Milvus, well written or not."""
    return str(place).startswith(tuple(f"{scheme}:" for scheme in _SCHEMES))


def parse_address(text: str) -> MilvusAddress:
    """Parse an address. Raises ValueError, in one sentence without credentials, for anything else.

    `milvus://HOST[:PORT]/[DATABASE/]COLLECTION`, `milvus+https://…` with TLS, or `milvus-lite://FILE.db/COLLECTION` for
    a file of Milvus Lite; a third slash, as in `milvus-lite:///data/try.db/photos`, makes the file's path absolute.
    """
    scheme, _, rest = text.partition("://")
    if "@" in rest.partition("/")[0]:
        raise ValueError(
            f"{scheme}://…@{rest.partition('@')[2]}: an address holds no credentials; set {TOKEN_VARIABLE} instead"
        )
    if scheme not in _SCHEMES or not rest:
        raise ValueError(f"{text}: is no address of Milvus; write it as {_EXAMPLE}")
    if scheme == "milvus-lite":
        file, _, collection = rest.rpartition("/")
        if not file.endswith(".db"):
            raise ValueError(f"{text}: names no file of Milvus Lite; write it as milvus-lite://try.db/photos")
        return MilvusAddress(text, os.path.abspath(file), "", _checked(text, collection))
    parts = urlsplit(text)
    try:
        port = parts.port or _PORT
    except ValueError:
        raise ValueError(f"{text}: the port is no number from 1 to 65535; write it as {_EXAMPLE}") from None
    names = parts.path.strip("/").split("/")
    if not parts.hostname or parts.query or parts.fragment or not names[0] or len(names) > 2:
        raise ValueError(f"{text}: names no server and collection; write it as {_EXAMPLE}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    database = _checked(text, names[0]) if len(names) == 2 else ""
    return MilvusAddress(text, f"{_SCHEMES[scheme]}://{host}:{port}", database, _checked(text, names[-1]))


def token() -> str:
    """Return the credentials from the environment, `user:password` or an API key; empty if there are none."""
    return os.environ.get(TOKEN_VARIABLE, "")


def _checked(text: str, name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{text}: {name!r} can't name a collection; use up to 200 letters, digits and underscores")
    return name
