"""What a turn sees and what it decides: the nouns between observe, policy and act. Pure data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from yolastic_contract.inference import InferenceSpec
from yolastic_contract.runtime import RuntimeSpec
from yolastic_contract.state import Bound, WorkerState

T = TypeVar("T")

Source = Literal["Prometheus", "Workers"]
Mode = Literal["Active", "Advisory", "Paused"]
Manner = Literal["Surge", "OneByOne"]
"""How workers are replaced. Surge: the new one is ready before an old one goes; OneByOne: an old one goes first."""
WorkerPhase = Literal["Pending", "Starting", "Ready", "Draining", "Failed", "Terminating"]


@dataclass(frozen=True, slots=True)
class Ref:
    """Names an inference; `uid` tells an object from one that was recreated with the same name."""

    namespace: str
    name: str
    uid: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Fresh(Generic[T]):
    """A number that may be acted on, and its age in seconds."""

    value: T
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Stale(Generic[T]):
    """A number too old to act on: shown, never used to shrink."""

    value: T
    age_s: float


@dataclass(frozen=True, slots=True)
class Missing:
    """No number, and why. Never to be read as zero."""

    reason: str


Reading = Fresh[T] | Stale[T] | Missing


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker as the cluster knows it: a pod, or a process of this host."""

    name: str
    revision: str
    """Revision of the workload it was made from."""
    phase: WorkerPhase
    created_s: float
    """Unix time, seconds."""
    address: str | None = None
    """Host or IP of its control port; None until it has one."""
    node: str | None = None
    """The node it runs on; None: it has none yet, or there is only this host."""
    control_port: int = 9000
    ready: bool = False
    """The cluster sends it requests."""
    unschedulable: bool = False
    """The scheduler found no place for it."""
    failure_reason: str | None = None
    """CamelCase: one of `failure.REASONS`, or the cluster's own (ImagePullBackOff, CrashLoopBackOff, SecretNotFound...)."""
    failure_message: str = ""
    """What the failure is, in words; of an unschedulable worker without a failure, what the scheduler says."""
    failures: int = 0
    """How often it has ended though nobody asked."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """All workers of an inference, and how many the cluster was told to run."""

    replicas: int | None
    """The size ordered (`spec.replicas` of the Deployment); None when there is no Deployment yet."""
    workers: tuple[Worker, ...] = ()
    revision: str | None = None
    """Revision the cluster was last told to run."""
    manner: Manner = "Surge"
    """How it was told to replace workers of another revision."""
    record: str = ""
    """`Workload.record` as it was stored."""
    edited: bool = False
    """Somebody changed or deleted a child since it was applied."""
    unplaced: int = 0
    """`Workload.unplaced` as it was told."""
    refusal: str = ""
    """Why the cluster makes no further worker at all (a quota, admission); empty: nothing is known to keep it from it."""
    is_full: bool = False
    """That is because a quota is used up: when a worker goes there is room for another."""
    unconfirmed: str = ""
    """Why this is only what was known before, though it is to be looked at anew; empty: nothing speaks against it. Workers may be
    there that are not in it, so it is no ground to shrink on."""


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker with what it says of itself."""

    worker: Worker
    state: Reading[WorkerState]
    load_ratio: Reading[float]
    """From Prometheus when one is configured and has it, else from the worker's own /state."""
    load_source: Source = "Workers"


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything one turn knows. Built by observe, read by policy, never changed."""

    fleet: Fleet
    workers: tuple[WorkerView, ...]
    prometheus: Reading[float] | None = None
    """None: no Prometheus is configured. Fresh: it answered, the value is its newest sample's age. Missing: why not."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A raw recommendation at a time, for the stabilisation windows."""

    time_s: float
    replicas: int
    reserve: int = 0
    """So many of them beyond what the load alone asked for."""


@dataclass(frozen=True, slots=True)
class ScaleEvent:
    """A change of size at a time, for the rate policies."""

    time_s: float
    change: int


@dataclass(frozen=True, slots=True)
class DemandSample:
    """Demand of all workers at a time, images/s."""

    time_s: float
    images_per_s: float


@dataclass(frozen=True, slots=True)
class DemandInterval:
    """Images that came to all workers between two looks."""

    start_s: float
    end_s: float
    images: int

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end_s - self.start_s

    @property
    def per_s(self) -> float:
        """Images/s."""
        return self.images / self.seconds


