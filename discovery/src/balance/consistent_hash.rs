//! The same for the same key.

use std::sync::Arc;

use imbl::{OrdMap, Vector};

use super::{Candidate, Draw, Policy, Table, digest};
use crate::InstanceKey;

/// How many candidates compete for a key.
const WINDOW: usize = 32;

/// How many candidates a bin has on average: at most this, and at least an eighth of it.
const BIN: usize = 32;

/// The same instance for the same [key](super::Balancer::pick_for), and nearly all keys stay where they are when
/// instances come and go. Without a key, [`pick`](super::Balancer::pick) takes a random one.
///
/// Which instance a key gets follows from the key and the instances alone, so all clients agree, whatever each has
/// seen before.
///
/// Every instance has one point on a ring. The 32 instances behind a key's point compete for it by weighted rendezvous:
/// each draws an exponential from key and instance, divided by the weight, and the smallest wins. So
///
/// * up to 32 instances it is rendezvous hashing pure and simple: shares are exactly by weight, and of n instances
///   one that comes or leaves moves 1/n of the keys, its own;
/// * beyond, it moves at most 2/n of the keys on average: its own, and those of the instance at the end of each window
///   that it enters or leaves;
/// * shares differ by a relative standard deviation of about 1/√32, 18 %, which an ordinary ring needs 32 points an
///   instance for; and no share is larger than that of 32 average instances, whatever the weight.
///
/// A pick costs O(1), a change O(log n), memory is one point an instance. After D. G. Thaler and C. V. Ravishankar,
/// "Using name-based mappings to increase hit rates", IEEE/ACM Transactions on Networking
/// 6(1), 1998 (rendezvous), and D. Karger et al., "Consistent hashing and random trees", STOC 1997 (the ring).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsistentHash;

impl ConsistentHash {
    /// The same for the same key.
    pub fn new() -> Self {
        Self
    }
}

impl Policy for ConsistentHash {
    fn table(&self) -> Box<dyn Table> {
        Box::new(Ring::default())
    }
}

/// The ring, cut into bins of equal length, so that the way from a point to its bin is a shift.
///
/// The number of bins follows the number of points, and does not matter to who is picked.
#[derive(Clone)]
struct Ring {
    /// 2^order of them.
    bins: Vector<Arc<[Point]>>,
    order: u32,
    len: usize,
    /// How many points there are of each weight.
    weights: OrdMap<u32, usize>,
}

/// A candidate on the ring.
#[derive(Clone)]
struct Point {
    at: u64,
    /// One divided by the weight.
    stride: f64,
    candidate: Arc<Candidate>,
}

impl Default for Ring {
    fn default() -> Self {
        Self { bins: Vector::unit(Arc::default()), order: 0, len: 0, weights: OrdMap::new() }
    }
}

impl Table for Ring {
    fn change(&mut self, old: Option<&Arc<Candidate>>, new: Option<&Arc<Candidate>>) {
        if let Some(old) = old {
            self.remove(old);
        }
        if let Some(new) = new {
            self.insert(Point::new(new));
        }
        if self.len > BIN << self.order {
            self.divide(self.order + 1);
        } else if self.order > 0 && self.len < (BIN / 8) << self.order {
            self.divide(self.order - 1);
        }
    }

    fn size(&self) -> usize {
        self.len
    }

    fn pick(&self, draw: &mut Draw) -> Option<&Arc<Candidate>> {
        let key = draw.key();
        let winner = if self.weights.len() <= 1 { self.least(key) } else { self.least_exponential(key) };
        winner.map(|point| &point.candidate)
    }

    fn publish(&self) -> Box<dyn Table> {
        Box::new(self.clone())
    }
}

