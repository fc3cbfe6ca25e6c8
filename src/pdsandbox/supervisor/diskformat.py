"""How one compiled module lies in a file: a head, its types, its native code, and a tag over all of it. Pure.

    offset  bytes
         0      8  magic, its last byte the format's number
         8     32  key: what the code was compiled from, by what and for what (`Processes.fingerprint`)
        40     32  SHA-256 of the source, for people
        72      4  bytes of metadata
        76      8  bytes of native code
        84     32  tag: BLAKE2b, keyed with the user's secret, of bytes 0 to 84, the metadata and the native code
       116         metadata: the versions, imports, exports (`protocol.metadata`)
         …         native code, to the end of the file

Lengths come before the tag can be checked, so they are bounded by the file's own length and by what a compiler might
have made of the source. Nothing else is looked at before the tag was found right.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import Final, NamedTuple, Self

from ..externs import ExportType, ImportType
from ..protocol import metadata
from ..protocol.codec import ProtocolError, Reader, Writer

MAGIC: Final = b"pdsand\0\1"
_head: Final = struct.Struct("<8s32s32sIQ32s")
HEAD_BYTES: Final = _head.size
TAG_BYTES: Final = 32
SECRET_BYTES: Final = 32
# The versions stand before what METADATA_CAP bounds.
_METADATA_MOST: Final = metadata.METADATA_CAP + 1024


class Damaged(Exception):
    """This is no entry that was made with this secret: why, in a few words."""


class Head(NamedTuple):
    """The first HEAD_BYTES."""

    key: bytes
    source: bytes
    metadata_bytes: int
    artifact_bytes: int
    tag: bytes = bytes(TAG_BYTES)

    def pack(self) -> bytes:
        """Its bytes."""
        return _head.pack(MAGIC, self.key, self.source, self.metadata_bytes, self.artifact_bytes, self.tag)

    @classmethod
    def unpack(cls, raw: bytes, file_bytes: int, artifact_most: int) -> Self:
        """The head of a file of this size; Damaged unless all that it says of lengths is possible."""
        if len(raw) != HEAD_BYTES:
            raise Damaged(f"too short: {len(raw)} bytes")
        magic, key, source, metadata_bytes, artifact_bytes, tag = _head.unpack(raw)
        if magic != MAGIC:
            raise Damaged("another format")
        if metadata_bytes > _METADATA_MOST or not 0 < artifact_bytes <= artifact_most:
            raise Damaged("impossible lengths")
        if HEAD_BYTES + metadata_bytes + artifact_bytes != file_bytes:
            raise Damaged("a length that does not fit its contents")
        return cls(key, source, metadata_bytes, artifact_bytes, tag)


class Sealer:
    """Computes an entry's tag: feed it the metadata, then the native code, in pieces of any size."""

    def __init__(self, secret: bytes, head: Head) -> None:
        self._hash = hashlib.blake2b(key=secret, digest_size=TAG_BYTES, person=b"pdsandbox cache")
        self._hash.update(head.pack()[:-TAG_BYTES])
        self.update = self._hash.update

    def tag(self) -> bytes:
        """The tag of what was fed."""
        return self._hash.digest()

    def check(self, tag: bytes) -> None:
        """Damaged unless this is the tag of what was fed."""
        if not hmac.compare_digest(tag, self._hash.digest()):
            raise Damaged("its contents do not match its tag")


class Types(NamedTuple):
    """What is known of a module beside its code."""

    versions: str
    imports: tuple[ImportType, ...]
    exports: tuple[ExportType, ...]

    def pack(self) -> bytes:
        """Its bytes."""
        w = Writer()
        w.text(self.versions)
        metadata.write_imports(w, self.imports)
        metadata.write_exports(w, self.exports)
        return w.payload()

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Of what a tag was found right for; Damaged if it is still not to be understood."""
        r = Reader(raw)
        try:
            found = cls(r.text(), metadata.read_imports(r), metadata.read_exports(r))
            r.end()
        except ProtocolError as exc:
            raise Damaged(f"its types make no sense: {exc}") from exc
        return found
