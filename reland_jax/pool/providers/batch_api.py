"""Sends, awaits, fetches and resumes batches through the OpenAI Batch API or a compatible endpoint. Open
batches are recorded in files (`batch_state`), so that no batch is paid twice even if the process is killed. A
batch has the hash of its requests as metadata: if the process was killed before it recorded a new batch, the
batch is found by that hash, or by its file.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from reland_jax.config import LLMConfig
from reland_jax.pool.asking.chat import PASSING
from reland_jax.pool.asking.secrets import without_secrets
from reland_jax.pool.providers.batch_files import ENDPOINT
from reland_jax.pool.providers.batch_state import STATE_FILE, BatchState, Part
from reland_jax.pool.providers.batch_work import BatchWork
from reland_jax.pool.providers.openai_chat import async_client, redirected
from reland_jax.pool.reading.answers import short
from reland_jax.pool.reading.objects import LONGEST, MOST_BYTES
from reland_jax.progress import Progress as ShownProgress
from reland_jax.types import RelandError

if TYPE_CHECKING:
    from openai.types import Batch

METADATA = "reland_requests"
"""Name of the metadata field that holds the hash of the requests."""

_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_MOST_LISTED = 20_000
_TRANSFER_SECONDS = 600.0
_OTHER_BYTES = 16_000_000
"""Bound of what the service says about files and batches."""
_GO_ON = ". Requests and answers so far are kept: run the same command again to continue"


class Unreachable(RelandError):
    """The service did not answer, or is temporarily unavailable; another try may work."""


class Progress(NamedTuple):
    """The progress of a batch.

    Attributes:
        ended: whether it will bring no more answers.
        done: requests answered or failed.
        files: ids of the output file and of the error file, those that exist.
        why: the service's reason for a batch that did not complete, "" for others.
        unknown: whether the service does not have the batch any more, so that its answers are lost.
    """

    ended: bool
    done: int
    files: tuple[str, ...] = ()
    why: str = ""
    unknown: bool = False


class BatchService:
    """The calls of the Batch API, with retries of those that cost nothing."""

    def __init__(self, llm: LLMConfig, sleep: Callable[[float], None] = time.sleep) -> None:
        """Reads the endpoint and the key from the environment; sends nothing yet.

        Raises:
            RelandError: the package openai is missing, or the environment names neither key nor service.
        """
        plain = async_client(llm, 0)
        import openai

        from reland_jax.pool.providers.clients import Bound, http_client

        self._bound = Bound(_OTHER_BYTES)
        self._client = openai.OpenAI(
            api_key=plain.api_key,
            base_url=plain.base_url,
            timeout=llm.timeout_seconds,
            max_retries=llm.attempts - 1,
            http_client=http_client(self._bound),
        )
        self._llm, self._sleep = llm, sleep

    def upload(self, path: Path) -> str:
        """Uploads a request file, free of charge; returns its id."""
        patient = self._client.with_options(timeout=max(_TRANSFER_SECONDS, self._llm.timeout_seconds))
        with _plain_errors("uploading a request file"):
            return patient.files.create(file=path, purpose="batch").id

    def create(self, part: Part, closed: Collection[str]) -> str:
        """Creates the batch of an uploaded file, unless it exists already; returns its id.

        This is the call that costs money. If its answer is lost, the list of batches is searched before the
        call is repeated.
        """
        once, failures = self._client.with_options(max_retries=0), 0
        while True:
            if found := self.find(part, closed, uncertain=failures > 0):
                return found
            try:
                with _plain_errors("creating a batch"):
                    return once.batches.create(
                        input_file_id=part.file_id,
                        endpoint=ENDPOINT,
                        completion_window="24h",
                        metadata={METADATA: part.digest},
                    ).id
            except Unreachable:
                failures += 1
                if failures >= self._llm.attempts:
                    raise
                self._sleep(min(2.0**failures, self._llm.poll_seconds))

    def find(self, part: Part, closed: Collection[str], uncertain: bool) -> str:
        """The id of a batch with these requests that is still open, "" if there is none.

        Args:
            part: the requests of the batch.
            closed: ids of closed batches.
            uncertain: whether the batch may exist already, so that a service that cannot tell is an error.
        """
        try:
            with _plain_errors("listing the batches"):
                pages = self._client.batches.list(limit=100)
                for batch in itertools.islice(pages, _MOST_LISTED):
                    if batch.id not in closed and _is_of(batch, part) and _worth_adopting(batch):
                        return batch.id
        except Unreachable:
            raise
        except RelandError as error:
            if uncertain:
                raise RelandError(
                    f"{error}. A batch of {part.requests} requests may have been created for the file "
                    f"{part.file_id}, and this endpoint does not list its batches. If your account shows "
                    f"one, write its id as batch_id of that file into {STATE_FILE}; if it shows none, "
                    "remove the entry of that file; then run the same command again"
                ) from error
        return ""

    def progress(self, batch_id: str) -> Progress:
        """The progress of a batch; one that the service has lost counts as ended without answers."""
        with _plain_errors("looking at a batch"):
            batch = _unless_gone(lambda: self._client.batches.retrieve(batch_id))
            if batch is None:
                return Progress(True, 0, (), f"batch {batch_id} is not known to the service", unknown=True)
            return _progress(batch)

    def content(self, file_id: str, requests: int) -> bytes | None:
        """The content of a file, None if the service does not have it any more.

        Args:
            file_id: its name there.
            requests: how many lines it can have.
        """
        patient = self._client.with_options(timeout=max(_TRANSFER_SECONDS, self._llm.timeout_seconds))
        with _plain_errors("fetching a file"):
            self._bound.size = min(MOST_BYTES, _OTHER_BYTES + requests * LONGEST)
            try:
                found = _unless_gone(lambda: patient.files.content(file_id))
            finally:
                self._bound.size = _OTHER_BYTES
            return None if found is None else found.content


def ask_in_batches(
    service: BatchService,
    state: BatchState,
    work: BatchWork,
    llm: LLMConfig,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Sends the remaining requests in batches and receives the answers, until none remain.

    Open batches of an earlier process are received first. Requests that a batch leaves unanswered (failed,
    expired, cancelled, partly finished) go into the next one; it ends after `config.llm.attempts` rounds
    without a new answer.

    Raises:
        RelandError: the service refuses, or cannot be reached; the next call continues from there.
    """
    _recover(service, state, llm, sleep)
    _collect(service, state, work, llm, sleep)
    fruitless = 0
    while fruitless < llm.attempts and (lines := work.remaining()):
        if fruitless:
            sleep(llm.poll_seconds)
        for part in state.plan(lines):
            part = state.replace(part, part._replace(file_id=service.upload(state.path_of(part))))
            state.replace(part, part._replace(batch_id=service.create(part, state.closed)))
        fruitless = 0 if _collect(service, state, work, llm, sleep) else fruitless + 1


