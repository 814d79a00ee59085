"""Load ratios from a Prometheus: one instant query for the values and their ages."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp

from yolastic_contract.metrics import LOAD_RATIO
from yolastic_operator.model import Fresh, Missing, Reading, Ref, Stale
from yolastic_operator.observe.plausible import implausible_ratio

MAX_ANSWER_BYTES: Final = 4 << 20
_TOLD: Final = "yolastic_told"
"""A label of the answer alone, of those of its series whose value is the time of a sample."""


@dataclass(frozen=True, slots=True)
class LoadRatios:
    """What a Prometheus knew of an inference."""

    pods: Mapping[str, Reading[float]] = field(default_factory=dict)
    """By pod name; a pod without a series is absent."""
    newest: Reading[float] = field(default_factory=lambda: Missing("Prometheus: no series"))
    """Age of its newest sample, seconds; or why there is none."""
    evaluated_s: float | None = None
    """Unix time of the query, by Prometheus's own clock; None without series."""

    def newest_of(self, pods: Collection[str]) -> Reading[float]:
        """`newest` among these alone: one Prometheus may know an inference of the same name in another cluster."""
        if not self.pods.keys() - pods:
            return self.newest
        known = [reading for pod, reading in self.pods.items() if pod in pods and not isinstance(reading, Missing)]
        if not known:
            return Missing("Prometheus: no series of these workers")
        newest = min(known, key=lambda reading: reading.age_s)
        return type(newest)(newest.age_s, newest.age_s)

    def later(self, by_s: float, stale_after_s: float) -> "LoadRatios":
        """The same as it is to be read so many seconds later."""
        pods = {pod: _later(reading, by_s, stale_after_s) for pod, reading in self.pods.items()}
        newest = self.newest
        if not isinstance(newest, Missing):
            newest = _later(type(newest)(newest.value + by_s, newest.age_s), by_s, stale_after_s)
        return LoadRatios(pods, newest, self.evaluated_s)


class Advance:
    """When the answers about one inference last came to a later time of Prometheus's own.

    What a cache replays, or a clock that stands still stamps, tells the same age for ever; it is older by the time since then.
    """

    def __init__(self, stale_after_s: float) -> None:
        self._stale_after_s = stale_after_s
        self._evaluated_s = -inf
        self._since_s = 0.0

    def aged(self, answer: LoadRatios, now_s: float) -> LoadRatios:
        """The answer as it is to be read; `now_s` is monotonic and of our own clock."""
        if answer.evaluated_s is None:
            return answer
        # Compared with the answer before and not with the latest: a clock that was set back is believed again an answer later.
        if answer.evaluated_s > self._evaluated_s:
            self._since_s = now_s
        self._evaluated_s = answer.evaluated_s
        return answer.later(now_s - self._since_s, self._stale_after_s)


