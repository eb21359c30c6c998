"""The flow of stages as data: what a stage is, and how a flow is run in a workdir.

A stage is a function of the artefacts that it reads and of its settings. Its artefact is a folder of the
workdir, stamped with the hash of both and of the stage's version. Artefacts that are up to date are reused: a
changed setting reruns only the stages that depend on it. A stage can read only the stages that it declares.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import dropwhile
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import jax

from reland_jax import artefacts
from reland_jax.artefacts import Artefact, fingerprint
from reland_jax.config import Config, nearest_name
from reland_jax.files import sweep_folder
from reland_jax.mesh import of_first_process
from reland_jax.types import RelandError

TEXT_CACHE = "text_cache"
"""Folder of the vectors of texts by encoder."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Codec(Generic[T]):
    """Writes an artefact into an empty folder, and reads it back."""

    def __init__(self, save: Callable[[T, Path], None], load: Callable[[Path], T]) -> None:
        """Takes the two functions."""
        self.save, self.load = save, load


@dataclasses.dataclass(frozen=True)
class Stage(Generic[T]):
    """One stage of a flow.

    Attributes:
        name: its folder below the workdir. Stages of one family share the first part of it: naming the family
            asks for all of them.
        reads: the stages whose artefacts it reads.
        settings: all else that the artefact depends on: settings, and the state of files outside the workdir.
        run: makes the artefact.
        codec: writes and reads the artefact; it sees the same job as `run`.
        version: of its code: increased when equal inputs give other results, so that artefacts of earlier
            versions are recomputed.
        identify: hash of the content of an artefact, on which later stages depend; None: they depend on its
            stamp.
        exact: whether `identify` gives the same hash on every machine.
        ready: called before this stage or one before it computes anything; refuses settings with which it
            cannot run, such as a missing file, key or package.
        check: called with every artefact, new or read back; logs a summary, or refuses it.
        complete: whether an artefact needs no more work.
        on_damage: called before a damaged or incomplete artefact is recomputed; may raise an error to prevent
            it.
        together: whether all processes of a job compute it; otherwise only the first one does.
        repeats: whether naming the stage recomputes a finished artefact.
        wanted: whether a flow with these settings has the stage.
    """

    name: str
    reads: tuple[Stage[Any], ...]
    settings: Callable[[Config], Sequence[Any]]
    run: Callable[[Job], T]
    codec: Callable[[Job], Codec[T]]
    version: int = 1
    identify: Callable[[T], str] | None = None
    exact: bool = False
    ready: Callable[[Config, Path], object] = lambda config, workdir: None
    check: Callable[[Job, Artefact], None] = lambda job, made: None
    complete: Callable[[T], bool] = lambda value: True
    on_damage: Callable[[Job, str], None] = lambda job, why: None
    together: bool = False
    repeats: bool = True
    wanted: Callable[[Config], bool] = lambda config: True

    @property
    def family(self) -> str:
        """Its name in `--stages`."""
        return self.name.partition("/")[0]


