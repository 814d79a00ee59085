"""Messages and explanations as words. Pure."""

import re


def without_numbers(text: str) -> str:
    """The words alone: two messages that differ in numbers only are equal then."""
    return re.sub(r"\d+(\.\d+)?", "#", text)
