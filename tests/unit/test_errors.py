"""What our sentences say of the errors of others."""

from __future__ import annotations

from corelib.errors import LONGEST_REASON, reason_of


def test_a_reason_is_short_and_on_one_line_whatever_a_library_says() -> None:
    assert reason_of(ValueError("two\n   lines")) == "two lines"
    assert reason_of(KeyError()) == "KeyError"
    assert len(reason_of(ValueError("word " * 1000))) == LONGEST_REASON
