"""Who may have how much of a shared device: rules as tables, and what must hold for any claims."""

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolastic_contract.state import Fit
from yolastic_operator.policy.ledger import PATIENCE_S, Claim, Share, lent, orders, settled, share

SIZES = (1, 2, 4, 8, 16, 32)


def claim(name: str, **fields: Any) -> Claim:
    """A worker that takes 1,000 + 100 an image, serves, and holds its base of 8 as granted."""
    given_ = {
        "created_s": 0.0,
        "stage": "Serving",
        "fit": Fit(fixed=1000, per_image=100),
        "sizes": SIZES,
        "base": 8,
        "ceiling": 32,
    }
    made = Claim(name, **{**given_, **fields})
    if made.stage == "Serving" and "granted_base" not in fields:
        ceiling = fields.get("granted_ceiling", made.base)
        made = replace(made, granted_base=made.base, granted_ceiling=ceiling, holds_bytes=made.bytes(ceiling))
    return made


def sizes(claims: list[Claim], capacity: int) -> dict[str, tuple[int, int]]:
    return {name: (one.base, one.ceiling) for name, one in share(claims, capacity).shares.items()}


@pytest.mark.parametrize(
    ("capacity", "wishes", "expected"),
    [
        (3 * 1800, ("None", "None", "None"), [8, 8, 8]),
        (3 * 1800 + 2400, ("None", "None", "None"), [8, 8, 8]),  # nobody asks, nobody is lent anything
        (3 * 1800 + 2400, ("Pressing", "None", "None"), [32, 8, 8]),
        (3 * 1800 + 2399, ("Pressing", "None", "None"), [16, 8, 8]),  # one byte short of 32
        (3 * 1800 + 2400, ("Pressing", "Pressing", "Pressing"), [16, 16, 16]),  # in equal shares
        (3 * 1800 + 2400, ("Lingering", "None", "None"), [32, 8, 8]),
        (3 * 1800 + 2400, ("Lingering", "Pressing", "None"), [8, 32, 8]),  # who is calm gives way
        (3 * 1800 + 3200, ("Lingering", "Pressing", "None"), [16, 32, 8]),
        (3 * 1800 + 1600, ("Pressing", "Pressing", "Pressing"), [16, 16, 8]),  # the elder first where it does not come out even
    ],
)
def test_the_rest_is_lent_to_those_with_backlog(capacity: int, wishes: tuple[Any, ...], expected: list[int]) -> None:
    claims = [claim(f"w{index}", wish=wish, created_s=index) for index, wish in enumerate(wishes)]
    assert [ceiling for _, ceiling in sizes(claims, capacity).values()] == expected
    assert [base for base, _ in sizes(claims, capacity).values()] == [8, 8, 8]


def test_the_elder_has_its_base_first() -> None:
    claims = [claim("young", created_s=2, granted_base=1, granted_ceiling=1), claim("old", created_s=1)]
    assert sizes(claims, 1800 + 1400) == {"old": (8, 8), "young": (4, 4)}
    assert share(claims, 1800 + 1400).shares["young"].short
    assert not share(claims, 3600).shares["young"].short


def test_a_base_that_was_given_is_not_taken_for_a_larger_one_of_an_elder() -> None:
    old = claim("old", created_s=1, base=32, granted_base=8, granted_ceiling=8, holds_bytes=1800)
    assert sizes([old, claim("young", created_s=2)], 3600) == {"old": (8, 8), "young": (8, 8)}
    assert sizes([old, claim("young", created_s=2)], 4400) == {"old": (16, 16), "young": (8, 8)}


def test_bases_shrink_where_the_device_shrinks_but_never_below_one() -> None:
    claims = [claim("old", created_s=1), claim("young", created_s=2)]
    assert sizes(claims, 1800 + 1200) == {"old": (8, 8), "young": (2, 2)}
    assert sizes(claims, 10) == {"old": (1, 1), "young": (1, 1)}


def test_a_newcomer_without_room_for_one_image_is_refused_and_the_others_are_left_alone() -> None:
    new = claim("new", stage="Waiting", created_s=3)
    found = share([claim("old"), new], 1800 + 1099)
    assert found.refused == {"new"}
    assert set(found.shares) == {"old"}
    assert orders([claim("old"), new], 1800 + 1099) == {"old": Share(8, 8, 1800)}


def test_a_newcomer_may_warm_up_all_that_is_free_beside_the_bases() -> None:
    bursting = claim("old", granted_ceiling=32, wish="Pressing")
    new = claim("new", stage="Waiting", created_s=3)
    capacity = 1800 + 4200
    assert share([bursting, new], capacity).shares["new"] == Share(8, 32, 4200)
    told = orders([bursting, new], capacity)
    assert told == {"old": Share(8, 8, 1800)}, "first the burst must be given back"
    calm = replace(bursting, granted_ceiling=8, holds_bytes=1800)
    assert orders([calm, new], capacity)["new"] == Share(8, 32, 4200)


