"""The parts of the OpenAPI document that are the same for every route."""

from shared.web.errors import CODES
from shared.web.examples import JsonObject

EXAMPLE_ID = "0198c5a0-7e31-7c44-a1b2-3c4d5e6f7081"

HEADERS: JsonObject = {
    "X-Request-Id": {
        "description": "The id of this request: the one that was sent, if sane, or a new one.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
        "example": EXAMPLE_ID,
    },
    "RateLimit-Limit": {
        "description": "How many requests the window allows.",
        "schema": {"type": "integer"},
        "example": 100,
    },
    "RateLimit-Remaining": {
        "description": "How many of them are left.",
        "schema": {"type": "integer"},
        "example": 99,
    },
    "RateLimit-Reset": {
        "description": "Seconds until the window ends or, after a refusal, until one more fits.",
        "schema": {"type": "integer"},
        "example": 42,
    },
    "Retry-After": {
        "description": "Seconds to wait before trying again.",
        "schema": {"type": "integer"},
        "example": 5,
    },
    "Idempotency-Replayed": {
        "description": "`true` if this is the stored answer to the first request with this key.",
        "schema": {"type": "string", "enum": ["true"]},
        "example": "true",
    },
    "WWW-Authenticate": {
        "description": "How to show a credential.",
        "schema": {"type": "string"},
        "example": "Bearer",
    },
    "ETag": {
        "description": "Names what is answered: the SHA-256 of the file, in quotes.",
        "schema": {"type": "string", "pattern": '^"[0-9a-f]{64}"$'},
        "example": '"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"',
    },
    "Accept-Ranges": {
        "description": "`Range` may ask for a part.",
        "schema": {"type": "string", "enum": ["bytes"]},
        "example": "bytes",
    },
    "Content-Disposition": {
        "description": "To be saved, and under which name.",
        "schema": {"type": "string"},
        "example": 'attachment; filename="offer.pdf"',
    },
    "Content-Range": {
        "description": "Which part it is, or how long the whole is.",
        "schema": {"type": "string", "pattern": "^bytes "},
        "example": "bytes 0-1023/48213",
    },
}

PARAMETERS: JsonObject = {
    "RequestId": {
        "name": "X-Request-Id",
        "in": "header",
        "required": False,
        "description": (
            "An id of the caller's own, to find this request by in logs and events: 1 to 128 of"
            " `A-Z a-z 0-9 . _ -`. One that is anything else is replaced."
        ),
        "schema": {"type": "string"},
        "example": "order-4711",
    },
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": (
            "Makes it safe to repeat the request: the same key with the same body within 24 hours "
            "gets the first answer again, and nothing is done twice."
        ),
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        "example": "order-4711-confirmation",
    },
    "Range": {
        "name": "Range",
        "in": "header",
        "required": False,
        "description": "Which part of the file is wanted, as `bytes=first-last`.",
        "schema": {"type": "string"},
        "example": "bytes=0-1023",
    },
    "IfNoneMatch": {
        "name": "If-None-Match",
        "in": "header",
        "required": False,
        "description": "The `ETag` of the copy that is already there.",
        "schema": {"type": "string"},
        "example": '"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"',
    },
}
PARAMETERS_OF_STATUS = {"Range": 206, "IfNoneMatch": 304}
"""Which header leads to which answer, where it is given."""

SECURITY: JsonObject = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An access token, a user key (`sk_…`) or an instance key (`api_…`).",
    },
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "A user key (`sk_…`) or an instance key (`api_…`).",
    },
}

OWN_SCHEMAS: JsonObject = {
    "Error": {
        "type": "object",
        "required": ["success", "error"],
        "properties": {
            "success": {"const": False},
            "error": {
                "type": "object",
                "required": ["code", "message", "requestId"],
                "properties": {
                    "code": {
                        "type": "string",
                        "enum": list(CODES),
                        "description": "Stable; decide by this.",
                    },
                    "message": {"type": "string", "description": "What to do, for people."},
                    "data": {
                        "type": "object",
                        "description": "`fields` maps each bad field to what is wrong with it.",
                    },
                    "requestId": {"type": "string"},
                },
            },
        },
    },
    "Pagination": {
        "type": "object",
        "required": ["limit", "nextCursor", "hasMore"],
        "properties": {
            "limit": {"type": "integer"},
            "nextCursor": {"type": ["string", "null"]},
            "hasMore": {"type": "boolean"},
            "page": {"type": "integer"},
            "total": {"type": "integer"},
        },
    },
}
PAGINATION_EXAMPLE: JsonObject = {
    "limit": 50,
    "nextCursor": "WzEsIm1lc3NhZ2VzIixbXV0",
    "hasMore": True,
}
