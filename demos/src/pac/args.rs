//! The command line of the Pac sample.

use clap::Subcommand;
use discovery::{Coordinate, Result, ServiceName};

use crate::{
    backend::{BackendArgs, parse_label},
    listen::ListenArgs,
    presence::Stay,
};

/// Without a subcommand: the server and four ghosts in one process.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(super) role: Option<Role>,

    #[command(flatten)]
    pub(super) all: AllArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum Role {
    /// The page on which ghosts come and go, alone in its process
    Server(ServerArgs),
    /// One ghost, alone in its process; any name will do
    Ghost(GhostArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct AllArgs {
    /// The port of the page; 0 takes a free one. Ghosts always take free ones
    #[arg(long, default_value_t = 4567)]
    pub(super) port: u16,

    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, clap::Args)]
pub(super) struct ServerArgs {
    /// The port of the page; 0 takes a free one
    #[arg(long, default_value_t = 4567)]
    pub(super) port: u16,

    /// Its own coordinate: service.tag.region, or instance.service.tag.region to choose the id [default:
    /// pacman.test.local, or with the tag and region given]; it shows the ghosts of its tag and region
    #[arg(long, conflicts_with_all = ["tag", "region"])]
    pub(super) coordinate: Option<Coordinate>,

    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, clap::Args)]
pub(super) struct GhostArgs {
    /// What it is called: blinky, pinky, inky, clyde, or any other label
    #[arg(required_unless_present = "coordinate", value_parser = parse_label)]
    pub(super) name: Option<String>,

    /// Its coordinate, instead of name, tag and region: service.tag.region, or instance.service.tag.region to choose
    /// the id
    #[arg(long, conflicts_with_all = ["name", "tag", "region"])]
    pub(super) coordinate: Option<Coordinate>,

    /// The port of its page; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    pub(super) port: u16,

    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, clap::Args)]
pub(super) struct Common {
    #[command(flatten)]
    pub(super) backend: BackendArgs,

    #[command(flatten)]
    pub(super) listen: ListenArgs,

    #[command(flatten)]
    pub(super) place: Place,

    #[command(flatten)]
    pub(super) stay: Stay,
}

/// Where in the tree.
#[derive(Debug, clap::Args)]
pub(super) struct Place {
    /// The tag of the coordinate: the services that belong together
    #[arg(long, default_value = "test", value_parser = parse_label)]
    tag: String,

    /// The region of the coordinate
    #[arg(long, default_value = "local", value_parser = parse_label)]
    region: String,
}

impl Place {
    pub(super) fn coordinate(&self, service: &str) -> Result<Coordinate> {
        let labels = [self.region.as_str(), self.tag.as_str(), service];
        Coordinate::new(ServiceName::from_labels(labels)?, None)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Args, String> {
        let words = std::iter::once("pac").chain(line.split_whitespace());
        Cli::try_parse_from(words).map(|cli| cli.args).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_those_of_the_sample() {
        let Ok(Args { role: Some(Role::Server(server)), .. }) = parse("server") else { panic!("no server") };
        assert_eq!(server.port, 4567);
        assert_eq!(server.common.place.coordinate("pacman").unwrap().to_string(), "pacman.test.local");
        let Ok(Args { role: Some(Role::Ghost(ghost)), .. }) = parse("ghost inky --tag prod") else {
            panic!("no ghost");
        };
        assert_eq!((ghost.port, ghost.name.as_deref()), (0, Some("inky")));
        assert_eq!(ghost.common.place.coordinate("inky").unwrap().to_string(), "inky.prod.local");
    }

    #[test]
    fn a_coordinate_may_choose_the_id() {
        let Ok(Args { role: Some(Role::Ghost(ghost)), .. }) = parse("ghost --coordinate 1f.inky.a.b") else {
            panic!("no ghost");
        };
        assert_eq!(ghost.coordinate.unwrap().instance().unwrap().as_str(), "1f");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, flag, part) in [
            ("--port 70000", "--port", "65535"),
            ("--addr localhost", "--addr", "localhost"),
            ("--advertise http://x", "--advertise", "http://x"),
            ("--tag a/b", "--tag", "one label"),
            ("--region=-x", "--region", "-x"),
            ("--ttl 10", "--ttl", "unit"),
            ("--ttl 0s", "--ttl", "100ms"),
            ("--drain soon", "--drain", "soon"),
            ("server --coordinate pacman", "--coordinate", "1 label"),
            ("server --coordinate a.b.c --tag x", "--coordinate", "--tag"),
            ("ghost", "<NAME>", "required"),
            ("ghost pin_ky", "[NAME]", "pin_ky"),
            ("ghost inky --coordinate a.b.c", "[NAME]", "--coordinate"),
            ("clyde", "clyde", "unrecognized"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(flag) && error.contains(part), "{line}: {error}");
        }
    }
}
