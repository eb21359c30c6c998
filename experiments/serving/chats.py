"""The pool of a run as chats for a trainer of adapters: the distillation of SLIM."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.serving.vectors import check_free
from reland_jax.files import write_json, write_text, written_aside

if TYPE_CHECKING:
    from reland_jax.config import Config

TRAIN, VALID, SHOWN, ABOUT = "train.jsonl", "valid.jsonl", "shown.jsonl", "about.json"


def export_chats(config: Config, workdir: Path, out: Path, share: float) -> dict[str, Any]:
    """Writes train.jsonl and valid.jsonl, a chat on each line, and what they were made from.

    A chat has one key, "messages", so that every trainer reads it. shown.jsonl says, line by line in the same
    order (training first), what the writer of the answer was shown.

    Args:
        config: data, and the pool to take.
        workdir: folder of the stages up to the pool; what is missing is made first.
        out: folder of the outputs, which is made as a whole; it must not exist yet, or be empty.
        share: of the prompts, for validation.

    Returns:
        The content of about.json.

    Raises:
        RelandError: bad data or settings, fewer than two prompts, or the folder holds something.
    """
    from reland_jax import flow
    from reland_jax.pool.build import pool_provenance
    from reland_jax.pool.pairs import chat_pairs, parts_of
    from reland_jax.pool.prompting.requests import pool_requests
    from reland_jax.stages import BUILD_POOL, FLOW, LOAD, SPLIT
    from reland_jax.types import PARTS

    check_free(out)
    made = flow.run(FLOW, config, workdir, until=BUILD_POOL.name)
    pool = made[BUILD_POOL].pool
    asked = pool_requests(pool.seeds, made[SPLIT].train, made[LOAD], config.pool, config.data)
    pairs = chat_pairs(pool, asked)
    parts = dict(zip((TRAIN, VALID), parts_of(pairs, share), strict=True))
    about = {
        "pairs": {name: len(rows) for name, rows in parts.items()},
        "left_out": len(pool.rationales) - len(pairs),
        "writer_was_given": dict(Counter(each.writer for each in pairs)),
        "models": dict(Counter(each.model for each in pairs)),
        "history": f"training items of the {made[SPLIT].protocol} split, the last {config.pool.history}; no "
        f"{' and no '.join(PARTS)} item",
        "pool": pool_provenance(config.pool, config.data),
    }
    with written_aside(out, private=True) as aside:
        aside.mkdir()
        for name, rows in parts.items():
            _write(aside / name, ({"messages": pairs[row].messages()} for row in rows.tolist()))
        ordered = [(name, pairs[row]) for name, rows in parts.items() for row in rows.tolist()]
        shown = (
            {"file": name, "items": one.items, "writer": one.writer, "model": one.model}
            for name, one in ordered
        )
        _write(aside / SHOWN, shown)
        write_json(aside / ABOUT, about)
    return about


def _write(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    write_text(path, text, private=True)
