"""Batch plans and how a round is dealt: properties over any sizes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from learner_jax.data import plans
from learner_jax.data.sites import SiteData
from learner_jax.engines.world import Local, build_world, deal, fixed_draws, slot_count, train_capacity, train_draws
from tests.algorithms.studies import make_sites

SEEDS = st.integers(0, 2**63)


@given(st.integers(0, 90), st.integers(1, 33), st.integers(1, 3), st.integers(0, 2**32 - 1), SEEDS)
def test_each_row_once_an_epoch_and_no_batch_of_padding_alone(rows, batch_size, epochs, site, seed):
    places = np.arange(1000, 1000 + rows, dtype=np.int32)
    plan = plans.train_plan(places, batch_size, epochs, None, plans.generator(seed, site, 3, 1))
    assert plan.shape == (plans.steps_of(rows, batch_size, epochs, None), batch_size)
    for epoch in np.split(plan, epochs):
        assert sorted(epoch[epoch >= 0]) == places.tolist()
    filled = plan >= 0
    assert filled.any(1).all()
    assert (np.diff(filled.astype(int), axis=1) <= 0).all()  # padding comes only at the end of a batch


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 50))
def test_so_many_steps_take_as_many_epochs_as_they_need(rows, batch_size, steps):
    plan = plans.train_plan(np.arange(rows, dtype=np.int32), batch_size, 1, steps, plans.generator(0, 1, 1, 1))
    assert len(plan) == steps
    seen = np.bincount(plan[plan >= 0], minlength=rows)
    assert seen.max() - seen.min() <= 1
    assert (plan >= 0).any(1).all()


def test_a_generator_is_its_seed_site_round_and_pass():
    def draw(*key):
        return plans.generator(*key).permutation(50).tolist()

    assert draw(1, 2, 3, 4) == draw(1, 2, 3, 4)
    others = [draw(0, 2, 3, 4), draw(1, 0, 3, 4), draw(1, 2, 0, 4), draw(1, 2, 3, 0)]
    assert all(other != draw(1, 2, 3, 4) for other in others)


def test_a_worker_and_a_simulator_draw_the_same_batches():
    sites, local = make_sites(), Local(8, 2, None, 7)
    world = build_world(sites)
    cohort = np.array([1, 2, 4, 6], np.int32)
    for streams, lanes in ((1, 1), (2, 2)):
        steps = np.array([plans.steps_of(len(world.train[p]), 8, 2, None) for p in cohort], np.int32)
        dealt = deal(cohort, steps, streams, lanes, len(cohort), len(world.names))
        index, first, counts = train_draws(world, local, dealt, 5, 1, train_capacity(world, local, len(cohort)))
        for k, place in enumerate(cohort):
            alone = build_world({world.names[place]: sites[world.names[place]]})
            mine = deal(np.zeros(1, np.int32), steps[k : k + 1], 1, 1, 1, 1)
            theirs, _, count = train_draws(alone, local, mine, 5, 1, train_capacity(alone, local, 1))
            d, s = divmod(int(dealt.position[k]), dealt.slots.shape[1])
            assert counts[d, s] == count[0, 0] == steps[k]
            here = index[d, first[d, s] : first[d, s] + counts[d, s]]
            for column in ("x", "y"):  # places differ, rows do not
                ours, rows = (np.asarray(w.rows[column])[i] for w, i in ((world, here), (alone, theirs[0, : steps[k]])))
                mask = here >= 0
                assert (mask == (theirs[0, : steps[k]] >= 0)).all()
                np.testing.assert_array_equal(ours[mask], rows[mask])


def test_a_world_does_not_depend_on_the_order_in_which_sites_are_named():
    sites = make_sites()
    one, other = build_world(sites), build_world(dict(reversed(sites.items())))
    assert one.names == other.names
    assert (np.diff(one.ids.astype(np.int64)) > 0).all()
    np.testing.assert_array_equal(one.rows["x"], other.rows["x"])
    assert all((a == b).all() for a, b in zip(one.train, other.train, strict=True))


@settings(max_examples=60)
@given(st.lists(st.integers(0, 500), min_size=1, max_size=60), st.integers(1, 4), st.integers(1, 6), st.integers(0, 9))
def test_a_deal_places_every_site_once_and_wastes_little(steps, streams, lanes, more):
    count = len(steps)
    enrolled, size = count + more, count + more // 2
    cohort = np.sort(np.random.default_rng(sum(steps)).choice(enrolled, count, replace=False)).astype(np.int32)
    dealt = deal(cohort, np.array(steps, np.int32), streams, lanes, size, enrolled)
    assert dealt.slots.shape == (streams, slot_count(size, streams, lanes))
    placed = dealt.slots[dealt.slots < enrolled]
    assert sorted(placed) == cohort.tolist()
    assert (dealt.slots.reshape(-1)[dealt.position] == cohort).all()
    of, wasted = dict(zip(cohort.tolist(), steps, strict=True)), 0
    for stream, used in zip(dealt.slots, dealt.used, strict=True):
        rows = stream.reshape(-1, lanes)
        assert (rows[used:] == enrolled).all()  # nobody beyond the rows that are run
        for row in rows[:used]:
            lengths = [of.get(int(place), 0) for place in row]
            wasted += max(lengths) * lanes - sum(lengths)
    assert wasted <= streams * lanes * max(steps)
    if (streams, lanes) == (1, 1):
        assert placed.tolist() == cohort.tolist()  # the reference goes in the order of the ids


def test_no_plan_has_to_grow():
    """The busiest cohort of the largest size fits the capacity."""
    world, local = build_world(make_sites()), Local(8, 2, None, 7)
    busiest = np.sort(np.argsort([-len(rows) for rows in world.train])[:3]).astype(np.int32)
    steps = sum(plans.steps_of(len(world.train[p]), 8, 2, None) for p in busiest)
    assert train_capacity(world, local, 3) == steps


def test_every_validation_row_is_looked_at_once():
    world = build_world(make_sites(valid=(0, 1, 5, 0, 9, 2, 4)))
    draw = fixed_draws(world, "valid", 4)
    for place, rows in enumerate(world.valid):
        mine = draw.index[draw.first[place] : draw.first[place] + draw.steps[place]]
        assert mine[mine >= 0].tolist() == rows.tolist()


@given(st.integers(1, 300), st.integers(1, 320), SEEDS)
def test_a_cohort_is_drawn_without_replacement_by_the_seed(sites, size, seed):
    ids = np.sort(np.random.default_rng(sites).choice(2**32, sites, replace=False)).astype(np.uint32)
    drawn = plans.cohort(seed, 4, ids, size)
    assert len(drawn) == min(size, sites) == len(set(drawn.tolist()))
    assert np.isin(drawn, ids).all()
    assert (np.diff(drawn.astype(np.int64)) > 0).all()
    assert (plans.cohort(seed, 4, ids, size) == drawn).all()


def test_all_sites_are_asked_alike():
    ids = np.arange(40, dtype=np.uint32)
    asked = np.concatenate([plans.cohort(3, number, ids, 10) for number in range(1, 401)])
    counts = np.bincount(asked, minlength=40)
    assert 60 < counts.min() <= counts.max() < 145  # 100 +- 5 standard deviations


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 30), st.integers(1, 6))
def test_a_lasting_loader_is_one_row_of_epochs_whatever_the_rounds(rows, batch_size, steps, rounds):
    places = np.arange(100, 100 + rows, dtype=np.int32)
    whole = plans.lasting_plan(places, batch_size, steps * rounds, 3, 7, 0)
    parts = [plans.lasting_plan(places, batch_size, steps, 3, 7, steps * k) for k in range(rounds)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    per_epoch = -(-rows // batch_size)
    for start in range(0, len(whole) - per_epoch + 1, per_epoch):
        epoch = whole[start : start + per_epoch]
        assert sorted(epoch[epoch >= 0]) == places.tolist()
    if len(whole) >= 2 * per_epoch and rows > 8:
        assert (whole[:per_epoch] != whole[per_epoch : 2 * per_epoch]).any()


def test_a_study_with_a_lasting_loader_draws_it_and_without_rows_nothing():
    world, local = build_world(make_sites()), Local(8, 1, 5, 7, lasting=True)
    dealt = deal(np.arange(len(world.names), dtype=np.int32), np.full(len(world.names), 5, np.int32), 1, 1,
                 len(world.names), len(world.names))  # fmt: skip
    index, first, steps = train_draws(world, local, dealt, 3, 0, train_capacity(world, local, len(world.names)))
    for s, place in enumerate(dealt.slots[0]):
        wanted = plans.lasting_plan(world.train[place], 8, 5, 7, int(world.ids[place]), 10)
        np.testing.assert_array_equal(index[0, first[0, s] : first[0, s] + steps[0, s]], wanted)
        assert len(wanted) == (5 if len(world.train[place]) else 0)


@given(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 900), st.integers(0, 3)), min_size=1, max_size=6),
    st.integers(0, 2**63),
)
def test_a_generator_that_is_set_anew_is_a_fresh_one(keys, seed):
    """Whatever was drawn from it before, half of a word included."""
    shared = plans.Generators(seed)
    for site, number, pass_number in keys:
        anew, fresh = shared.at(site, number, pass_number), plans.generator(seed, site, number, pass_number)
        for draw in (anew, fresh):
            draw.integers(0, 9, dtype=np.int32)
        assert anew.permutation(23).tolist() == fresh.permutation(23).tolist()
        assert anew.integers(0, 2**60) == fresh.integers(0, 2**60)


@given(st.integers(0, 30), st.integers(1, 7), st.integers(1, 3), st.integers(1, 3))
def test_a_rounds_batches_are_those_of_each_sites_plan(rows, batch_size, epochs, sites):
    data = {
        f"s{k}": SiteData(
            {"x": np.zeros((rows + k, 1), np.float32)}, np.zeros(rows + k, np.int8), np.arange(rows + k), {}
        )
        for k in range(sites)
    }
    world, local = build_world(data), Local(batch_size, epochs, None, 3)
    steps = np.array([plans.steps_of(len(part), batch_size, epochs, None) for part in world.train], np.int32)
    dealt = deal(np.arange(sites, dtype=np.int32), steps, 1, 1, sites, sites)
    index, first, counts = train_draws(world, local, dealt, 4, 2, train_capacity(world, local, sites))
    for place, part in enumerate(world.train):
        draw = plans.generator(3, int(world.ids[place]), 4, 2)
        plan = plans.train_plan(part, batch_size, epochs, None, draw)
        at, many = first[0, place], counts[0, place]
        assert many == len(plan)
        np.testing.assert_array_equal(index[0, at : at + many], plan)
    assert (index[0, counts.sum() :] == -1).all()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(2, 4), st.integers(1, 3))
def test_a_deal_is_grahams(steps, streams, lanes):
    """The longest first, each to the stream with the least to do that has room; of equals the first."""
    count = len(steps)
    dealt = deal(np.arange(count, dtype=np.int32), np.array(steps, np.int32), streams, lanes, count, count)
    room, piles, loads = slot_count(count, streams, lanes), [[] for _ in range(streams)], [0] * streams
    for k in sorted(range(count), key=lambda k: (-steps[k], k)):
        d = min((d for d in range(streams) if len(piles[d]) < room), key=lambda d: (loads[d], d))
        piles[d].append(k)
        loads[d] += steps[k] + 1
    for d, pile in enumerate(piles):
        placed = [int(place) for place in dealt.slots[d] if place < count]
        assert placed == (sorted(pile) if lanes == 1 else pile)
