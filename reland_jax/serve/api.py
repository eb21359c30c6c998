"""The Python API: fit, recommend, explain, save and load, over the stages of the command line.

model = Reland("demo", backbone="sasrec").fit()
model.recommend(["U000001"], k=5).to_pandas()
model.save("bundle")
Reland.load("bundle").recommend_from_history(["P00003", "P00010"])
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from reland_jax.bundle import Bundle, read_bundle, write_bundle
from reland_jax.config import Config
from reland_jax.data import load_interactions
from reland_jax.files import resolve
from reland_jax.presets import preset
from reland_jax.serve.changing import check_appendable, refreshed, screened, with_described, with_items
from reland_jax.serve.fitting import fitted
from reland_jax.serve.given import Given, described_items, with_data
from reland_jax.serve.model import Model
from reland_jax.serve.stablehlo import export_functions
from reland_jax.stages.encoding import encode_further_items
from reland_jax.types import RelandError
from reland_jax.variants import find_variant


class Reland(Model):
    """A recommender: one backbone with one variant, trained with one seed.

    Lists are made from the newest history: all interactions of the data, held-out ones too. A collaborative
    backbone takes the vectors that it has trained where the validation is better with them. The model itself
    is the measured one, trained on the training part of the split, unless it is refitted.
    """

    def __init__(
        self,
        data: str | Config = "demo",
        *,
        backbone: str = "sasrec",
        variant: str = "reland",
        seed: int = 0,
        settings: Mapping[str, Any] | None = None,
        workdir: str | os.PathLike[str] | None = None,
    ) -> None:
        """Nothing is read or trained yet.

        Args:
            data: name or path of a data set, or a whole `Config`, which says all but variant and seed.
            backbone: with a name: which recommender; its settings are those of `presets`.
            variant: "id", "f_item" or "reland".
            seed: training seed.
            settings: with a name: other settings by dotted name, such as ``{"train.max_epochs": 3}``.
            workdir: folder of artefacts, which a second fit reuses; None takes a temporary one.

        Raises:
            RelandError: an unknown name, a value out of range, or settings beside a `Config`.
        """
        if isinstance(data, Config) and settings:
            raise RelandError("settings: change them in the Config itself")
        self._config = data if isinstance(data, Config) else preset(data, backbone, settings)
        self._variant, self._seed = find_variant(variant).name, seed
        self._workdir = None if workdir is None else resolve(workdir)

    def __repr__(self) -> str:
        """What it recommends with, for people."""
        what = f"{self._config.model.backbone}, {self._variant}, seed {self._seed}"
        if self._bundle is None:
            return f"Reland({what}; not fitted yet)"
        held = self._bundle.interactions
        return f"Reland({what}; {held.num_users:,} users, {held.num_items:,} items)"

    def fit(
        self,
        interactions: Given = None,
        *,
        items: Given = None,
        users: Given = None,
        refit: bool = False,
        by_histories: bool | None = None,
    ) -> Reland:
        """Trains; stages that are up to date in the workdir are reused.

        Args:
            interactions: a path, a pandas or Arrow table, or a mapping of names to columns such as NumPy
                arrays; by default with the columns "user_id", "item_id" and "timestamp" (`config.data` names
                others). None takes the data set of the settings.
            items: what describes the items, a row for each id, as a path or table.
            users: the same of the users.
            refit: whether the model is trained once more, on all interactions, for as many epochs as the
                measured one was best after: the model to ship. `evaluate` has the metrics of the measured
                one. The workdir keeps both.
            by_histories: whether a collaborative backbone reads its users by what they had, as it reads new
                ones, held-out interactions and those after the training too; False takes the vectors that it
                has trained. None reads histories where the validation is no worse for it, as `evaluate` says.

        Returns:
            Itself.

        Raises:
            RelandError: bad data or settings.
        """
        if self._workdir is not None:
            return self._fitted_in(self._workdir, (interactions, items, users), refit, by_histories)
        # What was read from it stays mapped into memory when the folder goes.
        with tempfile.TemporaryDirectory(prefix="reland-") as folder:
            return self._fitted_in(Path(folder), (interactions, items, users), refit, by_histories)

    def _fitted_in(
        self, workdir: Path, tables: tuple[Given, Given, Given], refit: bool, by_histories: bool | None
    ) -> Reland:
        config = with_data(self._config, workdir, *tables)
        self._hold(fitted(config, self._variant, self._seed, workdir, refit, by_histories))
        return self

    def save(
        self,
        folder: str | os.PathLike[str],
        *,
        licence: str = "",
        provenance: Mapping[str, str] | None = None,
    ) -> None:
        """Writes the bundle: one folder that needs neither the raw data nor the workdir.

        A bundle that is there is replaced as a whole. It holds histories of people, so only its
        owner may read it.

        Args:
            folder: the folder.
            licence: under which data and texts may be used, in words; kept from the bundle if empty.
            provenance: remarks on where it comes from.

        Raises:
            RelandError: nothing is fitted, or the folder holds something else.
        """
        bundle = self._fitted()
        told = dict(bundle.provenance) | dict(provenance or {})
        whole = self._with_params()._replace(licence=licence or bundle.licence, provenance=told)
        write_bundle(whole, resolve(folder))

    def screen(self, store: str | os.PathLike[str]) -> Reland:
        """Leaves out what a pool store has removed: users with all that is of them, and blocked texts.

        Users who lose a seed user are matched anew. Parameters have learned from a removed user until the
        next training.

        Args:
            store: its folder.

        Returns:
            Itself; save it to replace a bundle.

        Raises:
            RelandError: the store cannot be read, or nobody or no rationale would be left.
        """
        self._hold(screened(self._with_params(), resolve(store)))
        return self

    def refresh(
        self,
        interactions: Given,
        *,
        users: Given = None,
        store: str | os.PathLike[str] | None = None,
    ) -> Reland:
        """Takes the histories of today, all of them; model and pool stay, users are matched anew.

        Unknown items are told and passed over. A collaborative backbone keeps the users that it was trained
        on; it takes new ones too if it reads users by their histories, and else tells and leaves them out. A
        sequential or linear one takes the users as they are now.

        Args:
            interactions: see `fit`; not filtered by `data.min_interactions`.
            users: see `fit`.
            store: folder of a pool store, whose removals up to now are applied, as by `screen`.

        Returns:
            Itself; save it to replace a bundle.

        Raises:
            RelandError: bad data, or none of the items is known.
        """
        bundle = self._with_params()
        with tempfile.TemporaryDirectory(prefix="reland-") as folder:
            config = with_data(bundle.config, Path(folder), interactions, None, users)
            data = dataclasses.replace(config.data, min_interactions=0, item_table=None)
            bundle = refreshed(bundle, load_interactions(data))
        self._hold(bundle if store is None else screened(bundle, resolve(store)))
        return self

    def append_items(self, items: Given, *, cache: str | os.PathLike[str] | None = None) -> Reland:
        """Appends new items, known by their texts; nothing is trained.

        They can be recommended, found as similar ones, and named in histories.

        Args:
            items: a table in memory with the item ids and the fields that the data describe items by.
            cache: folder of text vectors, such as `text_cache` of the workdir; None encodes all texts again.

        Returns:
            Itself; save it to replace a bundle.

        Raises:
            RelandError: the variant reads no texts, a linear model, an id that is known or twice there, or an
                item without a text.
        """
        bundle = self._with_params()
        check_appendable(bundle)
        ids, features = described_items(items, bundle)
        known = bundle.interactions.num_items
        described = with_described(bundle.interactions, ids, features)
        with tempfile.TemporaryDirectory(prefix="reland-") as folder:
            place = Path(folder) if cache is None else resolve(cache)
            vectors = encode_further_items(described, known, bundle.config, place)
        self._hold(with_items(bundle, described, vectors))
        return self

    def export(self, folder: str | os.PathLike[str], k: int = 100) -> None:
        """Writes functions, arrays and ids that JAX alone can load and call (`serve.stablehlo`).

        An exported folder that is there is replaced as a whole. Only its owner may read it.

        Args:
            folder: the folder.
            k: length of the lists; shorter ones are their beginning.

        Raises:
            RelandError: nothing is fitted, k below 1, the folder holds something else, or flatbuffers is
                missing.
        """
        if k < 1:
            raise RelandError(f"k={k}: a list has at least one item")
        export_functions(self.predictor.parts(), self._fitted(), resolve(folder), k)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Reland:
        """Reads a bundle.

        Raises:
            RelandError: there is none, it is damaged, or another version of this program made it.
        """
        place = resolve(folder)
        bundle = read_bundle(place)
        model = cls(bundle.config, variant=bundle.variant, seed=bundle.seed)
        model._hold(bundle, place)
        return model

    def _with_params(self) -> Bundle:
        """The bundle with its parameters, on the host."""
        bundle = self._fitted()
        params = jax.tree.map(np.asarray, self._reader.params)
        return bundle._replace(trained=bundle.trained._replace(params=params))
