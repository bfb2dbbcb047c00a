"""The API document against the running server: whatever fits it is answered, and nothing breaks the server."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error

OPERATIONS = (
    ("POST", "/v1/chat/completions"), ("POST", "/v1/verify"), ("POST", "/v1/joint"),
    ("POST", "/v1/rests-on"), ("POST", "/v1/rethink"), ("POST", "/v1/evidence"), ("POST", "/v1/contrast"),
    ("POST", "/v1/ask-without"), ("GET", "/v1/runs"),
    ("GET", "/v1/runs/{run}"), ("DELETE", "/v1/runs/{run}"), ("GET", "/v1/runs/{run}/images/{number}"),
    ("GET", "/v1/runs/{run}/{name}"), ("GET", "/v1/audit"), ("GET", "/v1/models"),
    ("GET", "/v1/models/{model}"), ("GET", "/v1/gallery"),
    ("GET", "/v1/gallery/{scene}.png"), ("GET", "/healthz"), ("GET", "/metrics"),
)  # fmt: skip


@pytest.fixture(scope="module")
def document(server):
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def test_the_document_lists_the_whole_api(document):
    listed = {(found.ok().method.upper(), found.ok().path) for found in document.get_all_operations()}
    assert listed == set(OPERATIONS)


FITTING, OTHERS = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
# any text fits a path, so nothing else can be sent there
CASES = [(*operation, FITTING) for operation in OPERATIONS] + [
    (method, path, OTHERS) for method, path in OPERATIONS if method == "POST" or path == "/v1/runs"
]


@pytest.mark.parametrize(("method", "path", "mode"), CASES)
def test_no_request_breaks_the_server_whether_it_fits_the_document_or_not(document, method, path, mode):
    operation = document[path][method]

    @given(operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=15,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    def check(case):
        if path == "/v1/chat/completions" and isinstance(case.body, dict):
            case.body |= {"max_tokens": 2, "max_completion_tokens": None}
        response = case.call(timeout=30)
        case.validate_response(response, checks=[not_a_server_error])
        if response.status_code >= 400:
            error = response.json()["error"]
            assert error["message"]
            assert [error["request_id"]] == response.headers["x-request-id"]

    check()
