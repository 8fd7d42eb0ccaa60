//! The tables behind the policies: shares, turns, keys, and changes that disturb nobody.

#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "test code: panics are wanted, counts small"
)]

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use discovery::{
    Instance, InstanceId,
    balance::{
        Candidate, ConsistentHash, Draw, LeastLoaded, Policy, PreferZone, Random, RoundRobin, Table, Weighted,
    },
};
use proptest::prelude::*;

fn candidate(id: u64, weight: u32) -> Arc<Candidate> {
    let zone = if id.is_multiple_of(3) { "near" } else { "far" };
    let instance = Instance::builder("cart".parse().unwrap()).id(InstanceId::from_bits(id)).weight(weight);
    Arc::new(Candidate::new(Arc::new(instance.zone(zone).build().unwrap())))
}

fn table(policy: &dyn Policy, candidates: &[Arc<Candidate>]) -> Box<dyn Table> {
    let mut table = policy.table();
    for one in candidates {
        table.change(None, Some(one));
    }
    table
}

fn candidates(n: u64) -> Vec<Arc<Candidate>> {
    (0..n).map(|id| candidate(id, 1)).collect()
}

fn id(candidate: &Candidate) -> u64 {
    u64::from_str_radix(candidate.instance().id().as_str(), 16).unwrap()
}

fn shares(table: &dyn Table, picks: usize, seed: u64) -> BTreeMap<u64, usize> {
    let mut draw = Draw::seeded(seed);
    let mut shares = BTreeMap::new();
    for _ in 0..picks {
        *shares.entry(id(table.pick(&mut draw).unwrap())).or_default() += 1;
    }
    shares
}

/// Who gets which key.
fn owners(table: &dyn Table, keys: u32) -> Vec<u64> {
    (0..keys).map(|key| id(table.pick(&mut Draw::seeded(0).for_key(key.to_le_bytes())).unwrap())).collect()
}

/// Pearson's statistic: about the number of classes if the shares are as expected, within a few of its roots.
fn chi_square(seen: &BTreeMap<u64, usize>, expected: impl Fn(u64) -> f64, classes: u64) -> f64 {
    let off = |id| (*seen.get(&id).unwrap_or(&0) as f64 - expected(id)).powi(2) / expected(id);
    (0..classes).map(off).sum()
}

