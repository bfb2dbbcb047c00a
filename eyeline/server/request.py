"""The bodies of requests: what OpenAI's clients send, checked as far as it can be without the model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from eyeline.server.request_error import RequestError
from eyeline.server.safety import Settings

LARGEST_SEED = 2**63 - 1
SMALLEST_SEED = -(2**63)
OTHER_PART = "other_part"
Finite = Field(allow_inf_nan=False)


class Body(BaseModel):
    """Fields that we do not know are ignored: OpenAI's clients send some."""

    model_config = ConfigDict(extra="ignore", strict=True)


class OwnBody(BaseModel):
    """What is not OpenAI's but ours: a field that we do not know is a mistake."""

    model_config = ConfigDict(extra="forbid", strict=True)


def _one_of(name: Callable[[Any], str], **more: str) -> Discriminator:
    """Chooses among types by a tag in brackets, so that an error is that of the one that was meant."""
    return Discriminator(lambda value: f"<{name(value)}>", **more)  # pyright: ignore


class TextPart(Body):
    type: Literal["text"]
    text: str


class ImageUrl(Body):
    url: str = Field(description="data:image/png;base64,... or, of allowed hosts, http(s)://...")


class ImagePart(Body):
    type: Literal["image_url"]
    image_url: ImageUrl

    @field_validator("image_url", mode="before")
    @classmethod
    def _is_an_object(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise PydanticCustomError(
                "image_url", 'Expected an object, {"url": "data:image/png;base64,..."}, not a text'
            )
        return value


def _kind_of(part: Any) -> str:
    return str(part.get("type", "")) if isinstance(part, dict) else getattr(part, "type", "")


Part = Annotated[
    Annotated[TextPart, Tag("<text>")] | Annotated[ImagePart, Tag("<image_url>")],
    _one_of(
        _kind_of,
        custom_error_type=OTHER_PART,
        custom_error_message="Expected a part of type text or image_url",
    ),
]
Several = TypeVar("Several")
OneOrMore = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[Several], Tag("<list>")],
    _one_of(lambda value: "list" if isinstance(value, list) else "text"),
]


class Turn(Body):
    role: Literal["system", "developer", "user", "assistant"]
    content: OneOrMore[Part] | None = None


class StreamOptions(Body):
    include_usage: bool = False


class Extension(OwnBody):
    save: bool = False
    regions: Literal["native", "grid", "random"] = "native"
    sources: bool = True
    measure_whole: bool = False


class ChatRequest(Body):
    """`POST /v1/chat/completions`"""

    messages: list[Turn] = Field(min_length=1)
    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: Annotated[float, Finite] | None = Field(None, ge=0, le=2)
    top_p: Annotated[float, Finite] | None = Field(None, gt=0, le=1)
    stop: OneOrMore[str] | None = None
    seed: int | None = Field(None, ge=SMALLEST_SEED, le=LARGEST_SEED)
    return_token_ids: bool | None = False
    eyeline: Extension = Extension()
    n: Literal[1] | None = None
    tools: list[Any] | None = Field(None, max_length=0)
    functions: list[Any] | None = Field(None, max_length=0)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: dict[str, Any] | None = None


class VerifyRequest(OwnBody):
    """`POST /v1/verify`"""

    run: str
    span: int = Field(ge=0, le=2**31)
    regions: list[Annotated[int, Field(ge=0, le=2**31)]] | None = Field(None, min_length=1, max_length=4096)
    together: bool = False  # one pass with all of them hidden, instead of one for each


class RethinkRequest(OwnBody):
    """`POST /v1/rethink`"""

    run: str
    regions: list[Annotated[int, Field(ge=0, le=2**31)]] = Field(min_length=1, max_length=4096)
    samples: int | None = Field(None, ge=1, le=64)  # of a run that was sampled


class ContrastRequest(OwnBody):
    """`POST /v1/contrast`"""

    run: str
    span: int = Field(ge=0, le=2**31)
    instead: str = Field(min_length=1, max_length=4096)
    words: str | None = Field(None, min_length=1, max_length=4096)  # by default all of the span


class JointRequest(OwnBody):
    """`POST /v1/joint`"""

    run: str
    target: (
        Annotated[int, Field(ge=0, le=2**31, strict=True)]
        | Annotated[str, Field(min_length=1, max_length=4096)]
        | tuple[Annotated[int, Field(ge=0, le=2**31)], Annotated[int, Field(ge=0, le=2**31)]]
    )
    regions: list[Annotated[int, Field(ge=0, le=2**31)]] = Field([], max_length=4096)


class RestsOnRequest(OwnBody):
    """`POST /v1/rests-on`"""

    run: str
    sets: (
        list[Annotated[list[Annotated[int, Field(ge=0, le=2**31)]], Field(min_length=1, max_length=4096)]]
        | None
    ) = Field(None, min_length=1, max_length=256)


