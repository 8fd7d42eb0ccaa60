//! Programs of this workspace that need no file of the machine, for images that have none.

use std::{
    env, io,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use tokio::process::Command;

use crate::client;

/// The first time, everything that the program is made of is built once more.
const BUILT_WITHIN: Duration = Duration::from_secs(30 * 60);

/// A program that a package of this workspace has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program<'a> {
    /// One of its binaries.
    Bin(&'a str),
    /// One of its examples, which may use what its tests do.
    Example(&'a str),
}

/// Builds a program of a package of this workspace so that it is linked statically, the C library included, and
/// returns where it is. Calls cargo, which does nothing when nothing has changed.
///
/// What is built is in `static` in cargo's target directory, apart from everything else: with other flags cargo would
/// build all of that again. It is what a development build is, without debug information. Names must be resolved in the
/// program's own way; those of the C library depend on files of the machine.
///
/// # Errors
///
/// When cargo fails, with what it printed; as where there is no static C library (Debian: in libc6-dev).
///
/// # Cancel safety
///
/// Dropping the future kills cargo.
pub async fn static_binary(package: &str, program: Program<'_>, features: &[&str]) -> io::Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let target_dir = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let target_dir = workspace.join(target_dir).join("static");
    let platform = platform().await?;
    let (option, name, folder) = match program {
        Program::Bin(name) => ("--bin", name, ""),
        Program::Example(name) => ("--example", name, "examples"),
    };
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(workspace)
        .args(["build", "--quiet", "--locked", "--package", package, option, name])
        .args(["--features", &features.join(",")])
        // Named, or the flags would be for build scripts and macros too, which cannot be linked statically.
        .args(["--target", &platform, "--target-dir"])
        .arg(&target_dir)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("CARGO_PROFILE_DEV_DEBUG", "false");
    client::run_within(BUILT_WITHIN, &format!("building {name} of {package}"), cargo, printed).await?;
    Ok([&platform, "debug", folder, name].iter().fold(target_dir, |path, part| path.join(part)))
}

/// The platform that the compiler is for and on, e.g. `x86_64-unknown-linux-gnu`.
async fn platform() -> io::Result<String> {
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.arg("-vV");
    let version = client::run("rustc", rustc, printed).await?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| io::Error::other(format!("no host in: {version}")))
}

fn printed(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}