fn all_policies() -> Vec<Box<dyn Policy>> {
    vec![
        Box::new(RoundRobin::new()),
        Box::new(Random::new()),
        Box::new(Weighted::new()),
        Box::new(LeastLoaded::new()),
        Box::new(ConsistentHash::new()),
        Box::new(PreferZone::new("near", Weighted::new()).at_least(30)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_table_picks_exactly_from_those_who_are_there(
        changes in prop::collection::vec((0..60_u64, prop::option::weighted(0.6, 1..2000_u32)), 1..200),
    ) {
        for policy in all_policies() {
            let mut table = policy.table();
            let mut there: HashMap<u64, Arc<Candidate>> = HashMap::new();
            let mut published = VecDeque::new();
            for (id, weight) in &changes {
                published.push_back((table.publish(), there.clone()));
                let old = there.remove(id);
                let new = weight.map(|weight| candidate(*id, weight));
                table.change(old.as_ref(), new.as_ref());
                there.extend(new.map(|new| (*id, new)));
                if published.len() > 8 {
                    published.pop_front();
                }
            }
            published.push_back((table, there));
            for (table, there) in published {
                prop_assert_eq!(table.size(), there.len(), "{:?}", policy);
                let mut draw = Draw::seeded(1);
                for _ in 0..50 {
                    match table.pick(&mut draw) {
                        None => prop_assert!(there.is_empty(), "{:?} picks nobody", policy),
                        Some(one) => {
                            prop_assert!(Arc::ptr_eq(one, &there[&id(one)]), "{:?} picks an old version", policy);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn consistent_hash_depends_on_who_is_there_and_not_on_how_they_came(
        detours in prop::collection::vec(0..300_u64, 0..150), n in 1..200_u64,
    ) {
        let straight = table(&ConsistentHash::new(), &candidates(n));
        let mut around = ConsistentHash::new().table();
        let passing: BTreeMap<_, _> = detours.into_iter().map(|id| (id, candidate(id, 1))).collect();
        for one in passing.values() {
            around.change(None, Some(one));
        }
        for one in candidates(n).iter().rev() {
            around.change(passing.get(&id(one)), Some(one));
        }
        for one in passing.values().filter(|one| id(one) >= n) {
            around.change(Some(one), None);
        }
        prop_assert_eq!(owners(&*around, 500), owners(&*straight, 500));
    }
}

#[test]
fn round_robin_gives_each_a_turn_a_round() {
    let table = table(&RoundRobin::new(), &candidates(7));
    assert_eq!(shares(&*table, 7 * 5, 0).into_values().collect::<Vec<_>>(), [5; 7]);
}

#[test]
fn round_robin_starves_nobody_while_others_come_and_go() {
    let mut random = fastrand::Rng::with_seed(3);
    let steady = candidates(10);
    let mut table = table(&RoundRobin::new(), &steady);
    let mut guests: Vec<Arc<Candidate>> = Vec::new();
    let mut waiting = [0; 10];
    for n in 0..20_000 {
        if random.bool() && guests.len() < 10 {
            guests.push(candidate(100 + n, 1));
            table.change(None, guests.last());
        } else if !guests.is_empty() {
            let gone = guests.swap_remove(random.usize(..guests.len()));
            table.change(Some(&gone), None);
        }
        for waits in &mut waiting {
            *waits += 1;
        }
        // Picks come from what was published, as in life.
        let picked = id(table.publish().pick(&mut Draw::seeded(0)).unwrap());
        if let Some(waits) = waiting.get_mut(usize::try_from(picked).unwrap()) {
            *waits = 0;
        }
        assert!(waiting.iter().all(|waits| *waits <= 60), "{waiting:?}: three rounds of at most 20");
    }
}

#[test]
fn random_is_even() {
    let seen = shares(&*table(&Random::new(), &candidates(100)), 100_000, 5);
    let off = chi_square(&seen, |_| 1000.0, 100);
    assert!((50.0..160.0).contains(&off), "{off}");
}

#[test]
fn weights_are_respected_whatever_their_spread() {
    let weights = [1, 1, 2, 3, 5, 7, 8, 9, 100, 127, 128, 1000];
    let all: Vec<_> = (0..).zip(weights).map(|(id, weight)| candidate(id, weight)).collect();
    let total = f64::from(weights.iter().sum::<u32>());
    let expected = |id| 3e5 * f64::from(weights[usize::try_from(id).unwrap()]) / total;
    for policy in [Box::new(Weighted::new()) as Box<dyn Policy>, Box::new(ConsistentHash::new())] {
        let seen = shares(&*table(&policy, &all), 300_000, 7);
        let off = chi_square(&seen, expected, 12);
        assert!(off < 40.0, "{policy:?}: {off}, {seen:?}");
    }
}

#[test]
fn a_changed_weight_counts_at_once() {
    let (light, heavy, other) = (candidate(0, 1), candidate(0, 9), candidate(1, 1));
    let mut table = table(&Weighted::new(), &[light.clone(), other]);
    table.change(Some(&light), Some(&heavy));
    let seen = shares(&*table, 10_000, 1);
    assert!((8_800..9_200).contains(&seen[&0]), "{seen:?}");
}

#[test]
fn the_less_loaded_of_two_keeps_loads_even_by_weight() {
    let all: Vec<_> = (0..100).map(|id| candidate(id, if id < 50 { 1 } else { 3 })).collect();
    // Loads come from picks, which only a balancer makes; here they are all zero, and weight decides.
    let seen = shares(&*table(&LeastLoaded::new(), &all), 100_000, 2);
    let heavy: usize = seen.range(50..).map(|(_, picks)| picks).sum();
    assert!((74_000..76_000).contains(&heavy), "at least one of two is heavy in 3 of 4 draws: {heavy}");
}

#[test]
fn consistent_hash_moves_only_the_keys_of_who_left_in_a_small_service() {
    for n in [2, 5, 32] {
        let all = candidates(n);
        let mut table = table(&ConsistentHash::new(), &all);
        let before = owners(&*table, 20_000);
        table.change(Some(&all[0]), None);
        let after = owners(&*table, 20_000);
        for (before, after) in before.iter().zip(&after) {
            assert!(*before == 0 || before == after, "{before} lost a key to {after}, and is still there");
        }
        table.change(None, Some(&all[0]));
        assert_eq!(owners(&*table, 20_000), before, "and they come back");
    }
}

#[test]
fn consistent_hash_moves_at_most_two_shares_in_a_large_service() {
    const KEYS: u32 = 50_000;
    for n in [33, 100, 500] {
        let all = candidates(n);
        let mut table = table(&ConsistentHash::new(), &all);
        let before = owners(&*table, KEYS);
        let mut moved = 0;
        let gone = all.iter().take(20);
        for one in gone.clone() {
            table.change(Some(one), None);
            moved +=
                before.iter().zip(owners(&*table, KEYS)).filter(|(before, after)| *before != after).count();
            table.change(None, Some(one));
        }
        let moved = moved as f64 / gone.len() as f64 / f64::from(KEYS) * n as f64;
        assert!((0.7..2.3).contains(&moved), "{moved} shares of {n} move");
    }
}

#[test]
fn consistent_hash_spreads_keys() {
    let n = 1000;
    let seen: BTreeMap<_, usize> = owners(&*table(&ConsistentHash::new(), &candidates(n)), 500_000)
        .into_iter()
        .fold(BTreeMap::new(), |mut all, id| {
            *all.entry(id).or_default() += 1;
            all
        });
    let mean = 500.0;
    let variance =
        (0..n).map(|id| (*seen.get(&id).unwrap_or(&0) as f64 - mean).powi(2)).sum::<f64>() / n as f64;
    let deviation = variance.sqrt() / mean;
    assert!(deviation < 0.22, "{deviation}");
    assert!(seen.values().all(|share| (150..1100).contains(share)), "{:?}", seen.values().max());
}

#[test]
fn a_zone_is_preferred_while_it_can_bear_it() {
    // 4 of 10 are near: 0, 3, 6 and 9.
    let all = candidates(10);
    let mut table = table(&PreferZone::new("near", Random::new()).at_least(30), &all);
    let near = |table: &dyn Table| shares(table, 1000, 1).into_keys().all(|id| id.is_multiple_of(3));
    assert!(near(&*table));
    table.change(Some(&all[9]), None);
    assert!(near(&*table), "3 of 9");
    table.change(Some(&all[6]), None);
    assert!(!near(&*table), "2 of 8 would be crushed");
    assert_eq!(shares(&*table, 1000, 1).len(), 8);
    table.change(None, Some(&all[6]));
    assert!(near(&*table));
}
