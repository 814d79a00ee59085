"""The base of every resource model: camelCase on the wire, unknown fields refused."""

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

INT32_MAX: Final = 2**31 - 1
INT64_MAX: Final = 2**63 - 1

_LABELS: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
DnsName = Annotated[str, Field(pattern=f"^{_LABELS}$", max_length=253)]
ExtendedResource = Annotated[str, Field(pattern=rf"^{_LABELS}/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$", max_length=253)]
"""As device plugins name what they offer, such as `nvidia.com/gpu`."""
PositiveInt32 = Annotated[int, Field(ge=1, le=INT32_MAX)]
NonNegativeInt32 = Annotated[int, Field(ge=0, le=INT32_MAX)]
NonNegativeInt64 = Annotated[int, Field(ge=0, le=INT64_MAX)]
Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"}, max_length=32)]
"""RFC 3339, UTC."""


def cel(rule: str, message: str, field_path: str | None = None) -> dict[str, Any]:
    """One `x-kubernetes-validations` entry: what the API server checks that a schema alone cannot say.

    `field_path` (such as `.replicas`) is the field the refusal names; by default the object the rule stands on.
    """
    entry: dict[str, Any] = {"rule": rule, "message": message}
    return entry if field_path is None else entry | {"fieldPath": field_path, "reason": "FieldValueForbidden"}


def refuse_unless(*rules: dict[str, Any]) -> dict[str, Any]:
    """The `json_schema_extra` of a resource part with these CEL rules."""
    return {"x-kubernetes-validations": list(rules)}


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
