"""The routes of the editor: its page, the project, single frames, the timeline file, exports."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, JSONResponse

from ditto.controls.timeline import Timeline
from ditto.controls.timeline_file import MAX_BYTES, data_of, parse_timeline, timeline_of
from ditto.editor.exports import Exports
from ditto.editor.project import Project
from ditto.errors import DittoError, InputError
from ditto.live.server.access import AccessControl
from ditto.live.server.app import MEDIA, body_of
from ditto.live.server.protocol import ProtocolError
from ditto.provenance import Provenance
from ditto.values import is_whole

logger = logging.getLogger(__name__)

PAGE = Path(__file__).with_name("page")
MOST_BODY = 4 * MAX_BYTES  # JSON of a timeline is longer than its YAML


def create_app(project: Project, token: str = "", *, provenance: Provenance | None = Provenance()) -> FastAPI:
    """The editor as an ASGI application.

    Args:
        token: that every request must carry; "": the editor answers to loopback host names only.
        provenance: what the content credentials of exported videos say; None: they get none.
    """
    page = {file.name: file.read_bytes() for file in PAGE.iterdir() if file.suffix in MEDIA}
    exports = Exports(project, provenance)
    app = FastAPI(title="ditto edit", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.clients = exports
    app.add_middleware(AccessControl, token=token)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        return refusal(ProtocolError("not_found", "no such page of the editor", error.status_code))

    @app.get("/")
    async def index() -> Response:
        return Response(page["index.html"], media_type=MEDIA[".html"])

    @app.get("/favicon.ico")  # asked for by browsers at pages that name no icon, such as answers in JSON
    async def icon() -> Response:
        return Response(page["icon.svg"], media_type=MEDIA[".svg"])

    @app.get("/page/{name}")
    async def part_of_page(name: str) -> Response:
        if name not in page:
            return refusal(ProtocolError("not_found", "no such page of the editor", 404))
        return Response(page[name], media_type=MEDIA[Path(name).suffix])

    @app.get("/api/project")
    async def about() -> Response:
        return JSONResponse(project.about() | {"formats": exports.formats})

    @app.get("/api/sound")
    async def sound() -> Response:
        return FileResponse(project.sound_file, media_type="audio/wav")

    @app.post("/api/frame")
    async def frame(request: Request) -> Response:
        async def work() -> Response:
            asked = await fields_of(request, ("frame", "timeline"))
            number = asked["frame"]
            if not is_whole(number) or number >= len(project):
                raise InputError(f"expected frame as a whole number in [0, {len(project) - 1}], got {number!r}; send another")
            timeline = timeline_in(asked["timeline"], project)
            picture, points = await asyncio.to_thread(project.preview, number, timeline)
            shares = json.dumps([[round(x, 4), round(y, 4)] for x, y in points])
            return Response(picture, media_type=MEDIA[".jpg"], headers={"x-points": shares})

        return await answered(work)

    @app.put("/api/timeline")
    async def save(request: Request) -> Response:
        async def work() -> Response:
            timeline = timeline_in((await fields_of(request, ("timeline",)))["timeline"], project)
            await asyncio.to_thread(project.save, timeline)
            return JSONResponse({"file": project.path.name})

        return await answered(work)

    @app.post("/api/parse")
    async def parse(request: Request) -> Response:
        async def work() -> Response:
            asked = await fields_of(request, ("name", "text"))
            for name in ("name", "text"):
                if not isinstance(asked[name], str):
                    raise InputError(f"expected {name} to be a text, got {asked[name]!r}; send a text")
            timeline = parse_timeline(asked["text"], asked["name"], project.seconds)
            return JSONResponse({"timeline": data_of(timeline)})

        return await answered(work)

    @app.post("/api/exports")
    async def export(request: Request) -> Response:
        async def work() -> Response:
            asked = await fields_of(request, ("format", "timeline"))
            timeline = timeline_in(asked["timeline"], project)
            return JSONResponse(exports.start(asked["format"], timeline), 202)

        return await answered(work)

    @app.get("/api/exports/{name}")
    async def export_state(name: str) -> Response:
        async def work() -> Response:
            return JSONResponse(exports.state(name))

        return await answered(work)

    @app.get("/api/exports/{name}/file")
    async def exported(name: str) -> Response:
        async def work() -> Response:
            file, title = exports.file(name)
            return FileResponse(file, filename=title)

        return await answered(work)

    return app


async def fields_of(request: Request, names: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a JSON body.

    Raises:
        InputError: no JSON object, a field too much or missing. ProtocolError: too long.
    """
    try:
        data = json.loads(await body_of(request, MOST_BODY))
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict) or set(data) != set(names):
        raise InputError(f"expected a JSON object with {' and '.join(names)}, got another body; send these")
    return data


def timeline_in(data: Any, project: Project) -> Timeline:
    """The timeline of JSON data. Raises InputError."""
    return timeline_of(data, "the timeline", project.seconds)


async def answered(work: Callable[[], Awaitable[Response]]) -> Response:
    """The response of a request, or its error as a response."""
    try:
        return await work()
    except ClientDisconnect:
        return Response(status_code=499)  # the page is gone
    except Exception as error:
        return refusal(error)


def refusal(error: Exception) -> Response:
    """An error as a response. What is not ditto's own error goes to the log, and the page learns that it is there."""
    if isinstance(error, ProtocolError):
        return JSONResponse({"error": {"code": error.code, "text": str(error)}}, error.status)
    if isinstance(error, DittoError):
        return JSONResponse({"error": {"code": "bad_input", "text": str(error)}}, 422)
    logger.error("a request failed", exc_info=error)
    return JSONResponse({"error": {"code": "internal", "text": "the editor failed; see the terminal"}}, 500)
