"""The base of every resource model: camelCase on the wire, unknown fields refused."""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

INT32_MAX: Final = 2**31 - 1

DnsName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
PositiveInt32 = Annotated[int, Field(ge=1, le=INT32_MAX)]
NonNegativeInt32 = Annotated[int, Field(ge=0, le=INT32_MAX)]


class Resource(BaseModel):
    """A part of a resource: immutable, camelCase aliases, no unknown fields."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, use_attribute_docstrings=True
    )


class Message(BaseModel):
    """A control message between operator and worker: immutable, snake_case.

    Unknown fields are ignored so that an operator and a worker one version apart understand each other.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)
