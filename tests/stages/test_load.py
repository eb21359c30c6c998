"""What is told as soon as the data are there."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from reland_jax import flow
from reland_jax.config import DataConfig, EvalConfig, SeedsConfig
from reland_jax.stages import FLOW
from reland_jax.types import RelandError
from tests.stages.toys import settings


def demo(workdir: Path, asked: tuple[str, ...] = (), **sections: Any) -> flow.Made:
    """A run on a demo of a few users."""
    data = DataConfig(demo_users=40, demo_items=30)
    config = settings(data=data, seeds=SeedsConfig(fraction=0.2), **sections)
    return flow.run(FLOW, config, workdir, asked=asked)


def test_a_wrong_user_of_the_report_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(RelandError, match="config.report_users: 'nobody' is not one of the"):
        demo(tmp_path, report_users=("nobody",))
    assert [path.name for path in tmp_path.iterdir() if path.name[0] != "."] == ["load"]


def test_who_is_evaluated_is_told_before_anything_is_trained(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "reland_jax")
    made = demo(tmp_path, ("load", "split"), eval=EvalConfig(mask_history=True))
    assert list(made.artefacts) == ["load", "split"], "it ends with the last stage that was asked for"
    told = [record.getMessage() for record in caplog.records if "evaluation:" in record.getMessage()]
    assert "users by" in told[0] and "valid items" in told[0] and "test items" in told[0]
