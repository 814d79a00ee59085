"""The last of the cluster tests by name: the release goes, the resources' definitions and what they describe stay."""

import pytest
from cluster_kit.cluster import Cluster, await_that
from cluster_kit.yolastic import RELEASE, SYSTEM


def test_uninstalling_keeps_the_definitions(cluster: Cluster, release: str) -> None:
    del release
    cluster.helm("uninstall", RELEASE, "-n", SYSTEM, "--wait", "--timeout=60s")
    names = cluster.kubectl("get", "crds", "-o", "name").split()
    for plural in ("yoloinferences", "yoloruntimes"):
        assert f"customresourcedefinition.apiextensions.k8s.io/{plural}.yolastic.dev" in names
    await_that(lambda: not cluster.list("pods", SYSTEM), 60, "the operator is gone")
    for kind in ("clusterroles", "clusterrolebindings"):
        if any("yolastic" in name for name in cluster.kubectl("get", kind, "-o", "name").split()):
            pytest.fail(f"{kind} of the release are left")
