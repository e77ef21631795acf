"""ApiError: what a client did wrong, or what the server cannot do now, in the shape of OpenAI's
errors.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse

TYPE_OF = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    500: "server_error",
    503: "server_error",
}


class ApiError(Exception):
    """status: of HTTP. param: the field that is wrong. code: OpenAI's word for it, if any."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, object]:
        """As OpenAI sends it."""
        return {
            "error": {
                "message": self.message,
                "type": TYPE_OF.get(self.status, "server_error"),
                "param": self.param,
                "code": self.code,
            }
        }

    def response(self) -> JSONResponse:
        """The answer to the client."""
        return JSONResponse(self.body(), self.status, self.headers)


def busy(what: str) -> ApiError:
    """429: the waiting line is full."""
    return ApiError(
        429, f"{what}: try again later", code="rate_limit_exceeded", headers={"Retry-After": "1"}
    )
