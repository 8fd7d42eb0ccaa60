//! The file in which the embedded store writes down all that it answers for, before it answers.
//!
//! One JSON text a line. A process that is killed loses nothing that it has answered, for the system has it by then; a
//! machine that loses its power may lose the last moments. A long one is summed up when it is opened.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::Path,
};

use anyhow::Context;
use data_encoding::HEXLOWER;
use discovery::Owner;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::ledger::{Entry, Ledger};

/// Of more lines than this, one is made.
const LONG: u64 = 10_000;

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
    /// How many lines are whole, and of how many bytes they are.
    lines: u64,
    good: u64,
}

impl Journal {
    /// Opens a journal, or begins one; returns the book as the journal has it.
    pub(super) fn open(path: &Path) -> anyhow::Result<(Self, Ledger)> {
        let shown = path.display();
        let mut file = lock(path)?;
        let Content { ledger, name, lines, good } =
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
        if lines > LONG {
            match sum_up(&file, path, &name, &ledger) {
                Ok(short) => file = short,
                Err(error) => tracing::warn!("{shown} stays as long as it is: {error:#}"),
            }
        }
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
    loop {
        let file = lock_once(path)?;
        // Another may have put a short one in its place between our opening and our locking it.
        if is_at(&file, path).with_context(|| format!("--journal: cannot find {}", path.display()))? {
            return Ok(file);
        }
    }
}

/// Whether it is this file that whoever opens the path now gets.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let (file, named) = (file.metadata()?, fs::metadata(path)?);
    Ok((file.dev(), file.ino()) == (named.dev(), named.ino()))
}

fn lock_once(path: &Path) -> anyhow::Result<File> {
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

/// Puts a journal that says the same in two lines in the place of a long one, and returns it. The long one is locked, so
/// nobody else does; and the short one is locked before anybody can open it. At each moment one of them is there.
fn sum_up(long: &File, path: &Path, name: &str, ledger: &Ledger) -> anyhow::Result<File> {
    // Where the file is, not a link to it.
    let path = fs::canonicalize(path)?;
    let dir = path.parent().context("it is in no directory")?;
    // Gone again if anything fails.
    let mut short = tempfile::Builder::new().prefix(".journal-").append(true).tempfile_in(dir)?;
    let file = short.as_file_mut();
    file.set_permissions(long.metadata()?.permissions())?;
    flock(&*file, FlockOperation::NonBlockingLockExclusive)?;
    append(file, &Line::Name { journal: name.to_owned() })?;
    append(file, &Line::Entry(ledger.summary()))?;
    file.sync_all()?;
    let short = short.persist(&path)?;
    // From here on the short one is the journal, and nothing may fail: what is written to the long one, nobody finds.
    if let Err(error) = File::open(dir).and_then(|dir| dir.sync_all()) {
        tracing::warn!(%error, "a machine that loses its power now may have the long journal again");
    }
    Ok(short)
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
        content.lines += 1;
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

    #[test]
    fn a_long_one_is_summed_up_and_still_one_store_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let [path, link] = ["journal", "link"].map(|name| dir.path().join(name));
        let mut lines = vec!["{\"journal\":\"j\"}".to_owned()];
        for unit in 1..=LONG {
            lines.push(format!("{{\"issued\":{unit}}}"));
            if unit % 2 == 0 {
                let coin = if unit % 32 == 0 { format!("\"0{unit}\"") } else { "null".into() };
                lines.push(format!("{{\"counted\":[{unit},{coin}]}}"));
            }
        }
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();

        let before = File::open(&path).unwrap();
        let (mut journal, ledger) = Journal::open(&link).unwrap();
        let whole = ledger.read(0, 0);
        assert_eq!((whole.units, whole.open, whole.hashes, whole.coins), (10_000, 5_000, Some(5_000), 312));
        assert!(fs::metadata(&path).unwrap().len() < before.metadata().unwrap().len() / 5);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let taken = Journal::open(&path).unwrap_err();
        assert!(format!("{taken:#}").contains("another store"), "{taken:#}");

        journal.write(Entry::Counted(1, None)).unwrap();
        let owner = journal.owner();
        drop(journal);
        let (journal, ledger) = Journal::open(&path).unwrap();
        let reading = ledger.read(0, 0);
        assert_eq!((reading.units, reading.open, reading.hashes), (10_000, 4_999, Some(5_001)));
        assert_eq!((reading.coins, journal.owner()), (312, owner));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside it");
    }

    #[test]
    fn who_opened_a_long_one_and_comes_late_has_no_store_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let old = lock(&path).unwrap();
        let late = File::open(&path).unwrap();
        let short = sum_up(&old, &path, "j", &Ledger::default()).unwrap();
        drop(old);
        // The lock on what it opened is there for the taking, and worth nothing.
        flock(&late, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(!is_at(&late, &path).unwrap() && is_at(&short, &path).unwrap());
        let taken = lock(&path).unwrap_err();
        assert!(format!("{taken:#}").contains("another store"), "{taken:#}");
        drop(short);
        lock(&path).unwrap();
    }
}
