//! DNS servers from Debian's packages, and their clients.

mod bind;
mod builder;
mod dig;
mod dnsmasq;
mod key;
mod knot;
mod nsupdate;
mod zone;

use std::{fs, io, net::SocketAddr, path::Path, process::Output, sync::Arc, time::Duration};

pub use self::{
    builder::NameServerBuilder,
    dig::{Answer, Dig},
    dnsmasq::{Dnsmasq, DnsmasqBuilder},
    nsupdate::NsUpdate,
};
use self::{builder::Software, key::Key, zone::Zone};
use crate::{
    ports::Port,
    process::{Deadline, Process},
    quorum::{self, Serve},
    require,
};

const STOP_WITHIN: Duration = Duration::from_secs(20);
const LOADED_WITHIN: Duration = Duration::from_secs(60);

/// The zone as text; the servers write changes into it now and then.
const ZONE_FILE: &str = "zone";

/// What the servers say of a zone file that they cannot read or do not like.
const REJECTIONS: [&str; 2] = ["not loaded due to errors", "zone event 'load' failed"];

/// What is missing to run a server made of `programs` here, if anything.
pub(crate) fn missing(programs: &[&str], package: &str) -> Option<String> {
    let package = format!("{package} bind9-dnsutils");
    let mut programs = programs.iter().chain(&["dig", "nsupdate"]);
    programs.find_map(|program| require::missing(program, &[], &package))
}

/// A running DNS server, BIND or Knot, that is authoritative for one zone. Dropping it kills the server and removes its
/// data.
///
/// It takes changes (RFC 2136) and gives transfers to whoever signs with its key (TSIG, hmac-sha256), and answers
/// queries on UDP and TCP to anybody. It keeps all changes, so that transfers can be incremental, and is not recursive.
#[derive(Debug)]
pub struct NameServer {
    process: Process,
    port: Arc<Port>,
    /// Where BIND takes commands.
    _control: Option<Port>,
    key: Key,
    options: NameServerBuilder,
}

impl NameServer {
    /// BIND (`named`).
    pub fn bind() -> NameServerBuilder {
        NameServerBuilder::new(Software::Bind)
    }

    /// Knot DNS (`knotd`).
    pub fn knot() -> NameServerBuilder {
        NameServerBuilder::new(Software::Knot)
    }

    /// Where clients send to and connect, with UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The zone's name, without the last dot.
    pub fn zone(&self) -> &str {
        &self.options.zone.name
    }

    /// The name of the key for changes and transfers.
    pub fn key_name(&self) -> &str {
        &self.key.name
    }

    /// The secret of the key (hmac-sha256), in base64.
    pub fn key_secret(&self) -> &str {
        &self.key.secret
    }

