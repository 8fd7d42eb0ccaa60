//! Going to and fro.

use super::Label;

/// A limit of how often an instance may go from one of two states to the other and straight back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flap<S, G> {
    pub(super) pair: (S, S),
    pub(super) limit: u32,
    pub(super) raises: Option<G>,
}

impl<S: Label, G: Label> Flap<S, G> {
    /// `limit` round trips between two states, whichever comes first. Without a signal to raise they are only counted.
    pub(crate) fn new(a: S, b: S, limit: u32) -> Self {
        Self { pair: (a, b), limit, raises: None }
    }

    /// The signal that takes the place of the step that reaches the limit. Where the present state does not take it, the
    /// step is taken, and the next one is looked at.
    #[must_use]
    pub(crate) fn raise(self, signal: G) -> Self {
        Self { raises: Some(signal), ..self }
    }

    /// Whether a step is one between the two.
    pub(super) fn is_of(&self, from: S, to: S) -> bool {
        self.pair == (from, to) || self.pair == (to, from)
    }
}

/// How an instance went to and fro lately: the last step between states that are limited, and how many in a row led straight
/// back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trips<S> {
    last: Option<(S, S)>,
    steps: u32,
}

impl<S: Label> Trips<S> {
    pub(super) fn none() -> Self {
        Self { last: None, steps: 0 }
    }

    /// With one more step.
    #[must_use]
    pub(super) fn and(self, from: S, to: S) -> Self {
        let steps = if self.last == Some((to, from)) { self.steps.saturating_add(1) } else { 1 };
        Self { last: Some((from, to)), steps }
    }

    /// How many round trips between two states there were in a row.
    pub(super) fn between(self, a: S, b: S) -> u32 {
        if self.last == Some((a, b)) || self.last == Some((b, a)) { self.steps / 2 } else { 0 }
    }
}
