"""The API document: what FastAPI writes, with the bodies that routes read themselves."""

from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from eyeline.server.request import (
    AskWithoutRequest,
    ChatRequest,
    ContrastRequest,
    EvidenceRequest,
    JointRequest,
    RestsOnRequest,
    RethinkRequest,
    VerifyRequest,
)

ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "description": "An error object",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
}
ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code", "request_id"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
                "request_id": {"type": "string"},
            },
        }
    },
}


def write_document(app: FastAPI) -> dict[str, Any]:
    """The application's document, written once."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        bodies = (
            ChatRequest,
            VerifyRequest,
            RethinkRequest,
            AskWithoutRequest,
            JointRequest,
            RestsOnRequest,
            EvidenceRequest,
            ContrastRequest,
        )
        kinds = [(kind, "validation") for kind in bodies]
        _, schemas = models_json_schema(kinds, ref_template="#/components/schemas/{model}")  # pyright: ignore
        components = document.setdefault("components", {}).setdefault("schemas", {})
        components |= {**schemas["$defs"], "Error": ERROR_SCHEMA}
        for unused in ("HTTPValidationError", "ValidationError"):
            components.pop(unused, None)
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        app.openapi_schema = document
    return app.openapi_schema