def _recover(
    service: BatchService, state: BatchState, llm: LLMConfig, sleep: Callable[[float], None]
) -> None:
    """Settles the parts of a killed process: adopts their batch if it exists, else drops the part."""
    for part in [part for part in state.open if not part.batch_id]:
        found = ""
        if part.file_id:
            found = service.find(part, state.closed, uncertain=True)
            if not found:
                # A service may show a batch in its list only some time after it was created.
                sleep(llm.poll_seconds)
                found = service.find(part, state.closed, uncertain=True)
        if found:
            state.replace(part, part._replace(batch_id=found))
        else:
            state.close(part)


def _collect(
    service: BatchService, state: BatchState, work: BatchWork, llm: LLMConfig, sleep: Callable[[float], None]
) -> int:
    """Waits for every open batch and receives its answers; returns the number of prompts answered."""
    received = finished = missed = 0
    with ShownProgress("batches", sum(part.requests for part in state.open), "prompt") as shown:
        while state.open:
            try:
                looks = [(part, service.progress(part.batch_id)) for part in state.open]
                ended = [(part, look) for part, look in looks if look.ended]
                for part, look in ended:
                    received += _receive(service, state, work, part, look)
                missed = 0
            except Unreachable:
                missed += 1
                if 0 < llm.breaker_failures <= missed:
                    raise
                ended = looks = []
            finished += sum(part.requests for part, _ in ended)
            if looks:
                now = finished + sum(look.done for _, look in looks if not look.ended)
                shown.advance(now - shown.done, f"{len(state.open)} batches open")
            if state.open:
                sleep(llm.poll_seconds)
    return received