class EvidenceRequest(OwnBody):
    """`POST /v1/evidence`"""

    run: str
    span: int | None = Field(None, ge=0, le=2**31)
    answer: bool = False  # with neither, of all spans and the answer
    form: Literal["pixels", "thousand", "coco"] = Field("pixels", alias="as")


class AskWithoutRequest(OwnBody):
    """`POST /v1/ask-without`"""

    run: str
    regions: list[Annotated[int, Field(ge=0, le=2**31)]] = Field(min_length=1, max_length=4096)
    stream: bool | None = True
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = False
    save: bool | None = None


Some = TypeVar("Some", bound=BaseModel)


def parse(kind: type[Some], body: bytes) -> Some:
    """Raises a `RequestError` that names the first thing that is wrong."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        if first["type"] == "json_invalid":
            raise RequestError(400, "invalid_json", f"The body is not JSON: {first['msg']}.") from None
        steps = [str(step) for step in first["loc"]]
        place = ".".join(step for step in steps if not step.startswith("<"))
        problem = first["msg"]
        if first["type"] == OTHER_PART and _kind_of(first["input"]):
            problem += f", not {_kind_of(first['input'])[:100]!r}"
        elif first["type"] == "extra_forbidden":
            fields = (Extension if steps[0] == "eyeline" else kind).model_fields
            names = (field.alias or name for name, field in fields.items())
            problem = f"There is no such field; expected {', '.join(names)}"
        raise RequestError(
            400, "invalid_value", _sentence(place, problem), param=place[:200] or None
        ) from None


def _sentence(place: str, problem: str) -> str:
    sentence = f"{place[:200] or 'The body'}: {problem}."
    if place in ("tools", "functions", "n"):
        return f"{sentence} This is not offered here; leave `{place}` out."
    return sentence


def check(request: ChatRequest, settings: Settings) -> None:
    """What is wrong with a conversation, apart from its images. Raises a `RequestError`."""
    turns = request.messages
    if len(turns) > settings.max_messages:
        raise RequestError(
            400, "invalid_value", f"At most {settings.max_messages} messages are expected.", param="messages"
        )
    if turns[-1].role != "user":
        raise RequestError(
            400, "invalid_value", "The last message must be the user's, with a question.", param="messages"
        )
    if not text_of(turns[-1]).strip():
        raise RequestError(
            400, "invalid_value", "The last message has no text; ask a question.", param="messages"
        )
    images = image_urls(turns)
    if len(images) > settings.max_images:
        raise RequestError(
            400,
            "too_many_images",
            f"The request has {len(images)} images; expected at most {settings.max_images}.",
            param="messages",
        )
    if any(turn.role != "user" and image_urls([turn]) for turn in turns):
        raise RequestError(
            400, "invalid_value", "Images belong into messages of the role `user`.", param="messages"
        )
    if request.top_logprobs is not None and not request.logprobs:
        raise RequestError(
            400, "invalid_value", "`top_logprobs` needs `logprobs: true` beside it.", param="top_logprobs"
        )
    stops = stops_of(request)
    if len(stops) > 4 or not all(0 < len(stop) <= 256 for stop in stops):
        raise RequestError(
            400, "invalid_value", "`stop` takes up to 4 texts of 1 to 256 characters.", param="stop"
        )
    kind = (request.response_format or {}).get("type", "text")
    if kind != "text":
        raise RequestError(
            400, "invalid_value", "Only text is written here; leave `response_format` out.",
            param="response_format",
        )  # fmt: skip
    wanted = max_tokens(request)
    if wanted is not None and wanted > settings.max_tokens:
        raise RequestError(
            400,
            "invalid_value",
            f"max_tokens is {wanted}; expected at most {settings.max_tokens}.",
            param="max_tokens",
        )


def max_tokens(request: ChatRequest) -> int | None:
    return request.max_completion_tokens or request.max_tokens


def stops_of(request: ChatRequest) -> list[str]:
    return [request.stop] if isinstance(request.stop, str) else request.stop or []


def text_of(turn: Turn) -> str:
    if isinstance(turn.content, str):
        return turn.content
    return "\n".join(part.text for part in turn.content or () if isinstance(part, TextPart))


def image_urls(turns: Sequence[Turn]) -> list[str]:
    return [
        part.image_url.url
        for turn in turns
        if isinstance(turn.content, list)
        for part in turn.content
        if isinstance(part, ImagePart)
    ]


def conversation(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """The turns as `Model.inputs` takes them."""

    def content(turn: Turn) -> str | list[Mapping[str, str]]:
        if not isinstance(turn.content, list):
            return _plain(turn.content or "")
        return [
            {"type": "text", "text": _plain(part.text)} if isinstance(part, TextPart) else {"type": "image"}
            for part in turn.content
        ]

    roles = {"developer": "system"}
    return [{"role": roles.get(turn.role, turn.role), "content": content(turn)} for turn in turns]


def _plain(text: str) -> str:
    """Without lone surrogates, which no tokenizer takes."""
    return text.encode("utf-8", "replace").decode()