impl Ring {
    /// The runs of points that compete for `key`: those from its place on the ring on, once around at most.
    fn behind(&self, key: u64) -> impl Iterator<Item = &[Point]> {
        let first = self.bin(key);
        let mut skip = self.bins.get(first).map_or(0, |bin| bin.partition_point(|point| point.at < key));
        let mut left = WINDOW.min(self.len);
        (first..).map_while(move |number| {
            let bin = self.bins.get(number % self.bins.len()).filter(|_| left > 0)?;
            let run = &bin[std::mem::take(&mut skip)..];
            let run = &run[..run.len().min(left)];
            left -= run.len();
            Some(run)
        })
    }

    /// The number of the bin that `at` belongs to.
    fn bin(&self, at: u64) -> usize {
        // With order 0 everything is in the one bin there is, and a shift by 64 is none.
        at.checked_shr(u64::BITS - self.order).map_or(0, |bin| usize::try_from(bin).unwrap_or(0))
    }

    /// The point with the least digest for a key: where all weights are the same, the logarithm changes no order.
    fn least(&self, key: u64) -> Option<&Point> {
        let mut least = u64::MAX;
        let mut winner = None;
        for run in self.behind(key) {
            for point in run {
                let digest = digest::mix(key, point.at);
                if digest <= least {
                    (winner, least) = (Some(point), digest);
                }
            }
        }
        winner
    }

    /// The point that draws the smallest exponential for a key.
    fn least_exponential(&self, key: u64) -> Option<&Point> {
        let mut least = f64::INFINITY;
        let mut winner = None;
        for run in self.behind(key) {
            for point in run {
                #[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
                let uniform = (digest::mix(key, point.at) >> 11) as f64 / (1_u64 << 53) as f64;
                // -ln(1 - u) is at least u, which rules out most without a logarithm.
                if uniform * point.stride < least {
                    let exponential = -(1.0 - uniform).ln() * point.stride;
                    if exponential < least {
                        (winner, least) = (Some(point), exponential);
                    }
                }
            }
        }
        winner
    }

    fn insert(&mut self, point: Point) {
        let weight = point.candidate.weight();
        let number = self.bin(point.at);
        let bin = &self.bins[number];
        let (before, behind) = bin.split_at(bin.partition_point(|other| other.rank() < point.rank()));
        let bin = before.iter().cloned().chain([point]).chain(behind.iter().cloned()).collect();
        *self.weights.entry(weight).or_default() += 1;
        self.bins.set(number, bin);
        self.len += 1;
    }

    fn remove(&mut self, candidate: &Candidate) {
        let key = candidate.instance().key();
        let number = self.bin(place(key));
        let bin = &self.bins[number];
        let left: Arc<[Point]> =
            bin.iter().filter(|point| point.candidate.instance().key() != key).cloned().collect();
        if left.len() < bin.len() {
            self.len -= 1;
            let same = self.weights.get(&candidate.weight()).map_or(0, |count| count - 1);
            match same {
                0 => self.weights.remove(&candidate.weight()),
                _ => self.weights.insert(candidate.weight(), same),
            };
        }
        self.bins.set(number, left);
    }

    /// Makes 2^order bins. Takes a look at everything, but only after changes in proportion to that.
    fn divide(&mut self, order: u32) {
        let mut bins = vec![Vec::new(); 1 << order];
        let all: Vec<Point> = self.bins.iter().flat_map(|bin| bin.iter().cloned()).collect();
        self.order = order;
        for point in all {
            bins[self.bin(point.at)].push(point);
        }
        self.bins = bins.into_iter().map(Arc::from).collect();
    }
}

impl Point {
    fn new(candidate: &Arc<Candidate>) -> Self {
        Self {
            at: place(candidate.instance().key()),
            stride: 1.0 / f64::from(candidate.weight()),
            candidate: candidate.clone(),
        }
    }

    /// The order on the ring; the key decides between two in the same place.
    fn rank(&self) -> (u64, &InstanceKey) {
        (self.at, self.candidate.instance().key())
    }
}

/// Where on the ring an instance is.
fn place(key: &InstanceKey) -> u64 {
    digest::mix(digest::of(key.service().path().as_bytes()), digest::of(key.id().as_str().as_bytes()))
}
