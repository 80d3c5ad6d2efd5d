"""What our sentences say of the errors of others."""

from __future__ import annotations

from corelib.errors import MAX_REASON_LENGTH, short_message


def test_a_reason_is_short_and_on_one_line_whatever_a_library_says() -> None:
    assert short_message(ValueError("two\n   lines")) == "two lines"
    assert short_message(KeyError()) == "KeyError"
    assert len(short_message(ValueError("word " * 1000))) == MAX_REASON_LENGTH
