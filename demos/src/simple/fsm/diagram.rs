//! A machine as a picture, for tools that draw.

use std::fmt::Write as _;

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
    /// The picture of a machine whose instances begin in this state.
    pub(crate) fn diagram(&self, initial: S, format: Format) -> String {
        let initial = self.state_name(initial);
        let (mut lines, end) = match format {
            Format::Mermaid => (format!("stateDiagram-v2\n    [*] --> {initial}\n"), ""),
            Format::Dot => {
                let head = "digraph machine {\n    node [shape=box, style=rounded, fontname=sans]\n    \
                            edge [fontname=sans, fontsize=10]\n    start [shape=point]\n";
                (format!("{head}    start -> {initial:?}\n"), "}\n")
            }
        };
        for Edge { from, to, label, is_error } in self.edges() {
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

    fn edges(&self) -> Vec<Edge> {
        let mut edges = Vec::new();
        for state in self.states.values() {
            let from = self.state_name(state.id);
            for (signal, to) in &state.transitions {
                let mut label = self.signal_name(*signal);
                if let Some((span, _)) = state.ttl.as_ref().filter(|(_, by)| by == signal) {
                    let _ = write!(label, " after {}", ticks(span(1), span(u32::MAX)));
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

fn ticks(first: u64, last: u64) -> String {
    match (first, last) {
        (1, 1) => "1 tick".into(),
        (first, last) if first == last => format!("{first} ticks"),
        (first, last) => format!("{first} to {last} ticks"),
    }
}

struct Edge {
    from: String,
    to: String,
    label: String,
    is_error: bool,
}