    /// The serial of the zone as it is served.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn serial(&self) -> io::Result<u32> {
        let [_, serial] = self.soa(&self.dig()).await?;
        serial.parse().map_err(io::Error::other)
    }

    /// A client that asks this server, with its key.
    pub fn dig(&self) -> Dig {
        Dig::signed(self.address(), &self.key)
    }

    /// A client that changes this server's zone, with its key.
    pub fn nsupdate(&self) -> NsUpdate {
        NsUpdate::signed(self.address(), self.zone(), &self.key)
    }

    /// Replaces all that the zone holds by `records`, as [`NameServerBuilder::records`], under any `serial`, also one that
    /// is lower than before. The server goes on to serve meanwhile, and does not know what changed: transfers since an
    /// older serial are of the whole zone. Returns when it serves the new content. One that it does not like leaves the
    /// old one in place; BIND then refuses changes until it is given another.
    ///
    /// # Errors
    ///
    /// When the server is a secondary, is not running, or does not like the content; the error shows the end of its log.
    pub async fn reload_zone(&self, records: &str, serial: u32) -> io::Result<()> {
        if self.options.primary.is_some() {
            return Err(io::Error::other("a secondary holds what its primary does: reload the zone there"));
        }
        let mark = format!("load-{:016x}", fastrand::u64(..));
        let zone = Zone { name: self.zone().to_owned(), records: records.to_owned(), serial };
        let (content, log_before) = (zone.file(&mark), self.log().len());
        match self.options.software {
            Software::Bind => bind::load(self, &content).await?,
            Software::Knot => knot::load(self, &content).await?,
        }
        let marked = format!("{mark}.{}.", zone.name);
        let deadline = Deadline::after(LOADED_WITHIN);
        while self.soa(&self.dig()).await?[0] != marked {
            self.process.check()?;
            if self.log().get(log_before..).is_some_and(rejects) || !deadline.wait().await {
                return Err(self.process.failure("did not load the zone"));
            }
        }
        Ok(())
    }

    /// Ends the server as a crash would (SIGKILL); its data stay for [`restart`](Self::restart).
    ///
    /// # Errors
    ///
    /// When the signal cannot be sent.
    pub fn kill(&self) -> io::Result<()> {
        self.process.kill()
    }

    /// Ends the server in order (SIGTERM) and waits for it; its data stay for [`restart`](Self::restart).
    ///
    /// # Errors
    ///
    /// When the server does not end.
    pub async fn stop(&self) -> io::Result<()> {
        self.process.stop(STOP_WITHIN).await
    }

    /// Starts the server again, on the same port with the same data, killing it first if it runs. Returns when
    /// it serves.
    ///
    /// # Errors
    ///
    /// When the server does not come up; the error shows the end of its log.
    pub async fn restart(&self) -> io::Result<()> {
        self.kill()?;
        if self.options.software == Software::Knot {
            knot::tidy(self.dir())?;
        }
        self.process.spawn()?;
        quorum::ready(self).await
    }

    /// Freezes the server (SIGSTOP): nothing is answered, and the kernel keeps what comes in.
    ///
    /// # Errors
    ///
    /// When the server is not running.
    pub fn pause(&self) -> io::Result<()> {
        self.process.pause()
    }

    /// Lets a paused server go on (SIGCONT).
    ///
    /// # Errors
    ///
    /// When the server is not running.
    pub fn resume(&self) -> io::Result<()> {
        self.process.resume()
    }

    /// Kills the server and starts it with what it held in the beginning, under the first serial; a secondary begins with
    /// nothing. Returns when it serves.
    ///
    /// # Errors
    ///
    /// When the server does not come up; the error shows the end of its log.
    pub async fn wipe(&self) -> io::Result<()> {
        self.kill()?;
        self.fill()?;
        self.restart().await
    }

    /// The process id, while the server runs.
    pub fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// The temporary directory with the server's configuration, data and log.
    pub fn dir(&self) -> &Path {
        self.process.dir()
    }

    /// Everything the server has logged, over all its starts.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Gives the server, which does not run, what it holds in the beginning.
    fn fill(&self) -> io::Result<()> {
        match self.options.software {
            Software::Bind => bind::clear(self.dir())?,
            Software::Knot => knot::clear(self.dir())?,
        }
        let file = self.dir().join(ZONE_FILE);
        match self.options.primary {
            None => replace_file(&file, &self.options.zone.file("hostmaster")),
            Some(_) => remove_file(&file),
        }
    }

    /// Who is responsible for the zone, and its serial.
    async fn soa(&self, dig: &Dig) -> io::Result<[String; 2]> {
        let answer = dig.query(self.zone(), "SOA").await?;
        let fields = answer.records.first().map(|record| record.split(' ').skip(5));
        if let Some(mut fields) = fields
            && let (Some(responsible), Some(serial)) = (fields.next(), fields.next())
        {
            return Ok([responsible.to_owned(), serial.to_owned()]);
        }
        Err(io::Error::other(format!("{} does not serve {}: {}", self.address(), self.zone(), answer.rcode)))
    }
}

impl Serve for NameServer {
    fn process(&self) -> &Process {
        &self.process
    }

    fn has_given_up(&self) -> bool {
        rejects(&self.process.log_of_this_start())
    }

    async fn serves(&self) -> io::Result<()> {
        self.soa(&self.dig()).await?;
        self.soa(&self.dig().tcp()).await?;
        Ok(())
    }
}

fn rejects(log: &str) -> bool {
    REJECTIONS.iter().any(|words| log.contains(words))
}

/// Nobody sees a half written file, nor writes to the new one what was meant for the old.
fn replace_file(path: &Path, content: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, content)?;
    fs::rename(new, path)
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What a client said, wherever.
fn printed(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{out}{err}").trim().to_owned()
}
