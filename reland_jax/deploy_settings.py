"""Settings of a deployment that is played through day by day."""

from __future__ import annotations

import dataclasses

from reland_jax.fields import Job
from reland_jax.fields import setting as _setting
from reland_jax.ranker_settings import LogConfig, RankerConfig, RankerTextsConfig, RankerTrainConfig

ENCODERS = ("sasrec", "lightgcn")


@dataclasses.dataclass(frozen=True)
class RhythmConfig:
    """What is made when."""

    warm_days: int = _setting(3, "days of the log before the first pool; no text is read on them", low=1)
    pool_days: int = _setting(7, "days from one pool to the next", low=1)
    encoder_days: int = _setting(28, "days from one training of the behaviour encoder to the next", low=1)
    encoder: str = _setting(
        "sasrec", "behaviour encoder; a new day or user needs no training of it", choices=ENCODERS
    )
    max_length: int = _setting(50, "most recent clicks of a user that the behaviour encoder reads", low=2)


@dataclasses.dataclass(frozen=True)
class TrialConfig:
    """The A/B test after the last day, in the generated shop alone."""

    days: int = _setting(5, "of the test", low=1)
    candidates: int = _setting(20, "items of a slate", low=2)
    shown: int = _setting(5, "items of a slate that are shown", low=1)
    visits: float = _setting(2.0, "mean visits per user and day", above=0)


@dataclasses.dataclass(frozen=True)
class DeployJob(Job):
    """A deployment."""

    log: LogConfig = dataclasses.field(default_factory=LogConfig)
    rhythm: RhythmConfig = dataclasses.field(default_factory=RhythmConfig)
    texts: RankerTextsConfig = dataclasses.field(default_factory=RankerTextsConfig)
    ranker: RankerConfig = dataclasses.field(
        default_factory=lambda: RankerConfig(
            task="esmm", labels=("click", "conversion"), layers=(128, 64), blocks=2, block_width=128
        )
    )
    train: RankerTrainConfig = dataclasses.field(
        default_factory=lambda: RankerTrainConfig(batch_size=256, max_epochs=2)
    )
    trial: TrialConfig = dataclasses.field(default_factory=TrialConfig)
    arms: tuple[str, ...] = _setting(
        ("f_item", "reland", "seed_id", "permuted", "noise", "id"),
        "arms; the first is the baseline, and the treatment of the A/B test is reland",
        filled=True, names=True,
    )  # fmt: skip
    seed: int = _setting(0, "of parameters, orders of rows and dropout", low=0, high=2000)
    draws: int = _setting(200, "draws of users of a bootstrap", low=1)
    keep_programs: bool = _setting(True, "keep compiled programs in the workdir", machine=True)