@dataclasses.dataclass(frozen=True)
class Flow:
    """Stages in order, each of which reads only those before it.

    Attributes:
        stages: those that `run` runs.
        after: families of later stages, such as the trainings, which callers make one by one.
    """

    stages: tuple[Stage[Any], ...]
    after: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The families in order, including the later ones."""
        return (*dict.fromkeys(stage.family for stage in self.stages), *self.after)

    def reaches(self, asked: Sequence[str], name: str) -> bool:
        """Whether a family or a later one was requested; an empty request means all."""
        return not asked or bool(set(asked) & set(self.names[self.names.index(name) :]))

    def selected(
        self, config: Config, until: str | None, asked: Sequence[str], replace: Mapping[str, Stage[Any]]
    ) -> list[Stage[Any]]:
        """The stages to run: up to a family, and up to the last one asked for, some of them replaced."""
        assert all(any(name == stage.name for stage in self.stages) for name in replace)
        last = self.names.index(until) if until else len(self.names)
        return [
            replace.get(stage.name, stage) for stage in self.stages
            if self.names.index(stage.family) <= last and self.reaches(asked, stage.family)
            and stage.wanted(config)
        ]  # fmt: skip

    def check(self, asked: Sequence[str]) -> None:
        """Checks the names of requested stages.

        Raises:
            RelandError: an unknown stage, or one that a job of several processes cannot run separately.
        """
        if jax.process_count() > 1 and set(asked) - set(self.after):
            allowed = " and ".join(self.after)
            raise RelandError(f"--stages: a job of several processes can only run {allowed} separately")
        for name in asked:
            if name not in self.names:
                raise RelandError(f"--stages: {name!r} is not a stage; {nearest_name(name, self.names)}")


def run(
    flow: Flow,
    config: Config,
    workdir: str | Path,
    *,
    until: str | None = None,
    asked: Sequence[str] = (),
    replace: Mapping[str, Stage[Any]] | None = None,
    shared: Mapping[str, Path] | None = None,
    known: Made | None = None,
    ask_again: bool = True,
) -> Made:
    """Makes the artefacts of a flow, or reads back those that are up to date.

    Args:
        flow: the stages.
        config: all settings.
        workdir: where artefacts live; made if it does not exist.
        until: the last family to run; all where None.
        asked: families to run, even if they are finished; all others must be up to date. If empty, every
            stage runs that is not up to date.
        replace: stages that replace those of the same name.
        shared: folders to use instead of `workdir`, by the name of a stage or `TEXT_CACHE`.
        known: an earlier run, whose artefacts are reused from memory if they are the same.
        ask_again: whether missing answers of a pool are requested again; a job of several processes does not.

    Raises:
        RelandError: an unknown stage, bad data or settings, or a missing artefact of a stage not asked for.
    """
    flow.check(asked)
    stages = flow.selected(config, until, asked, replace or {})
    made = Made(
        config, Path(workdir), tuple(asked), ask_again and jax.process_count() == 1, dict(shared or {}), known
    )  # fmt: skip
    made.workdir.mkdir(parents=True, exist_ok=True)
    if jax.process_index() == 0:  # partial files of killed runs
        for folder in (made.workdir, made.folder(TEXT_CACHE)):
            sweep_folder(folder)
    made.to_come = tuple(stages)
    for stage in stages:
        made.artefacts[stage.name] = made.artefact(stage)
    return dataclasses.replace(made, known=None, to_come=())  # a chain of runs does not keep all artefacts


@dataclasses.dataclass
class Made:
    """The artefacts of a run so far, from which further stages are made.

    Attributes:
        config: all settings.
        workdir: where artefacts live.
        asked: requested families.
        ask_again: whether an incomplete artefact is completed.
        shared: see `run`.
        known: see `run`.
        to_come: the stages of a run, until `ready` was called.
        artefacts: artefacts by the name of the stage.
        stamps: stamps by the name of the stage.
        stages: the stages that made them, for `origin`.
        stated: hashes of the settings of stages; some are computed from files.
        seconds: duration by the name of the stage.
    """

    config: Config
    workdir: Path
    asked: tuple[str, ...] = ()
    ask_again: bool = True
    shared: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    known: Made | None = None
    to_come: tuple[Stage[Any], ...] = ()
    artefacts: dict[str, Artefact] = dataclasses.field(default_factory=dict)
    stamps: dict[str, str] = dataclasses.field(default_factory=dict)
    stages: dict[str, Stage[Any]] = dataclasses.field(default_factory=dict)
    stated: dict[str, str] = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    def __getitem__(self, stage: Stage[T]) -> T:
        """The artefact of a stage, or of its replacement."""
        return cast(T, self.artefacts[stage.name].value)

    def folder(self, name: str) -> Path:
        """Folder of the artefact of a stage."""
        return self.shared.get(name, self.workdir) / name

    def instead(self, stage: Stage[T], value: T) -> Made:
        """A copy with another value of one artefact; nothing made from it is to be stored."""
        other = self.artefacts[stage.name]._replace(value=value)
        return dataclasses.replace(self, artefacts=self.artefacts | {stage.name: other})

    def compute(self, stage: Stage[T]) -> T:
        """Runs a stage without storing anything."""
        return stage.run(Job(self, stage, "", kept=False))

    def read(self, stage: Stage[Any], load: Callable[[Path], T]) -> T:
        """Reads a part of a finished artefact, after checking its checksums.

        Raises:
            RelandError: the artefact is damaged.
        """
        found = artefacts.require(self.folder(stage.name), self.stamps[stage.name], stage.family, load)
        return cast(T, found.value)

    def make(self, stage: Stage[T]) -> T:
        """Makes the artefact of a stage, or reads back one that is up to date.

        Raises:
            RelandError: the stage was not requested and its artefact is missing; or the stage failed.
        """
        return cast(T, self.artefact(stage).value)

    def artefact(self, stage: Stage[Any]) -> Artefact:
        """The same with its fingerprint; this object keeps no reference to it."""
        job = Job(self, stage, self._stamp(stage))
        artefact = self._from_earlier_run(job) or self._make_or_read(job)
        self.stamps[stage.name], self.stages[stage.name] = job.stamp, stage
        self.seconds[stage.name] = artefact.seconds
        kept = "up to date, took" if stage.complete(artefact.value) else "incomplete, not continued; took"
        _log.info("%s: %s %.1f s", stage.name, "done" if artefact.fresh else kept, artefact.seconds)
        stage.check(job, artefact)
        return artefact

    def origin(self, stage: Stage[Any]) -> str:
        """A hash of everything that the artefact of a stage depends on, the same on every machine.

        It is a hash of settings and of what the data hold, whatever their paths, and not of vectors, which
        machines round differently.
        """
        if stage.exact:
            return self.artefacts[stage.name].fingerprint
        reads = [self.origin(self.stages.get(each.name, each)) for each in stage.reads]
        return fingerprint(stage.family, stage.version, reads, self._settings_hash(stage))

    def _stamp(self, stage: Stage[Any]) -> str:
        reads = [self.artefacts[each.name].fingerprint for each in stage.reads]
        return fingerprint(stage.family, stage.version, reads, self._settings_hash(stage))

    def _settings_hash(self, stage: Stage[Any]) -> str:
        if stage.name not in self.stated:
            self.stated[stage.name] = fingerprint(*stage.settings(self.config))
        return self.stated[stage.name]

    def _from_earlier_run(self, job: Job) -> Artefact | None:
        """The artefact of an earlier run, if it is from the same folder and has the same stamp."""
        known, name = self.known, job.stage.name
        if known is None or job.forced or known.stamps.get(name) != job.stamp:
            return None
        found = known.artefacts[name]
        usable = job.stage.complete(found.value) or not self.ask_again
        return found._replace(fresh=False) if usable and known.folder(name) == self.folder(name) else None

    def _computed(self, stage: Stage[T], job: Job) -> T:
        """The artefact of a stage; before the first one of a run is computed, all to come must be ready."""
        for each in dropwhile(lambda each: each is not stage, self.to_come):
            if jax.process_index() == 0 and (not self.asked or each.family in self.asked):
                each.ready(self.config, self.workdir)
        self.to_come = ()
        return stage.run(job)

    def _make_or_read(self, job: Job) -> Artefact:
        stage, folder, first = job.stage, self.folder(job.stage.name), jax.process_index() == 0
        codec, due = stage.codec(job), job.asked
        together = stage.together and jax.process_count() > 1
        if due and together:
            # Processes may see a shared folder differently, but either all of them compute or none.
            due = bool(of_first_process(first and (job.forced or not artefacts.is_whole(folder, job.stamp))))
        artefact = None
        if due and (first or together):
            folder.parent.mkdir(parents=True, exist_ok=True)
            if first:
                sweep_folder(folder.parent)
            artefact = artefacts.make(
                folder, job.stamp, compute=partial(self._computed, stage, job), save=codec.save,
                load=codec.load, identify=stage.identify, force=job.forced, write=first, together=together,
                on_damage=partial(stage.on_damage, job),
                complete=lambda value: not self.ask_again or stage.complete(value),
            )  # fmt: skip
        if due and not first:
            return artefacts.wait_for(folder, job.stamp, codec.load)
        return artefact or artefacts.require(folder, job.stamp, stage.family, codec.load)


@dataclasses.dataclass(frozen=True)
class Job:
    """The view that a stage has of a run: the settings, and the artefacts that it declares.

    Attributes:
        made: the run so far.
        stage: the stage.
        stamp: stamp of its artefact.
        kept: whether the artefact, checkpoints and events are stored.
    """

    made: Made
    stage: Stage[Any]
    stamp: str
    kept: bool = True

    def __getitem__(self, stage: Stage[T]) -> T:
        """The artefact of a stage that this one reads."""
        assert stage.name in {each.name for each in self.stage.reads}, f"{stage.name} is not declared"
        return self.made[stage]

    @property
    def config(self) -> Config:
        """All settings."""
        return self.made.config

    @property
    def workdir(self) -> Path:
        """Where artefacts live."""
        return self.made.workdir

    @property
    def cache(self) -> Path:
        """Folder of the vectors of texts."""
        return self.made.folder(TEXT_CACHE)

    @property
    def asked(self) -> bool:
        """Whether the stage may run."""
        return not self.made.asked or self.stage.family in self.made.asked

    @property
    def forced(self) -> bool:
        """Whether the stage runs even if its artefact is up to date."""
        return self.stage.repeats and self.stage.family in self.made.asked

    @property
    def checkpoints(self) -> Path | None:
        """Folder of a training's checkpoints; changed settings use another one, and the old one remains."""
        return self.workdir / "checkpoints" / f"{self.stage.name}-{self.stamp}" if self.kept else None
