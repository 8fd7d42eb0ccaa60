//! Prints the committed coverages of several backends side by side: `conformance_table mem=path zk=path …`.

use std::{env, fs, process::ExitCode};

use discovery::conformance::side_by_side;

fn main() -> ExitCode {
    match table(env::args().skip(1)) {
        Ok(table) => {
            println!("{table}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn table(args: impl Iterator<Item = String>) -> Result<String, String> {
    let mut backends = Vec::new();
    for arg in args {
        let (name, path) = arg.split_once('=').ok_or(format!("{arg}: write name=path"))?;
        let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        backends.push((name.to_owned(), text));
    }
    let backends: Vec<_> = backends.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    side_by_side(&backends).map_err(|error| error.to_string())
}
