"""The cluster the tests run on and what stands in it; see cluster_kit."""

import atexit
import itertools
import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster_kit import node, services, yolastic
from cluster_kit.cluster import Cluster
from cluster_kit.prometheus import Prometheus, run_prometheus
from cluster_kit.traffic import Client

FOLDER = Path(__file__).parent
TEST_LIMIT_S = 300
CLUSTER = pytest.StashKey[Cluster]()
_counter = itertools.count(1)


@pytest.hookimpl(tryfirst=True)  # before -m looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder need the cluster; the first of them waits for its build."""
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TEST_LIMIT_S, func_only=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure is reported with what the cluster looked like."""
    report = yield
    found = item.config.stash.get(CLUSTER, None)
    if report.failed and found is not None and FOLDER in item.path.parents:
        report.sections.append(("cluster", found.diagnosis()))
    return report


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """A node of our own where this host can have one, or the cluster that KUBECONFIG and the image variables name."""
    try:
        found = node.named_cluster()
        if found is None:
            atexit.register(node.stop_node)
            # up.sh gives the node this process as its owner, so even SIGKILL takes it down.
            signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated", returncode=143))
            found = node.start_node()
    except node.NoClusterError as error:
        pytest.skip(str(error))
    pytestconfig.stash[CLUSTER] = found
    try:
        yield found
    finally:
        del pytestconfig.stash[CLUSTER]
        if found.state is not None:
            node.stop_node()


@pytest.fixture(scope="session")
def images(cluster: Cluster) -> tuple[str, str]:
    """Names of the operator's and the worker's image."""
    return node.build_images(cluster)


@pytest.fixture(scope="session")
def worker_image(images: tuple[str, str]) -> str:
    """Name of the worker's image; it has a Python, so helper pods run from it as well."""
    return images[1]


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A new namespace that admits only restricted pods; deleted at the end, without waiting."""
    name = f"test-{os.getpid()}-{next(_counter)}"
    cluster.apply(services.namespace(name))
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def client(cluster: Cluster, worker_image: str) -> Iterator[Client]:
    """A pod that sends requests from inside the cluster."""
    space = f"clients-{os.getpid()}"
    cluster.apply(services.namespace(space))
    yield services.start_client(cluster, space, worker_image)
    cluster.kubectl("delete", "namespace", space, "--wait=false")


@pytest.fixture
def model_server(cluster: Cluster, namespace: str, worker_image: str) -> Iterator[services.ModelServer]:
    """A claim with models in the test's namespace, and an HTTP server on it."""
    yield services.start_model_server(cluster, namespace, worker_image)
    cluster.kubectl("delete", "persistentvolume", services.volume_name(namespace), "--ignore-not-found", "--wait=false")


@pytest.fixture(scope="session")
def prometheus(cluster: Cluster) -> Iterator[Prometheus]:
    """A real Prometheus that scrapes the workers, reachable from pods."""
    if cluster.state is None:
        pytest.skip("a Prometheus of our own needs the host to reach the pods, which a named cluster does not promise")
    with run_prometheus(cluster) as found:
        yield found


@pytest.fixture(scope="session")
def release(cluster: Cluster, images: tuple[str, str], request: pytest.FixtureRequest) -> str:
    """The chart, installed with helm; what helm said. It reads a real Prometheus where there is one."""
    url = request.getfixturevalue("prometheus").url if cluster.state is not None else None
    return yolastic.install(cluster, *images, url)


@pytest.fixture
def models(model_server: services.ModelServer, release: str) -> services.ModelServer:
    """A model server that has the example detector and another model, in a cluster with the operator."""
    model_server.put("shapes.onnx", yolastic.SHAPES)
    model_server.put("other.onnx", yolastic.OTHER)
    return model_server