def test_one_warms_up_after_the_other() -> None:
    news = [claim(f"new{index}", stage="Waiting", created_s=index) for index in range(3)]
    assert set(orders(news, 100_000)) == {"new0"}
    warming = replace(news[0], stage="Warming", holds_bytes=4200)
    assert orders([warming, *news[1:]], 100_000) == {}
    assert set(orders([claim("new0", created_s=0), *news[1:]], 100_000)) == {"new0", "new1"}


def test_what_is_only_planned_may_take_all_there_is() -> None:
    new = claim("new", stage="Waiting", measured=False)
    assert orders([claim("old"), new], 10_000)["new"] == Share(8, 32, 8200)
    unknown = claim("new", stage="Waiting", measured=False, fit=None)
    assert orders([claim("old"), unknown], 10_000)["new"] == Share(8, 32, 8200)


def test_after_long_waiting_a_newcomer_starts_with_what_is_free() -> None:
    assert orders([claim("old"), claim("new", stage="Waiting")], 10_000)["new"] == Share(8, 32, 4410), "a little over is no harm"
    silent = claim("silent", stage="Fixed", holds_bytes=3000)
    stuck = claim("stuck", granted_ceiling=32)
    new = claim("new", stage="Waiting", created_s=1)
    capacity = 3000 + 4200 + 1900
    assert "new" not in orders([silent, stuck, new], capacity)
    late = replace(new, waited_s=PATIENCE_S)
    assert orders([silent, stuck, late], capacity)["new"] == Share(8, 8, 1890)
    assert "new" not in orders([silent, stuck, late], capacity - 101), "never less than its base"


def test_first_it_shrinks_then_the_other_grows() -> None:
    capacity = 1800 + 4200
    lender, asker = claim("a", granted_ceiling=32), claim("b", wish="Pressing", created_s=1)
    assert orders([lender, asker], capacity) == {"a": Share(8, 8, 1800)}
    # Told, and the worker shows it; but the memory is not given back yet.
    assert orders([replace(lender, granted_ceiling=8), asker], capacity)["a"] == Share(8, 8, 1800)
    assert "b" not in orders([replace(lender, granted_ceiling=8), asker], capacity)
    assert orders([claim("a"), asker], capacity)["b"] == Share(8, 32, 4200)


def test_what_is_free_is_given_once() -> None:
    lender = claim("a", granted_ceiling=32)
    linger, press = claim("b", wish="Lingering"), claim("c", wish="Pressing", created_s=1)
    assert orders([lender, linger, press], 3 * 1800 + 4800) == {"a": Share(8, 8, 1800), "c": Share(8, 32, 4200)}, "in need first"
    new = claim("new", stage="Waiting", created_s=2)
    told = orders([lender, press, new], 2 * 1800 + 2400 + 4410)
    assert told == {"a": Share(8, 8, 1800), "new": Share(8, 32, 4410)}, "and before them who does not serve at all"


def test_over_the_device_one_may_still_use_what_it_holds() -> None:
    small = claim("a", wish="Pressing", granted_base=4, granted_ceiling=4, holds_bytes=1800)
    told = orders([small, claim("b", granted_ceiling=32, created_s=1)], 1800 + 2600)
    assert told == {"a": Share(8, 8, 1800), "b": Share(8, 8, 1800)}


def test_what_a_fit_may_be_off_by_is_counted() -> None:
    scattered = Fit(fixed=1000, per_image=100, residual=50)
    assert claim("a", fit=scattered).bytes(8) == 1850
    assert sizes([claim("a", fit=scattered, wish="Pressing")], 4249) == {"a": (8, 16)}


def test_nobody_grows_while_holdings_are_unknown() -> None:
    asker = claim("b", wish="Pressing")
    assert orders([asker], 100_000, may_grow=False) == {}
    too_much = claim("a", granted_ceiling=32)
    assert orders([too_much, asker], 100_000, may_grow=False) == {"a": Share(8, 8, 1800)}


def test_what_could_be_lent_counts_those_who_are_about_to_start() -> None:
    capacity = 2 * 1800 + 2400
    claims = [claim("a"), claim("b", stage="Warming", holds_bytes=4200, created_s=1)]
    assert lent(claims, "a", capacity) == 8
    assert lent(settled(claims, capacity), "a", capacity) == 32
    asking = [replace(one, wish="Pressing") for one in (claim("a"), claim("b"))]
    assert lent(settled(asking, capacity), "a", capacity) == 32, "and the others as calm"
    full = [claim("a"), claim("b", created_s=1), claim("c", stage="Waiting", created_s=2)]
    assert lent(settled(full, capacity + 200), "a", capacity + 200) == 16, "the newcomer's base is reserved"


