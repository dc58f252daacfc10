"""The format of the messages of the channel."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tequipy_caching.cache.keys import Key, encode_key
from tequipy_caching.cache.tiers import Change
from tequipy_caching.redis.messages import (
    change_from_json,
    change_to_json,
    decode_message,
    decode_refused,
    encode_message,
    key_from_json,
    key_to_json,
)

KEYS: st.SearchStrategy[Key] = st.recursive(
    st.text(st.characters(exclude_categories=["Cs"])) | st.integers() | st.uuids(),
    lambda parts: st.lists(parts, max_size=4).map(tuple),
    max_leaves=8,
)
CHANGES = (
    st.builds(
        Change, st.sampled_from(["delete", "expire", "released"]), keys=st.lists(KEYS, max_size=3), tags=st.just(())
    )
    | st.builds(Change, st.just("tags"), keys=st.just(()), tags=st.lists(st.text("0123456789abcdef"), max_size=3))
    | st.just(Change("clear"))
)


@given(KEYS)
def test_a_key_keeps_its_type_in_a_message(key: Key) -> None:
    """A key encoded as JSON is decoded unchanged, including its type."""
    there = key_from_json(json.loads(json.dumps(key_to_json(key))))
    assert there == key
    assert encode_key(there) == encode_key(key)


@pytest.mark.parametrize("strange", [True, None, 1.5, {"uuid": 1}, {"uuid": "x"}, {}, ["a", None]])
def test_json_that_is_not_a_key_is_refused(strange: object) -> None:
    """JSON that is not an encoded key is refused."""
    with pytest.raises(ValueError, match=r"not a key|badly formed"):
        key_from_json(strange)


@given(CHANGES)
def test_a_change_arrives_unchanged(change: Change) -> None:
    """A change that is encoded in a message of either form is decoded unchanged."""
    message = encode_message("process", "cache:users", change_to_json(change))
    _, origin, topic, body = decode_message(f"epoch 7 {message.numbered}".encode())
    refused = decode_refused(message.refused.encode())
    assert (origin, topic, body) == refused
    decoded = change_from_json(body)
    assert decoded == change._replace(keys=list(change.keys) or decoded.keys, tags=list(change.tags) or decoded.tags)


@pytest.mark.parametrize(
    "strange",
    [None, [], ["delete"], ["delete", 1], ["delete", [None]], ["tags", [1]], ["clear", ["a"]], ["moved", []], {}],
)
def test_json_that_is_not_a_change_is_refused(strange: object) -> None:
    """JSON that is not an encoded change is refused."""
    with pytest.raises(ValueError, match="not a"):
        change_from_json(strange)


@pytest.mark.parametrize("data", [b"", b"epoch", b"epoch 1 {}", b'epoch x ["a", "b", 1]', b"\xff\xff \xff {}"])
def test_data_that_is_not_a_message_is_refused(data: bytes) -> None:
    """Data of another format, or of a later version, raises the error after which a process clears its memory."""
    assert decode_refused(data) is None
    with pytest.raises(ValueError, match=r"."):
        decode_message(data)