def _receive(service: BatchService, state: BatchState, work: BatchWork, part: Part, look: Progress) -> int:
    """Records the answers of an ended batch, and closes it."""
    path = state.path_of(part)
    requests = path.read_bytes() if path.exists() else service.content(part.file_id, part.requests)
    answers = [service.content(name, part.requests) for name in look.files]
    received = work.receive(requests or b"", [None] if look.unknown else answers)
    if look.why:
        work.failed(look.why)
    state.close(part)
    return received


def _progress(batch: Batch) -> Progress:
    counts, ended = batch.request_counts, batch.status in _ENDED
    done = counts.completed + counts.failed if counts else 0
    files = tuple(name for name in (batch.output_file_id, batch.error_file_id) if name)
    reasons = [_reason(item) for item in (batch.errors.data or [])] if batch.errors else []
    why = f"batch {batch.id}: {batch.status}" + (f" ({'; '.join(reasons[:3])})" if reasons else "")
    return Progress(ended, done, files, why if ended and batch.status != "completed" else "")


def _is_of(batch: Batch, part: Part) -> bool:
    """Whether a listed batch holds the requests of a part."""
    same_file = bool(part.file_id) and batch.input_file_id == part.file_id
    return same_file or (batch.metadata or {}).get(METADATA) == part.digest


def _worth_adopting(batch: Batch) -> bool:
    """Whether a batch has answers or may still get some."""
    return batch.status not in _ENDED or bool(batch.output_file_id)


def _unless_gone(call: Callable[[], Any]) -> Any | None:
    import openai

    try:
        return call()
    except openai.NotFoundError:
        return None


def _reason(error: Any) -> str:
    place = f"line {error.line}: " if getattr(error, "line", None) else ""
    return place + (error.message or error.code or "no reason given")[:200]


@contextmanager
def _plain_errors(doing: str) -> Iterator[None]:
    """Turns errors of the client into short ones, which never show the endpoint or the key."""
    import openai

    from reland_jax.pool.providers.clients import Redirected, Unusable

    try:
        yield
    except openai.APIStatusError as error:
        passing = error.status_code >= 500 or error.status_code in PASSING
        kind = Unreachable if passing else RelandError
        # The message about a wrong key may quote the key.
        key = error.status_code in (401, 403)
        said = "look at OPENAI_API_KEY" if key else without_secrets(short(error.body or ""))
        raise kind(f"{doing}: the service answered {error.status_code} ({said}){_GO_ON}") from None
    except Redirected as error:
        raise RelandError(f"{doing}: {redirected(error)}{_GO_ON}") from None
    except Unusable as error:
        raise RelandError(f"{doing}: {error}{_GO_ON}") from None
    except (openai.APIConnectionError, openai.APIResponseValidationError) as error:
        raise Unreachable(f"{doing}: {type(error).__name__}, no answer from the service{_GO_ON}") from None
    except (AttributeError, TypeError, ValueError):
        # The client returns what it received, such as a web page, in place of an object.
        raise Unreachable(f"{doing}: the response is not that of a Batch API{_GO_ON}") from None
