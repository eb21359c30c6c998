"""A ranker of several scenarios: the fields, a backbone on them, and meta layers around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from reland_jax.fields import check, nearest_name
from reland_jax.ranker_settings import RankerConfig
from reland_jax.rankers.arms import Arm
from reland_jax.rankers.layers import NetworkFactory
from reland_jax.rankers.mmoe import MMoE
from reland_jax.rankers.ple import PLE
from reland_jax.rankers.ranker import Ranker, check_parts
from reland_jax.rankers.scenarios.epnet import Gated
from reland_jax.rankers.scenarios.meta import SCENARIO_LAYER, USER_LAYER, ScenarioLayer, UserLayer
from reland_jax.rankers.scenarios.per_scenario import One, PerScenario
from reland_jax.rankers.scenarios.ppnet import PPNet
from reland_jax.rankers.scenarios.rows import KNOWN, Rows, scenario_shares
from reland_jax.rankers.scenarios.star import Star
from reland_jax.rankers.schema import CATEGORICAL, USER_ROW, WEIGHT, Batch, FieldSchema
from reland_jax.rankers.shared_bottom import SharedBottom
from reland_jax.rankers.single import Single
from reland_jax.rankers.text_fields import Texts, seed_of
from reland_jax.scenario_settings import LEVELS, ScenarioConfig
from reland_jax.types import RelandError

Build = Callable[[RankerConfig, ScenarioConfig, int, NetworkFactory], nn.Module]
"""(ranker, scenarios, S, network) -> a module that maps `Rows` (and `train`) to logits ``<float32>[B]``."""


def _one(config: RankerConfig, plan: ScenarioConfig, scenarios: int, network: NetworkFactory) -> nn.Module:
    return One(Single(network))


def _shared_bottom(
    config: RankerConfig, plan: ScenarioConfig, scenarios: int, network: NetworkFactory
) -> nn.Module:
    return PerScenario(SharedBottom(network, scenarios, config.tower, config.dropout))


def _mmoe(config: RankerConfig, plan: ScenarioConfig, scenarios: int, network: NetworkFactory) -> nn.Module:
    return PerScenario(MMoE(network, scenarios, config.experts, config.tower, config.dropout))


def _ple(config: RankerConfig, plan: ScenarioConfig, scenarios: int, network: NetworkFactory) -> nn.Module:
    experts = config.experts, config.own_experts, config.levels
    return PerScenario(PLE(network, scenarios, *experts, config.tower, config.dropout))


def _star(config: RankerConfig, plan: ScenarioConfig, scenarios: int, network: NetworkFactory) -> nn.Module:
    return Star(config.layers, plan.auxiliary, plan.momentum, config.dropout)


def _epnet(config: RankerConfig, plan: ScenarioConfig, scenarios: int, network: NetworkFactory) -> nn.Module:
    return Gated(Single(network), plan.gate_width)


def _ppnet(config: RankerConfig, plan: ScenarioConfig, scenarios: int, network: NetworkFactory) -> nn.Module:
    return PPNet(config.layers, plan.gate_width, plan.backbone == "pepnet", config.dropout)


BACKBONES: dict[str, Build] = {
    "one": _one,
    "shared_bottom": _shared_bottom,
    "mmoe": _mmoe,
    "ple": _ple,
    "star": _star,
    "epnet": _epnet,
    "ppnet": _ppnet,
    "pepnet": _ppnet,
}
"""Backbones by name. STAR and PPNet have hidden layers of their own (`RankerConfig.layers`), the others
the network that `RankerConfig.network` names."""


class ScenarioRanker(Ranker):
    """A ranker of one label in several scenarios.

    Knowledge of users is what `Texts` says of them, by their seed user or their own; that of scenarios is
    `Texts.scenarios`. Both are read by meta layers alone, unless the arm makes fields of texts too.

    Attributes:
        plan: backbone and meta layers.
    """

    plan: ScenarioConfig = ScenarioConfig()

    def setup(self) -> None:
        """Declares the parts."""
        super().setup()
        plan = self.plan
        self.backbone = BACKBONES[plan.backbone](self.config, plan, self.scenarios, self.network)
        if "user" in plan.meta:
            self.user_layer = UserLayer(plan)
        if "scenario" in plan.meta:
            self.scenario_layer = ScenarioLayer(plan)

    def adapted(self, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
        """Meta layers have a learning rate of their own."""
        return with_own_rate(optimizer, self.plan.meta_rate) if self.plan.meta else optimizer

    @property
    def scenarios(self) -> int:
        """S, the number of scenarios that training has."""
        return self.schema.feature(self.plan.feature).size - KNOWN

    def __call__(self, looked_up: jax.Array, batch: Batch, texts: Texts, train: bool = False) -> jax.Array:
        """Logits, ``<float32>[B, 1]``; see `Ranker`."""
        rows = self._rows(self.embedding(looked_up, batch, texts), batch)
        if "user" in self.plan.meta:
            assert texts.rationales is not None
            known = seed_of(texts, jnp.asarray(batch[USER_ROW]))
            rows = rows._replace(fields=self.user_layer(rows.fields, texts.rationales, known))
        logits = self.backbone(rows, train)
        if "scenario" in self.plan.meta:
            assert texts.scenarios is not None
            logits += self.scenario_layer(rows.fields, texts.scenarios, rows.shares)
        return logits[:, None]

    def _rows(self, fields: jax.Array, batch: Batch) -> Rows:
        names = [each.name for each in self.schema.features]
        codes = jnp.asarray(batch[self.plan.feature])
        prior = [fields[:, names.index(each)] for each in self.plan.prior if each in names]
        return Rows(
            fields,
            scenario_shares(codes, self.scenarios),
            fields[:, names.index(self.plan.feature)],
            jnp.concatenate(prior, -1) if prior else fields[:, 0, :0],
            jnp.asarray(batch[WEIGHT]) > 0,
        )


def create_scenario_ranker(
    config: RankerConfig, plan: ScenarioConfig, schema: FieldSchema, arm: Arm, seed_users: int = 0
) -> ScenarioRanker:
    """Puts a network, a backbone, meta layers and an arm together.

    Args:
        config: network and sizes; one label.
        plan: backbone and meta layers.
        schema: the declared features, with that of the scenario.
        arm: which texts are fields.
        seed_users: S; read where the arm embeds seed users.

    Raises:
        RelandError: parts that do not go together.
    """
    check_parts(config, schema, arm, seed_users)
    check(plan, "scenarios")
    if config.task != "single" or config.network == "logistic":
        raise RelandError(
            f"task={config.task} and network={config.network}: a ranker of scenarios has one label "
            "(task=single) and a network with hidden layers"
        )
    _check_plan(plan, schema)
    return ScenarioRanker(config, schema, arm, seed_users if arm.reads_seed_ids else 0, plan=plan)


def _check_plan(plan: ScenarioConfig, schema: FieldSchema) -> None:
    asks_prior = plan.backbone in ("ppnet", "pepnet")
    for name in (plan.feature, *(plan.prior if asks_prior else ())):
        if schema.feature(name).kind != CATEGORICAL:
            raise RelandError(f"feature {name!r} is not categorical; scenarios and priors must be")
    if schema.feature(plan.feature).size <= KNOWN:
        raise RelandError(f"feature {plan.feature!r} has no value that training knows, so no scenario")
    for level in plan.meta:
        if level not in LEVELS:
            raise RelandError(f"meta layers of level {level!r}; {nearest_name(level, LEVELS)}")


def with_own_rate(optimizer: optax.GradientTransformation, share: float) -> optax.GradientTransformation:
    """An optimiser whose steps of the meta layers are multiplied by a share.

    Args:
        optimizer: of all parameters.
        share: `ScenarioConfig.meta_rate`.
    """

    def scaled(updates: Any, params: Any = None) -> Any:
        del params
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf * share if is_meta(path) else leaf, updates
        )

    return optax.chain(optimizer, optax.stateless(scaled))


def is_meta(path: Sequence[Any]) -> bool:
    """Whether a parameter belongs to meta layers, by its path in the tree."""
    return any(getattr(key, "key", "") in (USER_LAYER, SCENARIO_LAYER) for key in path)
