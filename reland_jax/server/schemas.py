"""The bodies of requests, which pydantic reads, and those of answers, for the OpenAPI description.

Bounds that whoever runs the server may set (`limits.Limits`) are checked by `app`; the ones here hold always.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Id = Annotated[str, StringConstraints(min_length=1, max_length=512)]


class Question(BaseModel):
    """What all requests have."""

    model_config = ConfigDict(extra="forbid", strict=True)

    k: int = Field(10, ge=1, description="Length of a list; the longest that is allowed, if that is shorter.")
    model: Id | None = Field(None, description="Name of a recommender; the first one if not given.")


class _Reader(Question):
    user: Id | None = Field(None, description="A user of the data.")
    items: list[Id] | None = Field(
        None,
        min_length=1,
        description="What a new user had, oldest first; unknown ids are told and passed over.",
    )

    @model_validator(mode="after")
    def _has_one_reader(self) -> Self:
        if (self.user is None) == (self.items is None):
            raise ValueError("give either a user or the items of a new one")
        return self


class RecommendRequest(_Reader):
    """Whose list, and of what."""

    exclude_seen: bool = Field(True, description="Leave out what the user had.")
    filter: dict[Id, Id | list[Id]] = Field(
        default_factory=dict,
        description="Field of the items -> value or values, one of which an item must have.",
    )


class ExplainRequest(_Reader):
    """Whose recommendations are to be explained."""


class SimilarRequest(Question):
    """Items that others are to be like."""

    items: list[Id] = Field(min_length=1, max_length=20)


class Item(BaseModel):
    """An item and what it is called."""

    item: str
    title: str


class Listed(Item):
    """An item of a list."""

    rank: int = Field(description="From 1.")
    score: float = Field(description="Of the model, comparable within a list.")


class _Answer(BaseModel):
    model: str = Field(description="Name of the recommender.")
    version: str = Field(description="Tells one bundle from the next.")


class RecommendAnswer(_Answer):
    """A list, best first."""

    items: list[Listed]
    explanation: str = Field(description="What the nearest rationale says; empty without rationales.")
    unknown: list[str] = Field(description="Items of the request that the model does not know.")


class RationaleAnswer(BaseModel):
    """What an LLM wrote about a user who is like this one, or about this one."""

    own: bool = Field(description="Whether it was written from this user's own history.")
    weight: float = Field(description="How like the two users are, at most 1.")
    step1: str = Field(description="Tastes; empty where another user's are not shown.")
    step2: str = Field(description="What an LLM recommends.")


class Reason(Listed):
    """A recommended item and what speaks for it."""

    words: list[str] = Field(description="Words of the item that the rationales have too.")
    history: list[Item] = Field(description="Items of the user that are most like it to the model.")


class ExplainAnswer(_Answer):
    """Why a list is as it is."""

    history: list[Item] = Field(
        description="What the user had, oldest first; the newest ones of a long history."
    )
    rationales: list[RationaleAnswer]
    items: list[Reason]
    unknown: list[str] = Field(description="Items of the request that the model does not know.")


class Similar(BaseModel):
    """The items most like one."""

    item: str
    similar: list[Listed]


class SimilarAnswer(_Answer):
    """Of each item of the request those that are most like it."""

    items: list[Similar]


class ItemsAnswer(BaseModel):
    """Items whose title or id has all words of a search."""

    items: list[Item]


class ModelAnswer(_Answer):
    """A recommender that is served."""

    variant: str
    backbone: str
    items: int = Field(description="How many it knows.")


class ModelsAnswer(BaseModel):
    """All recommenders, the first of which answers where none is named."""

    models: list[ModelAnswer]


class ErrorDetail(BaseModel):
    """Why there is no answer."""

    what: str
    where: str = Field(description="Field of the request; empty for all of it.")
    do: str


class ErrorAnswer(BaseModel):
    """What comes with every status that is not 200."""

    error: ErrorDetail