@st.composite
def some_claims(draw: st.DrawFn) -> tuple[list[Claim], int]:
    claims = []
    for index in range(draw(st.integers(1, 6))):
        fit = Fit(fixed=draw(st.integers(0, 3000)), per_image=draw(st.integers(0, 300)))
        stage = draw(st.sampled_from(["Waiting", "Warming", "Serving", "Serving", "Serving", "Fixed"]))
        most = draw(st.sampled_from(SIZES))
        ceiling = draw(st.integers(1, most))
        made = Claim(
            f"w{index}", draw(st.integers(0, 3)), stage, fit=fit, measured=draw(st.booleans()),
            sizes=tuple(size for size in SIZES if size <= most), base=draw(st.integers(1, ceiling)), ceiling=ceiling,
            wish=draw(st.sampled_from(["None", "Lingering", "Pressing"])), waited_s=draw(st.sampled_from([0.0, 100.0])),
        )  # fmt: skip
        if stage == "Serving":
            granted = draw(st.sampled_from(made.sizes))
            base = draw(st.sampled_from([size for size in made.sizes if size <= granted]))
            held = made.bytes(max(granted, draw(st.sampled_from(made.sizes))))
            made = replace(made, granted_base=base, granted_ceiling=granted, holds_bytes=held)
        elif stage != "Waiting":
            made = replace(made, holds_bytes=draw(st.integers(0, 5000)))
        claims.append(made)
    return claims, draw(st.integers(1, 30_000))


@given(some_claims(), st.booleans())
def test_orders_never_add_to_a_device_that_is_full(case: tuple[list[Claim], int], may_grow: bool) -> None:
    claims, capacity = case
    told = orders(claims, capacity, may_grow=may_grow)
    before = sum(one.holds_bytes for one in claims)
    # What was sent and what is held count both, until it is confirmed.
    after = sum(max(one.holds_bytes, told[one.name].budget_bytes if one.name in told else 0) for one in claims)
    assert after <= max(before, capacity)
    assert may_grow or after == before


@given(some_claims(), st.randoms())
def test_the_same_claims_give_the_same_orders_in_any_order(case: tuple[list[Claim], int], chance: random.Random) -> None:
    claims, capacity = case
    mixed = list(claims)
    chance.shuffle(mixed)
    assert orders(mixed, capacity) == orders(claims, capacity)
    assert share(mixed, capacity) == share(claims, capacity)


@given(some_claims())
def test_shares_keep_to_the_bounds_and_to_the_device(case: tuple[list[Claim], int]) -> None:
    claims, capacity = case
    found = share(claims, capacity)
    by_name = {one.name: one for one in claims}
    for name, got in found.shares.items():
        one = by_name[name]
        assert got.base <= got.ceiling
        assert got.ceiling <= max(one.ceiling, got.base)
        assert got.base <= max(one.base, one.sizes[0])
        assert {got.base, got.ceiling} <= set(one.sizes)
        assert one.wish != "None" or one.stage != "Serving" or got.ceiling == got.base, "lent to nobody who does not ask"
    fixed = sum(one.holds_bytes for one in claims if one.stage in {"Fixed", "Warming"})
    least = sum(one.bytes(one.sizes[0]) for one in claims if one.stage == "Serving")
    if fixed + least <= capacity:
        assert fixed + sum(got.budget_bytes for got in found.shares.values()) <= capacity


@given(some_claims())
def test_a_base_is_kept_while_the_device_has_room_for_all_of_them(case: tuple[list[Claim], int]) -> None:
    claims, capacity = case
    kept = {
        one.name: one.largest(min(one.base, one.granted_base), 10**9) or one.sizes[0] for one in claims if one.stage == "Serving"
    }
    needed = sum(one.bytes(kept[one.name]) for one in claims if one.name in kept)
    fixed = sum(one.holds_bytes for one in claims if one.stage in {"Fixed", "Warming"})
    if fixed + needed <= capacity:
        found = share(claims, capacity).shares
        assert all(found[name].base >= size for name, size in kept.items())


def test_nobody_is_sent_off_with_nothing() -> None:
    """Nothing is known of what it takes, it has waited for long, and what others hold is not known: it waits on."""
    newcomer = claim("new", stage="Waiting", fit=None, measured=False, waited_s=2 * PATIENCE_S)
    assert orders([newcomer], 3 * 1800, may_grow=False) == {}
    assert orders([newcomer], 3 * 1800)["new"].budget_bytes == 3 * 1800
    assert share([claim("old"), newcomer], 1800).refused == {"new"}
