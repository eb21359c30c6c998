"""Open batches of the Batch API, recorded in files so that a killed process loses none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from reland_jax.files import sweep_folder
from reland_jax.pool.providers.batch_files import MAX_BYTES, MAX_REQUESTS, split_lines, write_file
from reland_jax.types import RelandError

STATE_FILE = "batch_state.json"
SENT_FOLDER = "batch_sent"

_FORMAT = 1
_NAMES = f"{'[0-9a-f]' * 16}.jsonl"


class Part(NamedTuple):
    """The requests of one batch.

    Attributes:
        digest: SHA-256 of the request file.
        requests: lines of the request file.
        file_id: the service's id of the uploaded file, "" before the upload.
        batch_id: the service's id of the batch, "" before it is known to exist.
    """

    digest: str
    requests: int
    file_id: str = ""
    batch_id: str = ""


class BatchState:
    """The open batches; every change is on disk before the next step.

    Attributes:
        open: parts without answers so far.
        closed: ids of batches whose answers are recorded.
        newer_bound: models that refuse `max_tokens` and are asked with `max_completion_tokens`.
        without_schema: models that refuse a JSON schema of their answers and are asked without.
    """

    def __init__(self, folder: Path) -> None:
        """Reads the file of an earlier process, if there is one.

        Raises:
            RelandError: the file has another format.
        """
        self._path, self._sent = folder / STATE_FILE, folder / SENT_FOLDER
        self.open: list[Part] = []
        self.closed: list[str] = []
        self.newer_bound: list[str] = []
        self.without_schema: list[str] = []
        if self._path.exists():
            self._load()

    def _load(self) -> None:
        try:
            value = json.loads(self._path.read_text("utf-8"))
            if value["format"] != _FORMAT:
                raise ValueError(f"format {value['format']!r} instead of {_FORMAT}")
            self.open = [Part(**part) for part in value["open"]]
            self.closed = [str(name) for name in value["closed"]]
            self.newer_bound = [str(model) for model in value.get("newer_bound", [])]
            self.without_schema = [str(model) for model in value.get("without_schema", [])]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RelandError(
                f"{self._path} is not a readable list of batches ({type(error).__name__}: {error}); it says "
                "what was paid. Restore it; or, if no batch is under way in your account, move it away"
            ) from error

    def plan(self, lines: Sequence[str]) -> list[Part]:
        """Writes the request files of new parts, within the limits of the service."""
        parts = []
        sweep_folder(self._sent)
        for stale in set(self._sent.glob(_NAMES)) - {self.path_of(part) for part in self.open}:
            stale.unlink()
        for rows in split_lines(lines, MAX_REQUESTS, MAX_BYTES):
            content = "".join(rows)
            part = Part(hashlib.sha256(content.encode("utf-8")).hexdigest(), len(rows))
            write_file(self.path_of(part), content)
            parts.append(part)
        self.open += parts
        self._save()
        return parts

    def replace(self, part: Part, changed: Part) -> Part:
        """Records a new file or batch id of a part."""
        self.open[self.open.index(part)] = changed
        self._save()
        return changed

    def close(self, part: Part) -> None:
        """Closes a part, and removes its request file."""
        self.open.remove(part)
        if part.batch_id:
            self.closed.append(part.batch_id)
        self._save()
        self.path_of(part).unlink(missing_ok=True)

    def bound_by_newer_name(self, model: str) -> None:
        """Records that a model refuses `max_tokens`."""
        if model not in self.newer_bound:
            self.newer_bound.append(model)
            self._save()

    def ask_without_schema(self, model: str) -> None:
        """Records that a model refuses a JSON schema."""
        if model not in self.without_schema:
            self.without_schema.append(model)
            self._save()

    def path_of(self, part: Part) -> Path:
        """Path of the request file of an open part."""
        return self._sent / f"{part.digest[:16]}.jsonl"

    def _save(self) -> None:
        parts = [part._asdict() for part in self.open]
        value = {
            "format": _FORMAT, "open": parts, "closed": self.closed, "newer_bound": self.newer_bound,
            "without_schema": self.without_schema,
        }  # fmt: skip
        write_file(self._path, json.dumps(value, indent=1) + "\n")
