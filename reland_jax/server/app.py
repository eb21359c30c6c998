"""The application: paths, and what each of them answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reland_jax.config import nearest_name
from reland_jax.serve import Explanation, sentence, shown
from reland_jax.server import schemas
from reland_jax.server.batching import Worker
from reland_jax.server.description import description
from reland_jax.server.edition import Edition, Filter, Listed
from reland_jax.server.guard import Guard
from reland_jax.server.limits import Limits
from reland_jax.server.metering import Meters
from reland_jax.server.pages import page
from reland_jax.server.refusals import Refusal, encoded
from reland_jax.server.shelf import Shelf, Watcher

MOST_FOUND = 50
"""Items that a search gives."""
SHOWN_HISTORY = 200
"""Items of a history that an explanation gives, the newest ones."""

Asked = TypeVar("Asked", bound=schemas.Question)
Answer = dict[str, Any]


class Server:
    """The application with what it works on.

    Attributes:
        app: the ASGI application.
        shelf: the bundles in service.
        watcher: looks for new ones.
        is_draining: whether it is about to stop; then it is not ready any more, and answers all the same.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        limits: Limits,
        *,
        token: str = "",
        hosts: Sequence[str] = (),
        watch: float = 2.0,
        borrowed: str = "step2",
    ) -> None:
        """Reads the bundles. The lifespan of `app` starts and ends the threads.

        Args:
            folders: of the bundles, by the name of the recommender; the first is the usual one.
            limits: of the server.
            token: see `Guard`.
            hosts: see `Guard`.
            watch: seconds between two looks for new bundles; 0 looks only when `watcher` is told to.
            borrowed: what is shown of rationales that were written from another user's history, of
                `reland_jax.serve.BORROWED`.

        Raises:
            RelandError: a bundle cannot be used.
        """
        self._limits, self._borrowed, self._meters, self.is_draining = limits, borrowed, Meters(), False
        self.shelf = Shelf(folders, limits, self._meters.swap)
        self.watcher = Watcher(self.shelf, watch)
        self._worker = Worker(limits.queue, limits.batch, limits.seconds, self._meters.batch)
        self._meters.watch_waiting(lambda: len(self._worker))
        self._description = description(limits)
        routes = self._routes()
        # Starlette's types ask for handlers of any exception; each is given its own kind.
        handlers: Any = {Refusal: _refused, HTTPException: _not_there}
        inner = Starlette(routes=routes, lifespan=self._lifespan, exception_handlers=handlers)
        self.app = Guard(inner, limits, self._meters, [route.path for route in routes], token, hosts)

    def _routes(self) -> list[Route]:
        return [
            Route("/recommend", self._recommend, methods=["POST"]),
            Route("/explain", self._explain, methods=["POST"]),
            Route("/similar", self._similar, methods=["POST"]),
            Route("/items", self._items),
            Route("/models", self._models),
            Route("/healthz", self._health),
            Route("/readyz", self._ready),
            Route("/metrics", self._metrics),
            Route("/openapi.json", self._openapi),
            Route("/docs", lambda request: page("docs.html")),
            Route("/", lambda request: page("page.html")),
        ]

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self._worker.start()
        self.watcher.start()
        yield
        await asyncio.to_thread(self.watcher.stop)
        await asyncio.to_thread(self._worker.stop)

    async def _recommend(self, request: Request) -> Response:
        asked, edition = await self._asked(request, schemas.RecommendRequest)
        reader, k = edition.reader(asked.user, asked.items), self._length(asked)
        kind = edition.kind(reader, k, asked.exclude_seen, self._filter(asked.filter))
        found: Listed = await self._worker.ask(
            (id(edition), kind), lambda readers: edition.lists(kind, readers), reader
        )
        items = _ranked(edition, found.items[:k], found.scores)
        said = found.rationale and sentence(found.rationale, found.is_own, self._borrowed)
        told = {"items": items, "explanation": said or "", "unknown": list(reader.unknown)}
        return _answer(edition, told)

    async def _explain(self, request: Request) -> Response:
        asked, edition = await self._asked(request, schemas.ExplainRequest)
        reader, k = edition.reader(asked.user, asked.items), self._length(asked)
        found: Explanation = await self._alone(edition.explained, reader, k)
        told = {
            "history": [_item(label) for label in found.history[-SHOWN_HISTORY:]],
            "rationales": [
                {"own": seed.is_own, "weight": seed.weight, "step1": steps[0], "step2": steps[1]}
                for seed in found.seeds
                if any(steps := shown(seed, seed.is_own, self._borrowed))
            ],
            "items": _reasons(found),
            "unknown": list(reader.unknown),
        }
        return _answer(edition, told)

    async def _similar(self, request: Request) -> Response:
        asked, edition = await self._asked(request, schemas.SimilarRequest)
        edition.numbers(asked.items)
        distinct = list(dict.fromkeys(asked.items))
        rows = await self._alone(edition.similar, distinct, self._length(asked))
        found: dict[str, list[Answer]] = {item: [] for item in distinct}
        for row in rows:
            found[row.pop("item")].append({"item": row.pop("similar")} | row)
        items = [{"item": item, "similar": similar} for item, similar in found.items()]
        return _answer(edition, {"items": items})

    async def _items(self, request: Request) -> Response:
        self._check_ready()
        words, edition = request.query_params.get("q", ""), self.shelf.get(request.query_params.get("model"))
        if not words.strip() or len(words) > 200:
            raise Refusal(422, "a search has 1 to 200 characters", "q", "ask /items?q=WORDS")
        numbers = await asyncio.to_thread(edition.search, words, MOST_FOUND)
        return _json({"items": [_numbered(edition, number) for number in numbers]})

    async def _models(self, request: Request) -> Response:
        models = [
            {
                "model": each.name, "version": each.version, "variant": each.variant,
                "backbone": each.backbone, "items": len(each.item_ids),
            }
            for each in self.shelf.editions()
        ]  # fmt: skip
        return _json({"models": models})

    async def _health(self, request: Request) -> Response:
        return _json({"status": "ok"})

    async def _ready(self, request: Request) -> Response:
        if self.is_draining:
            raise Refusal(503, "the server is stopping", "", "ask another one", 1)
        self._check_ready()
        return _json({"status": "ready"})

    async def _metrics(self, request: Request) -> Response:
        return Response(self._meters.text(), media_type="text/plain; version=0.0.4")

    async def _openapi(self, request: Request) -> Response:
        return _json(self._description)

    async def _asked(self, request: Request, form: type[Asked]) -> tuple[Asked, Edition]:
        """The body of a request, and the edition that it names."""
        self._check_ready()
        try:
            asked = form.model_validate_json(await request.body())
        except ValidationError as error:
            raise _mistake(error, form) from None
        return asked, self.shelf.get(asked.model)

    def _check_ready(self) -> None:
        if not self.shelf.is_ready:
            raise Refusal(503, "the server is not ready yet", "", "try again in a few seconds", 2)

    def _length(self, asked: schemas.Question) -> int:
        if "k" not in asked.model_fields_set:
            return min(asked.k, self._limits.k)
        if asked.k > self._limits.k:
            raise Refusal(422, f"a list has at most {self._limits.k} items", "k", "ask for fewer")
        return asked.k

    def _filter(self, wanted: Mapping[str, str | list[str]]) -> Filter:
        """The filter in one order, so that equal ones are answered together."""
        if len(wanted) > (most := self._limits.fields):
            raise Refusal(422, f"a filter has at most {most} fields", "filter", "leave some out")
        found = []
        for field, given in sorted(wanted.items()):
            values = (given,) if isinstance(given, str) else tuple(sorted(set(given)))
            if not 1 <= len(values) <= (most := self._limits.values):
                raise Refusal(422, f"a field has 1 to {most} values", "filter", "give so many")
            found.append((field, values))
        return tuple(found)

    async def _alone(self, work: Any, *arguments: Any) -> Any:
        """What is asked of the device for one request, in its turn."""
        return await self._worker.ask(
            object(), lambda questions: [work(*each) for each in questions], arguments
        )


