//! The file in which the embedded store writes down all that it answers for, before it answers.
//!
//! One JSON text a line. A process that is killed loses nothing that it has answered, for the system has it by then; a
//! machine that loses its power may lose the last moments.

use std::{
    fs::File,
    io::{BufRead, BufReader, Seek, SeekFrom, Write},
    path::Path,
};

use anyhow::Context;
use rustix::fs::{FlockOperation, flock};

use super::ledger::{Entry, Ledger};

#[derive(Debug)]
pub(super) struct Journal {
    file: File,
}

impl Journal {
    /// Opens a journal, or begins one; returns the book as the journal has it.
    pub(super) fn open(path: &Path) -> anyhow::Result<(Self, Ledger)> {
        let name = path.display();
        let mut file = File::options()
            .create(true)
            .append(true)
            .read(true)
            .open(path)
            .with_context(|| format!("--journal: cannot open {name}"))?;
        // Ends with the process.
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .with_context(|| format!("--journal: another store has {name}"))?;
        let (ledger, good) = read(&file).with_context(|| format!("--journal: cannot read {name}"))?;
        if file.metadata()?.len() > good {
            tracing::warn!("{name} ends in half a line, which nobody was answered for; leaving it out");
            file.set_len(good)?;
        }
        file.seek(SeekFrom::End(0))?;
        Ok((Self { file }, ledger))
    }

    pub(super) fn write(&mut self, entry: &Entry) -> anyhow::Result<()> {
        let line = format!("{}\n", serde_json::to_string(entry)?);
        // In one go, so that only the last line can be half there.
        self.file.write_all(line.as_bytes()).context("cannot write the journal")
    }
}

/// The book, and how many bytes of the file are whole lines.
fn read(file: &File) -> anyhow::Result<(Ledger, u64)> {
    let mut ledger = Ledger::default();
    let mut reader = BufReader::new(file);
    let (mut good, mut line) = (0, String::new());
    for number in 1_u64.. {
        line.clear();
        let read = reader.read_line(&mut line)?;
        if read == 0 || !line.ends_with('\n') {
            break;
        }
        let entry = serde_json::from_str(&line).with_context(|| format!("line {number} makes no sense"))?;
        ledger.replay(entry);
        good += read as u64;
    }
    Ok((ledger, good))
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
            journal.write(&entry).unwrap();
        }
        let taken = Journal::open(&path).unwrap_err();
        assert!(format!("{taken:#}").contains("another store"), "{taken:#}");
        drop(journal);

        let whole = fs::read_to_string(&path).unwrap();
        assert_eq!(whole, "{\"issued\":1}\n{\"issued\":2}\n{\"counted\":[1,\"0a\"]}\n");
        fs::write(&path, format!("{whole}{{\"coun")).unwrap();
        let (mut journal, ledger) = Journal::open(&path).unwrap();
        let reading = ledger.read(0, 0);
        assert_eq!((reading.units, reading.open, reading.hashes, reading.coins), (2, 1, Some(1), 1));
        journal.write(&Entry::Counted(2, None)).unwrap();
        drop(journal);
        assert_eq!(Journal::open(&path).unwrap().1.read(0, 0).open, 0);

        fs::write(&path, "what\n").unwrap();
        let error = Journal::open(&path).unwrap_err();
        assert!(format!("{error:#}").contains("line 1"), "{error:#}");
    }
}
