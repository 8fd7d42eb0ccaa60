//! A machine as a picture, for tools that draw.

use std::{fmt::Write as _, time::Duration};

use super::{Data, Label, Machine};

/// Which tool draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Mermaid, which Markdown pages show
    Mermaid,
    /// Graphviz, for `dot -Tsvg`
    Dot,
}

impl<S: Label, G: Label, D: Data> Machine<S, G, D> {
    /// The picture of a machine whose instances begin in this state, where a tick takes so long.
    pub(crate) fn diagram(&self, initial: S, tick: Duration, format: Format) -> String {
        let initial = self.state_name(initial);
        let (mut lines, end) = match format {
            Format::Mermaid => (format!("stateDiagram-v2\n    [*] --> {initial}\n"), ""),
            Format::Dot => {
                let head = "digraph machine {\n    node [shape=box, style=rounded, fontname=sans]\n    \
                            edge [fontname=sans, fontsize=10]\n    start [shape=point]\n";
                (format!("{head}    start -> {initial:?}\n"), "}\n")
            }
        };
        for Edge { from, to, label, is_error } in self.edges(tick) {
            // Writing to a string never fails.
            let _ = match format {
                Format::Mermaid => writeln!(lines, "    {from} --> {to}: {label}"),
                Format::Dot => {
                    let style = if is_error { ", style=dashed" } else { "" };
                    writeln!(lines, "    {from:?} -> {to:?} [label={label:?}{style}]")
                }
            };
        }
        lines + end
    }

    fn edges(&self, tick: Duration) -> Vec<Edge> {
        let mut edges = Vec::new();
        for state in self.states.values() {
            let from = self.state_name(state.id);
            for (signal, to) in &state.transitions {
                let mut label = self.signal_name(*signal);
                if let Some((span, _)) = state.ttl.as_ref().filter(|(_, by)| by == signal) {
                    let _ = write!(label, " after {}", times(tick, span(1), span(u32::MAX)));
                }
                if let Some((limit, _)) = state.visits.filter(|(_, by)| by == signal) {
                    let _ = write!(label, " on visit {limit}");
                }
                for flap in self.flaps.iter().filter(|flap| flap.raises == Some(*signal)) {
                    if let (a, b) = flap.pair
                        && [a, b].contains(&state.id)
                    {
                        let other = self.state_name(if a == state.id { b } else { a });
                        let _ = write!(label, " on trip {} with {other}", flap.limit);
                    }
                }
                if let Some((action, _)) = state.actions.get(signal) {
                    let _ = write!(label, " / {action}");
                    if let Some(to) = state.errors.get(signal) {
                        edges.push(Edge {
                            from: from.clone(),
                            to: self.state_name(*to),
                            label: format!("{action} fails"),
                            is_error: true,
                        });
                    }
                }
                edges.push(Edge { from: from.clone(), to: self.state_name(*to), label, is_error: false });
            }
        }
        edges
    }
}

fn times(tick: Duration, first: u64, last: u64) -> String {
    let time = |ticks| {
        let time = tick.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX));
        humantime::format_duration(time).to_string()
    };
    if first == last { time(first) } else { format!("{} to {}", time(first), time(last)) }
}

struct Edge {
    from: String,
    to: String,
    label: String,
    is_error: bool,
}