@dataclass(frozen=True, slots=True)
class WorkerTotal:
    """How many images a worker had been sent when it was last seen."""

    worker_id: str
    images: int
    seen_s: float


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a decision in words, noted where it was computed."""

    about: str
    """Which step: one of those that the status names."""
    text: str
    """What it came to, with every number."""


@dataclass(frozen=True, slots=True)
class PolicyState:
    """What decisions remember from one turn to the next; a restart starts from the current size."""

    recommendations: tuple[Recommendation, ...] = ()
    scale_events: tuple[ScaleEvent, ...] = ()
    demand: tuple[DemandSample, ...] = ()
    """At most an hour, thinned to one a minute."""
    intervals: tuple[DemandInterval, ...] = ()
    """The last five minutes, as the looks cut them, oldest first."""
    totals: tuple[WorkerTotal, ...] = ()
    """Of the workers that were there lately."""
    counted_s: float | None = None
    """When the last interval ended."""
    swing: float = 0.0
    """By what share of itself the demand swings beyond chance, noise apart; 0: no more than may be."""
    desired_replicas: int | None = None
    """What the last turn wanted."""
    ordered_replicas: int | None = None
    """What was ordered when it looked; more than wanted while workers leave."""
    tiers: "Tiers | None" = None
    """What the last turn decided."""
    objective_percent: int | None = None
    """The load that the objective leaves room for, noise apart; None: there is no objective, or nobody has told yet."""
    granted: "Tiers | None" = None
    """What workers of this revision last said to have been granted."""
    revision: str | None = None
    """The revision these tiers are of: another one starts from its own fits."""
    lost_s: float | None = None
    """Since when workers serve and none has usable figures; None: there are some."""
    shrink_held_s: float | None = None
    """Since when a shrink is put off because it goes on; None: none is."""
    no_place_s: float | None = None
    """When the scheduler last had no place for a second worker; None: that was never seen, or it has had one since."""
    no_places: int = 0
    """How many of them in a row had none."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Upper bounds of the batch ceiling, images; None: it does not bind (no objective, or not known yet)."""

    spec: int
    memory: int | None = None
    latency: int | None = None
    efficiency: int | None = None
    lease: int | None = None
    """On a shared device: what it can lend to one worker while the others work with their base."""

    def own(self) -> "dict[Bound, int]":
        """Those that bind, as a worker is told them."""
        named: tuple[tuple[Bound, int | None], ...] = (
            ("spec", self.spec), ("memory", self.memory), ("latency", self.latency), ("efficiency", self.efficiency),
        )  # fmt: skip
        return {name: value for name, value in named if value is not None}


@dataclass(frozen=True, slots=True)
class Tiers:
    """Granted batch sizes, images."""

    base: int
    ceiling: int


CeilingLimit = Literal["Spec", "Memory", "Latency", "Efficiency", "Lease"]


@dataclass(frozen=True, slots=True)
class CeilingDecision:
    """The granted tiers with the sum that led to them."""

    tiers: Tiers
    bounds: Bounds
    limited_by: CeilingLimit
    budget_bytes: int | None = None
    """Memory limit less headroom; None when the limit is not known."""
    budget_source: Literal["Declared", "Device"] | None = None
    fixed_bytes: int | None = None
    per_image_bytes: int | None = None
    fixed_s: float | None = None
    per_image_s: float | None = None
    fits: bool = True
    """False: not even a batch of 1 fits into the budget."""
    fitting: int | None = None
    """Images that fit into the budget by what was measured or planned; `bounds.memory` may be less: what is warm."""
    message: str = ""
    held: bool = False
    """It is what workers were granted before, and not what follows from the bounds."""
    leased: "Mapping[str, Tiers]" = field(default_factory=dict)
    """By worker on a shared device: what it should work with now, instead of the tiers."""


@dataclass(frozen=True, slots=True)
class ConditionUpdate:
    """A condition as decided; times and generations are added when it is written."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class ReplicaDecision:
    """The wanted size with the sum that led to it."""

    desired: int
    recommended: int | None
    """From the metrics alone; None when nothing could be computed."""
    reason: str
    """CamelCase: what moved or held it."""
    message: str
    """The sum in words, with every number."""
    limited_by: str | None = None
    """The clamp that cut the wish: reason of ScalingLimited; None when none did."""
    active: bool = True
    """A decision could be computed from metrics (ScalingActive)."""
    load_ratio: float | None = None
    """Mean over the workers that counted."""
    source: Source | None = None
    advised: int | None = None
    """Mode Advisory alone: the size that Active would order; `desired` is then the size there is."""
    lost_for_s: float | None = None
    """How long there have been no usable figures, seconds; None: there are some."""
    fallback: bool = False
    """The fallback policy decides instead of figures."""
    reserve: int = 0
    """So many of `recommended` beyond what the load alone asks for."""
    fewest: int = 0
    """The spec asks for so many whatever the load."""
    target_percent: int | None = None
    """The load that was aimed for: `targetLoadPercent`, or less (`policy/target.py`)."""
    steps: tuple[Step, ...] = ()
    """The sum, step by step."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One turn's answer; conditions, events, metrics and explanations are renderings of it."""

    replicas: ReplicaDecision
    ceiling: CeilingDecision | None
    """None until a worker of this revision has told its fit."""
    victims: tuple[str, ...]
    """Workers that should go because fewer are wanted, those that drain already first: ordered size less the desired one."""
    conditions: tuple[ConditionUpdate, ...]
    state: PolicyState
    mode: Mode = "Active"
    """Only Active is carried out; otherwise nothing is sent to workers and no size is ordered."""
    explanation: tuple[Step, ...] = ()
    """What was seen, each step of the sum, and what it came to."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What the cluster must run for an inference: everything but how many. `revision` is its digest."""

    ref: Ref
    spec: InferenceSpec
    runtime_name: str
    runtime: RuntimeSpec
    labels: dict[str, str] = field(default_factory=dict)
    revision: str = ""
    manner: Manner = "Surge"
    record: str = ""
    """Text to store with it, for the operator that comes after a restart."""
    unplaced: int = 0
    """OneByOne: so many of the ordered workers have no place, and do not count as the one that may be away."""