class Prometheus:
    """Asks a Prometheus; samples older than `stale_after_s` are Stale. Never raises: a fault is a Missing with its reason."""

    def __init__(
        self, session: aiohttp.ClientSession, base_url: str, stale_after_s: float = 60.0, timeout_s: float = 3.0
    ) -> None:
        self._session = session
        self._base_url = base_url.rstrip("/")
        self._stale_after_s = stale_after_s
        self._timeout_s = timeout_s

    async def load_ratios(self, ref: Ref) -> LoadRatios:
        """Load ratio of each pod of the inference."""
        # An instant query stamps its samples with its own time, only timestamp() tells theirs. Both in one: behind one Service
        # there may be two of them, and the ages of the one say nothing of the values of the other.
        series = _selector(ref)
        try:
            told = await self._query(f'label_replace(timestamp({series}), "{_TOLD}", "time", "pod", ".+") or {series}')
            return fold(told, self._stale_after_s)
        except TimeoutError:
            return LoadRatios(newest=Missing(f"Prometheus: no answer within {self._timeout_s:g} s"))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return LoadRatios(newest=Missing(f"Prometheus: {' '.join(str(error).split()) or type(error).__name__}"))

    async def _query(self, query: str) -> "list[Series]":
        url = f"{self._base_url}/api/v1/query?{urlencode({'query': query})}"
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        async with self._session.get(url, timeout=timeout, allow_redirects=False) as response:
            body = bytearray()
            async for part in response.content.iter_any():
                body += part
                if len(body) > MAX_ANSWER_BYTES:
                    raise ValueError(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
            return parse_vector(response.status, bytes(body))


@dataclass(frozen=True, slots=True)
class Series:
    """One series of an instant vector."""

    labels: tuple[tuple[str, str], ...]
    """Without the metric's name, sorted."""
    pod: str
    is_time: bool
    """The value is the Unix time of a sample, and not the sample."""
    value: float
    evaluated_s: float
    """Unix time of the query, by Prometheus's own clock."""


def parse_vector(status: int, body: bytes) -> list[Series]:
    """The series of an answer to `/api/v1/query`.

    Raises:
        ValueError: an error status, no JSON, or no instant vector.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"status {status} and an answer that is no JSON") from error
    if not isinstance(answer, dict) or status != 200 or answer.get("status") != "success":
        told = _text(answer.get("error", ""))[:200] if isinstance(answer, dict) else ""
        raise ValueError(f"status {status}" + (f": {told}" if told else ""))
    try:
        data = answer["data"]
        if data["resultType"] != "vector":
            raise ValueError(f"a {_text(data['resultType'])[:32]} where a vector was asked for")
        return [_series(item) for item in data["result"]]
    except (KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
        raise ValueError("an answer that is no instant vector") from error


def fold(told: list[Series], stale_after_s: float) -> LoadRatios:
    """Values and their times, joined by series; of several series of a pod the newest counts.

    Who evaluates may have another clock than who scrapes (Thanos, Mimir): what seems to come from a time shortly ahead is new.
    """
    ages_s = {item.labels: item.evaluated_s - item.value for item in told if item.is_time}
    pods: dict[str, Reading[float]] = {}
    best_age_s: dict[str, float] = {}
    for item in told:
        told_age_s = None if item.is_time else ages_s.get(item.labels)
        # NaN compares false with everything, so an age that is none is refused here as well as a time far ahead.
        if told_age_s is None or not told_age_s >= -stale_after_s or told_age_s >= best_age_s.get(item.pod, float("inf")):
            continue
        best_age_s[item.pod], age_s = told_age_s, max(told_age_s, 0.0)
        fault = implausible_ratio(item.value)
        if fault is not None:
            pods[item.pod] = Missing(f"Prometheus: {fault}")
        else:
            pods[item.pod] = Fresh(item.value, age_s) if age_s <= stale_after_s else Stale(item.value, age_s)
    if not best_age_s:
        return LoadRatios(newest=Missing("Prometheus: no series"))
    newest_s = max(min(best_age_s.values()), 0.0)
    newest = Fresh(newest_s, newest_s) if newest_s <= stale_after_s else Stale(newest_s, newest_s)
    return LoadRatios(pods, newest, min(item.evaluated_s for item in told))


def _later(reading: Reading[float], by_s: float, stale_after_s: float) -> Reading[float]:
    if isinstance(reading, Missing):
        return reading
    age_s = reading.age_s + by_s
    return Fresh(reading.value, age_s) if age_s <= stale_after_s else Stale(reading.value, age_s)


def _series(item: Mapping[str, Any]) -> Series:
    labels = {str(name): str(value) for name, value in item["metric"].items() if name != "__name__"}
    is_time = labels.pop(_TOLD, "") == "time"
    evaluated_s, value = item["value"]
    if not isfinite(evaluated_s):
        raise TypeError("a time that is none")
    return Series(tuple(sorted(labels.items())), labels.get("pod", ""), is_time, float(value), float(evaluated_s))


def _text(told: object) -> str:
    """What can stand in a status: JSON may tell halves of characters."""
    return str(told).encode("utf-8", "replace").decode()


def _selector(ref: Ref) -> str:
    # By the worker's own label: a pattern of pod names would take the pods of `line-2` for those of `line`. A series without a
    # pod's name tells of nobody.
    return f'{LOAD_RATIO.name}{{namespace="{ref.namespace}",model="{ref.name}",pod!=""}}'
