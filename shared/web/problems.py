"""pydantic's findings in the words of an API that tells its callers what to do."""

from collections.abc import Mapping

from pydantic import ValidationError
from pydantic_core import ErrorDetails

# By pydantic's error type; ``{…}`` is filled from the error's context. What is not listed keeps
# pydantic's own words, which say what is wrong and only lack what to do.
_WORDS: Mapping[str, str] = {
    "missing": "is missing; add it",
    "extra_forbidden": "is not a field here; remove it or check its spelling",
    "string_type": "must be a string",
    "string_too_long": "is too long; at most {max_length} characters",
    "string_too_short": "is too short; at least {min_length} characters",
    "string_pattern_mismatch": "does not have the right form; it must match {pattern}",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "too_long": "has too many items: {actual_length}; at most {max_length}",
    "too_short": "has too few items: {actual_length}; at least {min_length}",
    "greater_than_equal": "must be {ge} or more",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be {le} or less",
    "less_than": "must be less than {lt}",
    "enum": "must be one of {expected}",
    "literal_error": "must be one of {expected}",
    "union_tag_invalid": "must be one of {expected_tags}",
    "union_tag_not_found": "lacks {discriminator}, which says what kind it is; add it",
    "uuid_parsing": "must be a UUID, such as 0198c5a0-7e31-7c44-a1b2-3c4d5e6f7081",
    "uuid_type": "must be a UUID, such as 0198c5a0-7e31-7c44-a1b2-3c4d5e6f7081",
    "datetime_parsing": "must be a time such as 2026-01-15T10:30:00.000Z",
    "datetime_from_date_parsing": "must be a time such as 2026-01-15T10:30:00.000Z",
    "datetime_type": "must be a time such as 2026-01-15T10:30:00.000Z",
    "timezone_aware": "lacks its offset from UTC; end it with Z",
    "date_parsing": "must be a date such as 2026-01-15",
    "date_from_datetime_parsing": "must be a date such as 2026-01-15",
    "url_parsing": "must be a URL such as https://example.com/hook",
    "url_scheme": "must be a URL that starts with one of {expected_schemes}",
}

_WHOLE = "body"
_OWN_WORDS = frozenset({"value_error", "assertion_error"})


def fields_of(error: ValidationError) -> dict[str, str]:
    """Each bad field by its path in the request, and what is wrong with it.

    Never its value: that may be a password, and this goes into answers.
    """
    found: dict[str, str] = {}
    for details in error.errors(include_url=False, include_input=False):
        path = ".".join(str(step) for step in details["loc"]) or _WHOLE
        # The first finding wins: in a union the later ones are about forms that were not meant.
        found.setdefault(path, _words(details))
    return found


def _words(details: ErrorDetails) -> str:
    context = details.get("ctx", {})
    if details["type"] in _OWN_WORDS and "error" in context:
        return str(context["error"])
    known = _WORDS.get(details["type"])
    if known is None:
        message = details["msg"]
        return message[:1].lower() + message[1:]
    return known.format_map(context)
