//! What a process prints, passed on line by line with its name in front.
//!
//! It prints into a file that has no name, not into a pipe: when its supervisor dies, the process goes on, and the next
//! supervisor goes on reading.

use std::{fs::File, io, os::unix::fs::FileExt};

use crate::console::{FAINT, say};

/// Behind so much, what has been read is given back to the disk.
const KEEP: u64 = 1 << 20;

/// A line that is longer is broken.
const LINE: usize = 1 << 13;

#[derive(Debug)]
pub(super) struct Output {
    label: String,
    file: File,
    /// Up to where it has been read.
    at: u64,
    /// Up to where it has been given back.
    freed: u64,
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
        Self { label, file, at, freed: at, line: Vec::new() }
    }

    /// Passes on what is new.
    pub(super) fn copy(&mut self) {
        let mut part = [0; 4096];
        while let Ok(read @ 1..) = self.file.read_at(&mut part, self.at) {
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
        if self.at - self.freed >= KEEP {
            free(&self.file, self.at);
            self.freed = self.at;
        }
    }

    /// Passes on what is left.
    pub(super) fn finish(&mut self) {
        self.copy();
        if !self.line.is_empty() {
            self.flush();
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