def _answer(edition: Edition, told: Answer) -> Response:
    return _json({"model": edition.name, "version": edition.version} | told)


def _json(value: Any, status: int = 200) -> Response:
    return Response(encoded(value), status, media_type="application/json")


def _numbered(edition: Edition, number: int) -> Answer:
    return {"item": edition.item_ids[number - 1], "title": edition.titles[number - 1]}


def _ranked(edition: Edition, items: Sequence[int], scores: Sequence[float]) -> list[Answer]:
    pairs = zip(items, scores, strict=False)
    return [
        _numbered(edition, number) | {"rank": rank, "score": score}
        for rank, (number, score) in enumerate(pairs, 1)
    ]


def _item(label: Any) -> Answer:
    return {"item": label.item_id, "title": label.title or label.item_id}


def _reasons(found: Explanation) -> list[Answer]:
    return [
        _item(each.item) | {"rank": rank, "score": each.score, "words": list(each.words)}
        | {"history": [_item(label) for label in each.history]}
        for rank, each in enumerate(found.items, 1)
    ]  # fmt: skip


def _mistake(error: ValidationError, form: type[BaseModel]) -> Refusal:
    """The first mistake in a body, in the words of pydantic, which repeat nothing of its values."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    # Where a field may be of two kinds, pydantic names the kind as well.
    parts = [part for part in first["loc"] if part not in ("constrained-str", "list[constrained-str]")]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
    is_json = first["type"] == "json_invalid"
    what = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        hint = nearest_name(where[:200], list(form.model_fields))
        return Refusal(422, "there is no such field", where[:200], hint)
    return Refusal(400 if is_json else 422, what, where[:200] or "body", "see /docs for what is taken")


async def _refused(request: Request, refusal: Refusal) -> Response:
    return Response(refusal.body(), refusal.status, refusal.headers(), media_type="application/json")


async def _not_there(request: Request, error: HTTPException) -> Response:
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        refusal = Refusal(405, "this path takes another method", "method", f"use {allowed}")
        return Response(refusal.body(), 405, dict(error.headers or {}), media_type="application/json")
    return await _refused(
        request, Refusal(404, "there is no such path", "path", "see /docs for those there are")
    )
