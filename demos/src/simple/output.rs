//! What a process prints, passed on line by line with its name in front.
//!
//! It prints into a file that has no name, not into a pipe: when its supervisor dies, the process goes on, and the next
//! supervisor reads what it prints from then on.

use std::{fs::File, io, os::unix::fs::FileExt};

use crate::console::{FAINT, say};

/// How much is passed on at a time. Others want to get on as well.
const PART: u64 = 1 << 16;

/// Who is so far behind goes on near the end: nobody could read that much, and the disk is not for it.
const BEHIND: u64 = 1 << 20;

/// A line that is longer is broken.
const LINE: usize = 1 << 13;

#[derive(Debug)]
pub(super) struct Output {
    label: String,
    file: File,
    /// Up to where it has been read; the disk has no more than what comes behind it.
    at: u64,
    line: Vec<u8>,
}

impl Output {
    /// Together with what is to be printed into.
    pub(super) fn new(label: String) -> io::Result<(Self, File)> {
        // Whatever the process does, it writes at the end.
        let file = tempfile::Builder::new().prefix("simple-").append(true).tempfile()?;
        let output = Self::of(label, file.reopen()?, 0);
        Ok((output, file.into_file()))
    }

    /// Of a file that is printed into, from here on.
    pub(super) fn of(label: String, file: File, at: u64) -> Self {
        Self { label, file, at, line: Vec::new() }
    }

    /// Passes on what is new, but not too much at a time.
    pub(super) fn copy(&mut self) {
        let end = self.end();
        self.pass(end.min(self.at + PART));
    }

    /// Passes on what is left.
    pub(super) fn finish(&mut self) {
        let end = self.end();
        self.pass(end);
        if !self.line.is_empty() {
            self.flush();
        }
    }

    /// The present end, not too far away.
    fn end(&mut self) -> u64 {
        let end = self.file.metadata().map_or(self.at, |data| data.len());
        if end.saturating_sub(self.at) > BEHIND {
            let next = end - PART;
            if !self.line.is_empty() {
                self.flush();
            }
            self.line = format!("… {} bytes are left out: too much at once", next - self.at).into_bytes();
            self.flush();
            self.at = next;
        }
        end
    }

    fn pass(&mut self, end: u64) {
        let mut part = [0; 4096];
        let begin = self.at;
        while self.at < end {
            let Ok(read @ 1..) = self.file.read_at(&mut part, self.at) else { break };
            self.at += read as u64;
            for byte in &part[..read] {
                match byte {
                    b'\n' => self.flush(),
                    byte => self.line.push(*byte),
                }
                if self.line.len() >= LINE {
                    self.flush();
                }
            }
        }
        if self.at > begin {
            free(&self.file, self.at);
        }
    }

    fn flush(&mut self) {
        let label = &self.label;
        say(format_args!("{FAINT}{label:>5} |{FAINT:#} {}", String::from_utf8_lossy(&self.line)));
        self.line.clear();
    }
}

/// Frees the disk below what has been read; the file keeps its length, so nobody's place in it changes.
#[cfg(target_os = "linux")]
fn free(file: &File, until: u64) {
    use rustix::fs::{FallocateFlags, fallocate};
    // A file system that cannot do it keeps the file, as others would.
    let _ = fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, until);
}

#[cfg(not(target_os = "linux"))]
fn free(_: &File, _: u64) {}
