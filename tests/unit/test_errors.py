"""Errors of other libraries in our own error messages."""

from __future__ import annotations

from corelib.errors import MAX_REASON_LENGTH, short_message


def test_the_message_of_a_library_is_shortened_to_one_line() -> None:
    assert short_message(ValueError("two\n   lines")) == "two lines"
    assert short_message(KeyError()) == "KeyError"
    assert len(short_message(ValueError("word " * 1000))) == MAX_REASON_LENGTH
