//! The file in which the embedded store writes down all that it answers for, before it answers.
//!
//! One JSON text a line. A process that is killed loses nothing that it has answered, for the system has it by then; a
//! machine that loses its power may lose the last moments.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Seek, SeekFrom, Write},
    path::Path,
};

use anyhow::Context;
use data_encoding::HEXLOWER;
use discovery::Owner;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::ledger::{Entry, Ledger};

#[derive(Debug)]
pub(super) struct Journal {
    /// Locked, for as long as it is open.
    file: File,
    /// Whoever has this journal, and never two at a time.
    owner: Owner,
}

/// A line of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    /// Which journal it is; chance has named it when it was begun.
    Name {
        journal: String,
    },
    Entry(Entry),
}

/// What there is in a file.
#[derive(Debug, Default)]
struct Content {
    ledger: Ledger,
    name: Option<String>,
    /// How many bytes are whole lines.
    good: u64,
}

impl Journal {
    /// Opens a journal, or begins one; returns the book as the journal has it.
    pub(super) fn open(path: &Path) -> anyhow::Result<(Self, Ledger)> {
        let shown = path.display();
        let mut file = lock(path)?;
        let Content { ledger, name, good } =
            read(&file).with_context(|| format!("--journal: cannot read {shown}"))?;
        if file.metadata()?.len() > good {
            tracing::warn!("{shown} ends in half a line, which nobody was answered for; leaving it out");
            file.set_len(good)?;
        }
        file.seek(SeekFrom::End(0))?;
        let name = match name {
            Some(name) => name,
            None => begin(&mut file).with_context(|| format!("--journal: cannot write {shown}"))?,
        };
        Ok((Self { file, owner: owner(&name, path)? }, ledger))
    }

    /// Who a store with this journal is in the registry. Whoever else was there under this name is dead.
    pub(super) fn owner(&self) -> Owner {
        self.owner.clone()
    }

    pub(super) fn write(&mut self, entry: Entry) -> anyhow::Result<()> {
        append(&mut self.file, &Line::Entry(entry)).context("cannot write the journal")
    }
}

/// Opens the file for one at a time.
fn lock(path: &Path) -> anyhow::Result<File> {
    let shown = path.display();
    let file = File::options()
        .create(true)
        .append(true)
        .read(true)
        .open(path)
        .with_context(|| format!("--journal: cannot open {shown}"))?;
    // Ends with the process.
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("--journal: another store has {shown}"))?;
    Ok(file)
}

/// Names a journal that has no name.
fn begin(file: &mut File) -> anyhow::Result<String> {
    let name = format!("{:016x}", fastrand::u64(..));
    append(file, &Line::Name { journal: name.clone() })?;
    Ok(name)
}

/// A copy is another one, for both can be open.
fn owner(name: &str, path: &Path) -> anyhow::Result<Owner> {
    let place = Sha256::digest(fs::canonicalize(path)?.as_os_str().as_encoded_bytes());
    Ok(Owner::named(format!("journal-{name}-{}", HEXLOWER.encode(&place[..4]))))
}

fn append(file: &mut File, line: &Line) -> anyhow::Result<()> {
    let line = format!("{}\n", serde_json::to_string(line)?);
    // In one go, so that only the last line can be half there.
    Ok(file.write_all(line.as_bytes())?)
}

fn read(file: &File) -> anyhow::Result<Content> {
    let mut content = Content::default();
    let (mut reader, mut line) = (BufReader::new(file), String::new());
    for number in 1_u64.. {
        line.clear();
        let read = reader.read_line(&mut line)?;
        if read == 0 || !line.ends_with('\n') {
            break;
        }
        match serde_json::from_str(&line).with_context(|| format!("line {number} makes no sense"))? {
            Line::Name { journal } => content.name = Some(journal),
            Line::Entry(entry) => content.ledger.replay(entry),
        }
        content.good += read as u64;
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_written_is_there_again_but_for_half_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut journal, ledger) = Journal::open(&path).unwrap();
        assert_eq!(ledger.read(0, 0), super::super::Reading::default());
        for entry in [Entry::Issued(1), Entry::Issued(2), Entry::Counted(1, Some("0a".into()))] {
            journal.write(entry).unwrap();
        }
        let taken = Journal::open(&path).unwrap_err();
        assert!(format!("{taken:#}").contains("another store"), "{taken:#}");
        drop(journal);

        let whole = fs::read_to_string(&path).unwrap();
        let (name, entries) = whole.split_once('\n').unwrap();
        assert!(name.starts_with("{\"journal\":\""), "{name}");
        assert_eq!(entries, "{\"issued\":1}\n{\"issued\":2}\n{\"counted\":[1,\"0a\"]}\n");
        fs::write(&path, format!("{whole}{{\"coun")).unwrap();
        let (mut journal, ledger) = Journal::open(&path).unwrap();
        let reading = ledger.read(0, 0);
        assert_eq!((reading.units, reading.open, reading.hashes, reading.coins), (2, 1, Some(1), 1));
        journal.write(Entry::Counted(2, None)).unwrap();
        drop(journal);
        assert_eq!(Journal::open(&path).unwrap().1.read(0, 0).open, 0);

        fs::write(&path, "what\n").unwrap();
        let error = Journal::open(&path).unwrap_err();
        assert!(format!("{error:#}").contains("line 1"), "{error:#}");
    }

    #[test]
    fn who_has_a_journal_is_who_had_it_and_a_copy_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let [path, copy, new] = ["journal", "copy", "new"].map(|name| dir.path().join(name));
        let owner = |path: &Path| Journal::open(path).unwrap().0.owner();
        // As an earlier version wrote it.
        fs::write(&path, "{\"issued\":1}\n").unwrap();
        let first = owner(&path);
        assert_eq!(owner(&path), first);
        fs::copy(&path, &copy).unwrap();
        assert_ne!(owner(&copy), first);
        assert_ne!(owner(&new), first);
        assert_eq!(Journal::open(&path).unwrap().1.read(0, 0).open, 1);
    }
}
