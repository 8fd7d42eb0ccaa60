//! What a server says of itself: its health, and its metrics in the text format of Prometheus.

use std::{io, net::SocketAddr};

use crate::client;

/// Fails unless the server serves: it knows a leader and a majority answers.
pub(super) async fn health(server: SocketAddr) -> io::Result<()> {
    let answer = get(server, "/health").await?;
    if answer.contains(r#""health":"true""#) {
        Ok(())
    } else {
        Err(io::Error::other(format!("etcd with metrics at {server} does not serve: {}", answer.trim())))
    }
}

/// The sum of all samples of the metric `name` whose labels contain `label`.
pub(super) async fn sum(server: SocketAddr, name: &str, label: &str) -> io::Result<f64> {
    let text = get(server, "/metrics").await?;
    let mut samples = samples(&text, name).peekable();
    if samples.peek().is_none() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("etcd shows no metric {name} now")));
    }
    // Starting from here, as the sum of no floats is -0.0.
    Ok(samples.filter(|(labels, _)| labels.contains(label)).fold(0.0, |sum, (_, value)| sum + value))
}

/// The labels and the values of the samples of one metric.
fn samples<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
    text.lines().filter_map(move |line| {
        let sample = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
        // Labels may hold anything, also braces; what follows them is numbers.
        let (labels, value) = sample.split_at(sample.rfind('}').map_or(0, |end| end + 1));
        Some((labels, value.split_whitespace().next()?.parse().ok()?))
    })
}

/// The body of the answer to a GET.
async fn get(server: SocketAddr, path: &str) -> io::Result<String> {
    // Of version 1.0, so that the end of the connection is the end of the answer.
    let answer = client::ask(server, &format!("GET {path} HTTP/1.0\r\n\r\n"), |_| false).await?;
    match answer.split_once("\r\n\r\n") {
        Some((_, body)) => Ok(body.to_owned()),
        None => Err(io::Error::other(format!("{server} did not answer in HTTP: {answer}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP requests_total How many.
# TYPE requests_total counter
requests_total{method=\"Range\",of=\"{a b}\"} 3
requests_total{method=\"Put\",of=\"\"} 1.5e+01 1395066363000
requests_total_ever 7
leader 1
";

    #[test]
    fn the_samples_of_a_metric_are_found_by_its_whole_name() {
        let found = |name| samples(TEXT, name).collect::<Vec<_>>();
        assert_eq!(
            found("requests_total"),
            [(r#"{method="Range",of="{a b}"}"#, 3.0), (r#"{method="Put",of=""}"#, 15.0)]
        );
        assert_eq!(found("requests_total_ever"), [("", 7.0)]);
        assert_eq!(found("leader"), [("", 1.0)]);
        assert_eq!(found("requests"), []);
    }
}
