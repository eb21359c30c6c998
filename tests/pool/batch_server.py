"""A Batch API on this machine, for tests: files, batches, their contents, and faults on demand."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from reland_jax.config import LLMConfig, PoolConfig
from reland_jax.pool.asking.journal import Journal
from reland_jax.pool.contract import RationaleRequest
from reland_jax.pool.providers.batch import UploadedBatchProvider
from reland_jax.pool.providers.batch_api import BatchService
from reland_jax.pool.providers.batch_state import BatchState

KEY = "sk-not-to-be-shown"

Line = dict[str, Any]


def good_answer(request: Line) -> Line:
    """A line of an output file that answers a request line well."""
    prompt = request["body"]["messages"][0]["content"]
    return answer(request, f"Step 1: Likes {prompt}.\nStep 2: More {prompt}.")


def answer(request: Line, content: str) -> Line:
    """A line of an output file with a given text."""
    body = {
        "model": request["body"]["model"] + "-0613",
        "created": 1_700_000_000,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content}}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7},
    }
    return {
        "custom_id": request["custom_id"], "response": {"status_code": 200, "body": body}, "error": None
    }  # fmt: skip


def refusal(request: Line, status: int) -> Line:
    """A line of an error file."""
    response = {"status_code": status, "body": {"error": {"message": "no"}}}
    return {"custom_id": request["custom_id"], "response": response, "error": None}


def expired(request: Line) -> Line:
    """A line of the error file of an expired batch."""
    return {"custom_id": request["custom_id"], "response": None, "error": {"code": "batch_expired"}}


class Plan:
    """How one batch ends, after how many looks, with which lines.

    Attributes:
        status: in the end.
        write: request lines to output lines and error lines.
        errors: of a failed batch.
    """

    def __init__(
        self,
        status: str = "completed",
        write: Callable[[list[Line]], tuple[list[Line], list[Line]]] | None = None,
        errors: list[dict[str, Any]] | None = None,
    ) -> None:
        self.status, self.errors = status, errors
        self.write = write or (lambda lines: ([good_answer(line) for line in lines][::-1], []))


class FakeBatchApi:
    """The server's state.

    Attributes:
        files: id -> content.
        batches: id -> what the API says of it, in the order of creation.
        plans: of the batches to come; good answers when it is empty.
        faults: (method and path, fault), each used up by the first request that fits. A fault is a status,
            "drop" (no answer), "late" (the work is done, then no answer), or "page" (a web page).
        listing: whether batches can be listed.
        calls: method and path of every request.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.plans: list[Plan] = []
        self.faults: list[tuple[str, int | str]] = []
        self.listing = True
        self.calls: list[str] = []
        self.lock = threading.RLock()
        self._planned: dict[str, Plan] = {}

    def add_file(self, content: bytes) -> str:
        """A new file's id."""
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return name

    def lines(self, name: str) -> list[Line]:
        """The JSON lines of a file."""
        return [json.loads(line) for line in self.files[name].decode("utf-8").splitlines()]

    def asked(self) -> list[list[str]]:
        """Custom ids of every batch that was created."""
        return [[line["custom_id"] for line in self.lines(b["input_file_id"])] for b in self.batches.values()]

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        """A new batch."""
        assert body["endpoint"] == "/v1/chat/completions" and body["completion_window"] == "24h"
        name = f"batch-{len(self.batches)}"
        batch = {**body, "id": name, "object": "batch", "created_at": 1_700_000_000, "status": "validating"}
        batch["request_counts"] = {"total": 0, "completed": 0, "failed": 0}
        self._planned[name] = self.plans.pop(0) if self.plans else Plan()
        self.batches[name] = batch
        return batch

    def look(self, name: str) -> dict[str, Any]:
        """What the API says of a batch, which is one step further the next time."""
        batch, plan = self.batches[name], self._planned[name]
        said = json.loads(json.dumps(batch))
        requests = self.lines(batch["input_file_id"])
        if batch["status"] == "validating":
            batch["status"] = "failed" if plan.status == "failed" else "in_progress"
            batch["errors"] = {"object": "list", "data": plan.errors or []}
            batch["request_counts"] = {"total": len(requests), "completed": len(requests) // 2, "failed": 0}
        elif batch["status"] == "in_progress":
            output, errors = plan.write(requests)
            for field, lines in (("output_file_id", output), ("error_file_id", errors)):
                if lines:
                    content = "".join(json.dumps(line) + "\n" for line in lines)
                    batch[field] = self.add_file(content.encode("utf-8"))
            batch["status"] = plan.status
            counts = {"total": len(requests), "completed": len(output), "failed": len(errors)}
            batch["request_counts"] = counts
        return said


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: FakeBatchApi

    def do_GET(self) -> None:
        """Files and batches."""
        self._serve("GET")

    def do_POST(self) -> None:
        """New files and batches."""
        self._serve("POST")

    def _serve(self, method: str) -> None:
        api, path = self.api, self.path.split("?")[0].removeprefix("/v1")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with api.lock:
            api.calls.append(f"{method} {path}")
            fault = self._fault(f"{method} {path}")
            if isinstance(fault, int):
                return self._send(fault, {"error": {"message": f"see {KEY}", "code": f"fault_{fault}"}})
            if fault == "page":
                return self._send(200, b"<html>Welcome</html>", "text/html")
            if fault == "drop":
                return self._hang_up()
            if self.headers.get("Authorization") != f"Bearer {KEY}":
                return self._send(401, {"error": {"message": f"wrong key {KEY}", "code": "invalid_api_key"}})
            status, value = self._answer(method, path, body)
        if fault == "late":
            return self._hang_up()
        self._send(status, value)

    def _fault(self, call: str) -> int | str | None:
        for place, (pattern, fault) in enumerate(self.api.faults):
            if re.fullmatch(pattern, call):
                del self.api.faults[place]
                return fault
        return None

    def _answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        api, parts = self.api, path.strip("/").split("/")
        if (method, path) == ("POST", "/files"):
            name = api.add_file(self._upload(body))
            return 200, {"id": name, "object": "file", "purpose": "batch", "filename": "x", "bytes": 1}
        if (method, path) == ("POST", "/batches"):
            return 200, api.create(json.loads(body))
        if (method, path) == ("GET", "/batches"):
            return self._listed() if api.listing else (404, {"error": {"code": "unknown_url"}})
        if method == "GET" and parts[0] == "batches" and parts[1] in api.batches:
            return 200, api.look(parts[1])
        if method == "GET" and parts[0] == "files" and parts[1] in api.files:
            return 200, api.files[parts[1]]
        return 404, {"error": {"code": "not_found"}}

    def _listed(self) -> tuple[int, Any]:
        """The newest first, two to a page."""
        after = re.search(r"after=([\w-]+)", self.path)
        names = list(self.api.batches)[::-1]
        start = names.index(after[1]) + 1 if after else 0
        data = [self.api.batches[name] for name in names[start : start + 2]]
        return 200, {"object": "list", "data": data, "has_more": start + 2 < len(names)}

    def _upload(self, body: bytes) -> bytes:
        header = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        fields = message_from_bytes(header + body).get_payload()
        named = {field.get_param("name", header="content-disposition"): field for field in fields}
        assert named["purpose"].get_payload() == "batch"
        return named["file"].get_payload(decode=True)

    def _send(self, status: int, value: Any, kind: str = "application/json") -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode("utf-8")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("retry-after-ms", "5")
        self.end_headers()
        self.wfile.write(content)

    def _hang_up(self) -> None:
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""


@contextmanager
def batch_api() -> Iterator[tuple[FakeBatchApi, str]]:
    """A running server: its state and its base URL."""
    api = FakeBatchApi()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"api": api}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield api, f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def run_until_killed(
    config: PoolConfig,
    llm: LLMConfig,
    folder: Path,
    requests: Sequence[RationaleRequest],
    call: str,
    *,
    after: bool,
    time: int = 1,
) -> bool:
    """Runs the provider in a process that kills itself with signal 9 before or after a call; whether it did.

    Args:
        config: of the provider.
        llm: of the provider.
        folder: of the provider.
        requests: to answer.
        call: method of `BatchService`, `BatchState` or `Journal`.
        after: whether the call is done first.
        time: which of the calls.
    """
    context = multiprocessing.get_context("forkserver")
    # Imported once, so that every process starts with them.
    preload = ["openai.resources.batches", "openai.resources.files", "httpcore2", "tests.pool.batch_server"]
    context.set_forkserver_preload(preload)
    environment = {name: os.environ[name] for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "NO_PROXY")}
    arguments = (environment, config, llm, folder, list(requests), call, after, time)
    process = context.Process(target=_run_and_die, args=arguments)
    process.start()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def _run_and_die(
    environment: dict[str, str],
    config: PoolConfig,
    llm: LLMConfig,
    folder: Path,
    requests: list[RationaleRequest],
    call: str,
    after: bool,
    time: int,
) -> None:
    os.environ.update(environment)
    owner = next(kind for kind in (BatchService, BatchState, Journal) if hasattr(kind, call))
    real, left = getattr(owner, call), [time]

    def mortal(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if not left[0] and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **named)
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, call, mortal)
    UploadedBatchProvider(config, llm, folder).rationales(requests)
