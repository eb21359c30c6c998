"""The server, called in the process: answers, refusals, hostile requests, exchanges under load."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reland_jax.serve import Reland
from reland_jax.server import Limits
from tests.server.client import Answer, Client

pytestmark = pytest.mark.optional("starlette", requirements="serve")

LIMITS = Limits(body=4096, k=5, history=20, batch=8, fields=2, values=3)
Use = Callable[[Client], Awaitable[Any]]


def using(folders: dict[str, Path], use: Use, limits: Limits = LIMITS, **options: Any) -> Any:
    """Starts a server, waits until it is ready, and does something with it."""
    from reland_jax.server import Server

    async def run() -> Any:
        async with Client(Server(folders, limits, **options).app).running() as client:
            await client.ready()
            return await use(client)

    return asyncio.run(run())


def answers(folders: dict[str, Path], *asked: tuple[str, Any], **options: Any) -> list[Answer]:
    """POSTs bodies to paths, or GETs them where the body is None."""

    async def ask(client: Client) -> list[Answer]:
        return [await (client.get(path) if body is None else client.post(path, body)) for path, body in asked]

    return using(folders, ask, **options)


def test_it_answers_what_the_api_answers(bundles: dict[str, Path]) -> None:
    model = Reland.load(bundles["reland"])
    wanted = {"brand": "Quellin"}
    known, new, told, alike, found, models = answers(
        bundles,
        ("/recommend", {"user": "u1", "k": 3}),
        (
            "/recommend",
            {"items": ["i1", "nothing", "i2"], "k": 2, "model": "id", "filter": wanted},
        ),
        ("/explain", {"user": "u1", "k": 2}),
        ("/similar", {"items": ["i3", "i3", "i1"], "k": 2}),
        ("/items?q=SOAP%20mint", None),
        ("/models", None),
    )
    table = model.recommend("u1", 3).to_pydict()
    rows = known.json()["items"]
    assert [row["item"] for row in rows] == table["item"] and [row["rank"] for row in rows] == table["rank"]
    assert [row["title"] for row in rows] == table["title"]
    nearest = model.explain("u1").seeds[0]
    assert table["explanation"][0] == nearest.step2 and not nearest.is_own
    assert known.json()["explanation"] == nearest.step2 and known.json()["model"] == "reland"
    of_id = Reland.load(bundles["id"]).recommend_from_history(["i1", "i2"], 2, filter=wanted)
    assert [row["item"] for row in new.json()["items"]] == of_id["item"].to_pylist()
    assert (new.json()["unknown"], new.json()["model"]) == (["nothing"], "id")
    expected = model.explain("u1", 2)
    assert [each["item"] for each in told.json()["history"]] == [each.item_id for each in expected.history]
    assert [each["step2"] for each in told.json()["rationales"]] == [each.step2 for each in expected.seeds]
    assert [each["words"] for each in told.json()["items"]] == [list(each.words) for each in expected.items]
    similar = model.similar_items(["i3", "i1"], 2).to_pydict()["similar"]
    assert [row["item"] for each in alike.json()["items"] for row in each["similar"]] == similar
    assert found.json() == {"items": [{"item": "i3", "title": "Mint soap"}]}
    assert [each["model"] for each in models.json()["models"]] == ["reland", "f_item", "id"]


@pytest.mark.parametrize(
    ("path", "body", "status", "where"),
    [
        ("/recommend", b"{", 400, "body"),
        ("/recommend", b"\xff", 400, "body"),
        ("/recommend", b'{"user": "\\ud800"}', 400, "body"),
        ("/recommend", b"[" * 4000, 400, "body"),
        ("/recommend", [], 422, "body"),
        ("/recommend", {}, 422, "body"),
        ("/recommend", {"user": "u1", "items": ["i1"]}, 422, "body"),
        ("/recommend", {"user": 1}, 422, "user"),
        ("/recommend", {"user": "u1", "k": 0}, 422, "k"),
        ("/recommend", {"user": "u1", "k": 6}, 422, "k"),
        ("/recommend", {"user": "u1", "k": True}, 422, "k"),
        ("/recommend", {"user": "u1", "kk": 1}, 422, "kk"),
        ("/recommend", {"user": "u99"}, 404, "user"),
        ("/recommend", {"user": "u1", "model": "x"}, 404, "model"),
        ("/recommend", {"items": []}, 422, "items"),
        ("/recommend", {"items": ["i1", 2]}, 422, "items[1]"),
        ("/recommend", {"items": ["x"]}, 404, "items"),
        ("/recommend", {"items": ["i1"] * 21}, 422, "items"),
        ("/recommend", {"user": "u1", "filter": {"colour": "red"}}, 422, "filter"),
        ("/recommend", {"user": "u1", "filter": {"brand": []}}, 422, "filter"),
        ("/recommend", {"user": "u1", "filter": {"brand": "None"}}, 422, "filter"),
        ("/recommend", {"user": "u1", "filter": {"brand": ["a", "b", "c", "d"]}}, 422, "filter"),
        ("/recommend", {"user": "u1", "filter": {"a": "", "b": "b", "c": "c"}}, 422, "filter.a"),
        ("/recommend", {"user": "u1", "filter": {"a": "a", "b": "b", "c": "c"}}, 422, "filter"),
        ("/explain", {"user": "u99"}, 404, "user"),
        ("/explain", {"user": "u1", "k": 6}, 422, "k"),
        ("/similar", {"items": ["i1", "x"]}, 404, "items[1]"),
        ("/similar", {"items": []}, 422, "items"),
        ("/recommend", b"x" * 5000, 413, "body"),
        ("/recommend", None, 405, "method"),
        ("/nowhere", None, 404, "path"),
        ("/items", None, 422, "q"),
        ("/items?q=a&model=x", None, 404, "model"),
    ],
)  # fmt: skip
def test_a_mistake_is_told(
    served: Callable[..., Answer], path: str, body: Any, status: int, where: str
) -> None:
    answer = served("get" if body is None else "post", path, *([] if body is None else [body]))
    error = answer.json()["error"]
    assert (answer.status, error["where"]) == (status, where), error
    assert error["what"] and error["do"] and answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_field_that_there_is_not_is_told_with_the_nearest(served: Callable[..., Answer]) -> None:
    error = served("post", "/recommend", {"usr": "u1"}).json()["error"]
    assert error == {"what": "there is no such field", "where": "usr", "do": "did you mean 'user'?"}


@pytest.fixture(scope="module")
def served(bundles: dict[str, Path]) -> Any:
    """Calls a server that runs for all tests of this module, in an event loop of its own."""
    from reland_jax.server import Server

    with asyncio.Runner() as runner:
        context = Client(Server(bundles, LIMITS).app).running()
        client = runner.run(context.__aenter__())
        runner.run(client.ready())
        yield lambda method, *call, **headers: runner.run(getattr(client, method)(*call, **headers))
        runner.run(context.__aexit__(None, None, None))


HUGE = st.sampled_from([2**31, -(2**63), 2**64, 10**400, 1e308, -0.0, float("nan"), float("inf")])
LONG = st.builds(lambda text, times: text * times, st.text(min_size=1, max_size=3), st.integers(100, 2000))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | HUGE
    | st.text()
    | LONG
    | st.sampled_from(["u1", "i1"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
IDS = st.sampled_from(["u0", "u1", "i1", "i2", "i6", "x"]) | st.text(max_size=3)
NEAR = st.fixed_dictionaries(
    {},
    optional={
        "user": IDS | JSON, "items": st.lists(IDS, max_size=25) | JSON, "k": st.integers(-1, 7) | JSON,
        "exclude_seen": st.booleans() | JSON, "model": st.sampled_from(["reland", "id", "no"]) | JSON,
        "filter": st.dictionaries(st.sampled_from(["brand", "x"]), IDS | st.lists(IDS, max_size=5)) | JSON,
    },
)  # fmt: skip
"""Bodies that are right, or nearly."""
PATHS = st.sampled_from(["/recommend", "/explain", "/similar"])
LEAKS = ("Traceback", ".py", "/tmp", "site-packages")


def nested(inner: Any, depth: int, in_lists: bool) -> Any:
    """A value deep within lists or mappings."""
    for _ in range(depth):
        inner = [inner] if in_lists else {"items": inner}
    return inner


ENCODED = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "utf-7", "cp037"])
HEADERS = st.dictionaries(
    st.sampled_from([
        "content-type", "content-encoding", "transfer-encoding", "content-length", "expect", "accept",
        "if-none-match", "x-forwarded-for", "x-forwarded-host", "cookie", "origin",
    ]),
    st.sampled_from([
        "gzip", "chunked", "0", "-1", "99999999999999999999", "application/json; charset=utf-16", "bytes=0-",
        "100-continue", "DELETE", "*/*", "evil.example",
    ]) | st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=40),
    max_size=4,
)  # fmt: skip
"""Headers of a request that is right otherwise."""


def is_harmless(answer: Answer, asked: str = "") -> bool:
    """Whether an answer is no fault, tells no place, and names no user who was not asked about."""
    text = answer.body.decode()
    others = {f'"u{row}"' for row in range(4)} - {f'"{asked}"'}
    return answer.status < 500 and not any(leak in text for leak in (*LEAKS, *others))


@settings(max_examples=150)
@given(path=PATHS, body=NEAR | JSON)
def test_no_json_is_too_strange(served: Callable[..., Answer], path: str, body: Any) -> None:
    raw = json.dumps(body).encode()
    answer = served("post", path, raw)
    assert is_harmless(answer), (answer.status, answer.body)
    json.loads(answer.body)


@settings(max_examples=60)
@given(path=PATHS, raw=st.binary(max_size=200), headers=st.dictionaries(
    st.sampled_from(["content-type", "content-length", "authorization", "host", "accept", "x-forwarded-for"]),
    st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=20), max_size=3,
))  # fmt: skip
def test_no_bytes_and_no_headers_are_too_strange(
    served: Callable[..., Answer], path: str, raw: bytes, headers: dict[str, str]
) -> None:
    answer = served("call", "POST", path, [raw], headers)
    assert 400 <= answer.status < 500 and is_harmless(answer)


@settings(max_examples=60)
@given(path=PATHS, body=NEAR, depth=st.integers(0, 400), in_lists=st.booleans(), encoding=ENCODED)
def test_no_depth_and_no_encoding_is_too_strange(
    served: Callable[..., Answer], path: str, body: Any, depth: int, in_lists: bool, encoding: str
) -> None:
    written = json.dumps(nested(body, depth, in_lists), ensure_ascii=False)
    answer = served("post", path, written.encode(encoding, "replace"))
    assert is_harmless(answer), (answer.status, answer.body)
    json.loads(answer.body)


@settings(max_examples=60)
@given(
    path=PATHS,
    headers=HEADERS,
    method=st.sampled_from(["POST", "PUT", "PATCH", "DELETE", "HEAD", "TRACE", "x"]),
)
def test_no_header_of_a_good_request_is_too_strange(
    served: Callable[..., Answer], path: str, headers: dict[str, str], method: str
) -> None:
    body = {"items": ["i1"]} if path == "/similar" else {"user": "u1"}
    answer = served("call", method, path, [json.dumps(body).encode()], headers)
    assert is_harmless(answer, "u1"), (answer.status, answer.body)
    assert method == "POST" or answer.status == 405


@settings(max_examples=40)
@given(query=st.text(max_size=30), model=IDS)
def test_no_search_is_too_strange(served: Callable[..., Answer], query: str, model: str) -> None:
    from urllib.parse import quote

    assert is_harmless(served("get", f"/items?q={quote(query, errors='replace')}&model={quote(model)}"))


def test_a_body_that_does_not_come_is_given_up(bundles: dict[str, Path]) -> None:
    limits = Limits(body=100, k=5, history=20, batch=8, body_seconds=0.1)

    async def ask(client: Client) -> list[Answer]:
        return [
            await client.call("POST", "/recommend", [b'{"us', None]),
            await client.call("POST", "/recommend", [b"x" * 60, b"x" * 60]),
            await client.call("POST", "/recommend", [b"{}"], {"content-length": "1000"}),
            await client.call("POST", "/recommend", []),
        ]

    found = using({"a": bundles["id"]}, ask, limits)
    assert [answer.status for answer in found] == [400, 413, 413, 408]


def test_a_token_is_asked_for(bundles: dict[str, Path]) -> None:
    async def ask(client: Client) -> list[int]:
        body, given = (
            {"user": "u1"},
            ["Bearer secret", "Bearer secreT", "secret", "Basic secret", "Bearer é", ""],
        )
        found = [(await client.post("/recommend", body, authorization=each)).status for each in given]
        missing = await client.post("/recommend", body)
        assert missing.headers["www-authenticate"] == "Bearer" and b"secret" not in missing.body
        others = [
            (await client.get(path)).status for path in ("/", "/docs", "/healthz", "/readyz", "/metrics")
        ]
        return [*found, missing.status, *others]

    found = using({"a": bundles["id"]}, ask, token="secret")
    assert found == [200, 401, 401, 401, 401, 401, 401, 200, 200, 200, 200, 401]


def test_another_name_of_this_machine_is_refused(bundles: dict[str, Path]) -> None:
    async def ask(client: Client) -> list[int]:
        names = [
            "localhost",
            "localhost:8000",
            "127.0.0.1:80",
            "[::1]:8000",
            "evil.example",
            "evil.example:80",
            "",
        ]
        return [(await client.get("/models", host=name)).status for name in names]

    hosts = ["localhost", "127.0.0.1", "[::1]"]
    assert using({"a": bundles["id"]}, ask, hosts=hosts) == [200, 200, 200, 200, 421, 421, 421]


def test_of_another_user_only_what_is_recommended_is_shown(bundles: dict[str, Path]) -> None:
    """The second and the fourth user are seed users; the first has borrowed rationales alone."""
    asked = [("/explain", {"user": "u0"}), ("/explain", {"user": "u1"})]
    asked += [("/recommend", {"user": "u0"}), ("/recommend", {"user": "u1"})]
    model = Reland.load(bundles["reland"])
    other, seed = model.explain("u0").seeds, model.explain("u1").seeds
    for borrowed in ("step2", "all"):
        found = answers({"a": bundles["reland"]}, *asked, borrowed=borrowed)
        of_other, of_seed = (each.json()["rationales"] for each in found[:2])
        assert [one["step1"] for one in of_other] == [one.step1 * (borrowed == "all") for one in other]
        assert [one["step2"] for one in of_other] == [one.step2 for one in other]
        assert [one["step1"] for one in of_seed] == [
            one.step1 * (one.is_own or borrowed == "all") for one in seed
        ]
        nearest = [seeds[0].step1 if borrowed == "all" else seeds[0].step2 for seeds in (other, seed)]
        assert [each.json()["explanation"] for each in found[2:]] == nearest


def test_borrowed_rationales_can_be_kept_back(bundles: dict[str, Path]) -> None:
    """The second and the fourth user are seed users; the first has borrowed ones alone."""
    asked = [("/explain", {"user": f"u{row}"}) for row in range(4)]
    asked += [("/recommend", {"user": "u0"}), ("/recommend", {"user": "u1"})]
    *found, borrowed, own = answers({"a": bundles["reland"]}, *asked, borrowed="none")
    assert [[each["own"] for each in answer.json()["rationales"]] for answer in found] == [
        [],
        [True],
        [],
        [True],
    ]
    assert borrowed.json()["explanation"] == ""


def test_bundles_are_exchanged_while_requests_come(bundles: dict[str, Path], tmp_path: Path) -> None:
    """Every request is answered, by the version that is named in the answer."""
    shutil.copytree(bundles["id"], tmp_path / "served")
    models = {name: Reland.load(bundles[name]) for name in ("id", "reland")}
    lists = {name: model.recommend("u2", 3)["item"].to_pylist() for name, model in models.items()}

    async def ask(client: Client) -> set[str]:
        versions, is_over = set[str](), False

        async def load() -> None:
            while not is_over:
                answer = await client.post("/recommend", {"user": "u2", "k": 3})
                assert answer.status == 200, answer.body
                versions.add(answer.json()["version"])
                assert [row["item"] for row in answer.json()["items"]] in lists.values()

        loads = [asyncio.create_task(load()) for _ in range(4)]
        while not versions:
            await asyncio.sleep(0.01)
        for turn in range(4):
            await asyncio.to_thread(models[("reland", "id")[turn % 2]].save, tmp_path / "served")
            done = f'reland_swaps_total{{model="a",result="in_service"}} {turn + 1}.0'
            while done not in (await client.get("/metrics")).body.decode():
                await asyncio.sleep(0.01)
        is_over = True
        await asyncio.gather(*loads)
        return versions

    assert len(using({"a": tmp_path / "served"}, ask, watch=0.02)) >= 2


def test_it_describes_itself(served: Callable[..., Answer]) -> None:
    found = served("get", "/openapi.json").json()
    request = found["components"]["schemas"]["RecommendRequest"]["properties"]
    assert request["k"]["maximum"] == 5 and request["items"]["anyOf"][0]["maxItems"] == 20
    text = json.dumps(found)
    for reference in set(re.findall(r"#/components/schemas/(\w+)", text)):
        assert reference in found["components"]["schemas"]
    for path, operations in found["paths"].items():
        for method in operations:
            assert served(method, path, *([{}] if method == "post" else [])).status != 405
    metrics = served("get", "/metrics").body.decode()
    assert 'reland_requests_total{path="/recommend",status="422"}' in metrics
    assert "reland_waiting 0.0" in metrics and "reland_batch_size_bucket" in metrics
    for path in ("/", "/docs"):
        answer = served("get", path)
        assert answer.status == 200 and "script-src 'sha256-" in answer.headers["content-security-policy"]
        assert b"http://" not in answer.body and b"https://" not in answer.body
