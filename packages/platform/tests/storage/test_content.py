"""The content of a put is read in pieces, whatever the chunks of the stream are."""

import hashlib
from collections.abc import AsyncIterator

from hypothesis import given
from hypothesis import strategies as st

from tequipy_platform.storage import content as module
from tequipy_platform.storage.content import Content

PIECE = 10


@given(st.lists(st.binary(max_size=4 * PIECE)), st.booleans())
async def test_pieces_are_the_content(chunks: list[bytes], as_bytes: bool) -> None:
    """For any chunks, empty and long ones too, the pieces are the content, and all but the last have the least size."""

    async def stream() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    whole = b"".join(chunks)
    module.PIECE_BYTES, before = PIECE, module.PIECE_BYTES  # type: ignore[misc] # -- as small as the content
    try:
        content = Content(whole if as_bytes else stream())
        pieces = []
        while not content.finished:
            pieces.append(await content.read())
    finally:
        module.PIECE_BYTES = before  # type: ignore[misc] # -- as above
    assert b"".join(pieces) == whole
    assert all(len(piece) >= PIECE for piece in pieces[:-1])
    assert len(pieces[-1]) < PIECE
    assert (content.size, content.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())
