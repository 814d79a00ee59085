"""After all other cluster tests, by name: the operator's rights are exactly what it asked for, as the API server wrote it down.

A verb that nothing used is one too many; a request that was refused is one too few.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_kit.cluster import Cluster
from cluster_kit.yolastic import SYSTEM

from yolastic_operator import rbac

FOLDER = Path(__file__).parent
OPERATOR = f"system:serviceaccount:{SYSTEM}:yolastic-operator"
Right = tuple[str, str, str]
"""(API group, resource with its subresource, verb)."""


def granted() -> set[Right]:
    """What the role allows; the chart's test holds the chart to it."""
    rules = [*rbac.CLUSTER_RULES, *rbac.NAMESPACED_RULES, *rbac.LEASE_RULES]
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def requests(log: Iterable[str], user: str) -> Iterator[dict[str, Any]]:
    """The requests of a user for objects."""
    for line in log:
        event = json.loads(line)
        if event["user"]["username"] == user and "resource" in event.get("objectRef", {}):
            yield event


def used(event: dict[str, Any]) -> set[Right]:
    """The rights a request needed."""
    thing = event["objectRef"]
    resource = "/".join(filter(None, (thing["resource"], thing.get("subresource"))))
    verbs = {event["verb"]}
    if event["verb"] == "patch" and event.get("responseStatus", {}).get("code") == 201:
        verbs.add("create")  # applying what is not there yet needs both
    return {(thing.get("apiGroup", ""), resource, verb) for verb in verbs}


def refused(event: dict[str, Any]) -> bool:
    """For want of a right; a namespace that is being deleted refuses whoever asks."""
    status = event.get("responseStatus", {})
    return status.get("code") == 403 and "being terminated" not in status.get("message", "")


def whole(request: pytest.FixtureRequest) -> bool:
    """Whether all cluster tests have run, to their end."""
    names = {item.path.name for item in request.session.items}
    chosen = request.config.getoption("keyword") or any("::" in argument for argument in request.config.args)
    return not chosen and not request.session.testsfailed and {path.name for path in FOLDER.glob("test_*.py")} <= names


def test_the_operator_has_the_rights_it_uses_and_no_others(
    cluster: Cluster, release: str, request: pytest.FixtureRequest, record_property: Any
) -> None:
    del release
    if cluster.state is None:
        pytest.skip("what a named cluster was asked is written down elsewhere, if at all")
    with (cluster.state / "log/audit.log").open(encoding="utf-8") as log:
        events = list(requests(log, OPERATOR))
    assert len(events) > 10
    record_property("requests", len(events))
    # What its role allows is refused too while helm takes the role away under it.
    missing = {right for event in events if refused(event) for right in used(event)} - granted()
    assert not missing, "the operator asked for what it may not"
    unused = granted() - {right for event in events for right in used(event)}
    if whole(request):
        assert not unused, "the operator may do what it never did"


def _event(verb: str, resource: str, code: int = 200, message: str = "", user: str = OPERATOR, **more: str) -> str:
    thing = {"resource": resource, **more}
    status = {"code": code, "message": message}
    return json.dumps({"user": {"username": user}, "verb": verb, "objectRef": thing, "responseStatus": status})


@pytest.mark.parametrize(
    ("line", "rights", "is_refused"),
    [
        (_event("list", "pods"), {("", "pods", "list")}, False),
        (
            _event("patch", "deployments", apiGroup="apps", subresource="scale"),
            {("apps", "deployments/scale", "patch")},
            False,
        ),
        (_event("patch", "services", 201), {("", "services", "patch"), ("", "services", "create")}, False),
        (_event("list", "secrets", 403, 'User "x" cannot list resource "secrets"'), {("", "secrets", "list")}, True),
        (_event("create", "events", 403, "namespace gone is being terminated"), {("", "events", "create")}, False),
    ],
)
def test_how_the_log_is_read(line: str, rights: set[Right], is_refused: bool) -> None:
    (event,) = requests([line, _event("delete", "pods", user="system:serviceaccount:x:y"), '{"user":{"username":"a"}}'], OPERATOR)
    assert used(event) == rights
    assert refused(event) == is_refused
