//! Where keys are in the tree of nodes, and the nodes that are ours.
//!
//! The key `a/b/c` is the node `<chroot>/a/b/c`. Two names are not for keys: `.epoch` at the top, where
//! [`store`](crate::store) counts, and `.keep` anywhere, which keeps a directory. At the root of the server,
//! `zookeeper` belongs to the server.

use std::collections::BTreeSet;

use discovery::{
    Error, Result,
    kv::{Key, Txn},
};

/// How many counters the keys share; see [`store`](crate::store).
const STRIPES: u64 = 256;

const EPOCH: &str = ".epoch";
const KEEP: &str = ".keep";
const SERVER: &str = "zookeeper";

/// Maps keys to nodes and back.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// The chroot, with a slash in front and none behind; empty for the root of the server.
    root: String,
}

/// One of the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stripe(u64);

impl Layout {
    /// The layout under a chroot that [`check_chroot`] returned.
    pub(crate) fn new(chroot: &str) -> Self {
        Self { root: chroot.to_owned() }
    }

    /// The node of a key.
    pub(crate) fn node(&self, key: &Key) -> String {
        match (self.root.as_str(), key.is_root()) {
            ("", true) => "/".to_owned(),
            (root, true) => root.to_owned(),
            (root, false) => format!("{root}/{}", key.as_str()),
        }
    }

    /// The key of a node; `None` for a node outside of the chroot, one of ours, and one whose name no key can have.
    pub(crate) fn key(&self, node: &str) -> Option<Key> {
        let below = node.strip_prefix(self.root.as_str())?.strip_prefix('/')?;
        let key = below.parse().ok()?;
        (!self.is_reserved(&key)).then_some(key)
    }

    /// The child of a key, if a key can have that name.
    pub(crate) fn child(&self, key: &Key, name: &str) -> Option<Key> {
        key.join(name).ok().filter(|child| !self.is_reserved(child))
    }

    /// Refuses keys that are not for callers.
    pub(crate) fn check(&self, key: &Key) -> Result<()> {
        if self.is_reserved(key) {
            return Err(Error::invalid(format!(
                "key {key} is reserved; choose one without .keep, and not under .epoch or the server's zookeeper"
            )));
        }
        Ok(())
    }

    /// Refuses transactions with keys that are not for callers.
    pub(crate) fn check_txn(&self, txn: &Txn) -> Result<()> {
        keys_of(txn).into_iter().try_for_each(|key| self.check(key))
    }

    /// The chroot and what is above it, topmost first.
    pub(crate) fn chroot_nodes(&self) -> impl Iterator<Item = &str> {
        let ends = self.root.match_indices('/').map(|(at, _)| at).skip(1).chain([self.root.len()]);
        ends.filter(|end| *end > 0).map(|end| &self.root[..end])
    }

    /// The nodes between the chroot and the keys, each above those below it.
    pub(crate) fn directories<'k>(&self, keys: impl IntoIterator<Item = &'k Key>) -> BTreeSet<String> {
        let mut nodes = BTreeSet::new();
        for key in keys {
            let mut parent = key.parent();
            while !parent.is_root() {
                nodes.insert(self.node(&parent));
                parent = parent.parent();
            }
        }
        nodes
    }

    /// The node above all counters.
    pub(crate) fn epoch_node(&self) -> String {
        format!("{}/{EPOCH}", self.root)
    }

    /// The node of a counter.
    pub(crate) fn stripe_node(&self, stripe: Stripe) -> String {
        format!("{}/{EPOCH}/{}", self.root, stripe.0)
    }

    /// The child that keeps the server from reaping the node of a key when its other children are gone.
    pub(crate) fn keep_node(&self, key: &Key) -> String {
        format!("{}/{KEEP}", self.node(key))
    }

    fn is_reserved(&self, key: &Key) -> bool {
        let top = key.segments().next();
        top == Some(EPOCH)
            || (self.root.is_empty() && top == Some(SERVER))
            || key.segments().any(|segment| segment == KEEP)
    }
}

impl Stripe {
    /// The counter of a key: FNV-1a, since every program that shares the chroot must choose the same.
    pub(crate) fn of(key: &Key) -> Self {
        let hash = key.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        // The low bits of FNV mix least; fold the high ones in.
        Self((hash ^ (hash >> 32)) % STRIPES)
    }

    /// All counters.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..STRIPES).map(Self)
    }
}

/// The keys that a transaction looks at or writes, each once.
pub(crate) fn keys_of(txn: &Txn) -> BTreeSet<&Key> {
    txn.guards()
        .iter()
        .map(discovery::kv::Guard::key)
        .chain(txn.ops().iter().map(discovery::kv::Op::key))
        .collect()
}

/// The chroot as a path: empty, or with a slash in front and none behind.
pub(crate) fn check_chroot(text: &str) -> Result<String> {
    let text = text.trim_matches('/');
    if text.is_empty() {
        return Ok(String::new());
    }
    let key: Key = text.parse().map_err(|error| {
        Error::invalid("the chroot is not a path of segments of visible ASCII characters joined by /")
            .with_source(error)
    })?;
    if key.segments().next() == Some(SERVER) {
        return Err(Error::invalid(
            "the chroot is under /zookeeper, which belongs to the server; choose another",
        ));
    }
    Ok(format!("/{key}", key = key.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        text.parse().unwrap()
    }

    #[test]
    fn keys_and_nodes_are_one_to_one() {
        for chroot in ["", "/cn", "/apps/cn"] {
            let layout = Layout::new(chroot);
            for text in ["a", "a/b/c", "zookeeper2", ".epochs/1"] {
                let node = layout.node(&key(text));
                assert_eq!(node, format!("{chroot}/{text}"));
                assert_eq!(layout.key(&node), Some(key(text)));
            }
        }
        assert_eq!(Layout::new("").node(&Key::root()), "/");
        assert_eq!(Layout::new("/cn").node(&Key::root()), "/cn");
    }

    #[test]
    fn foreign_nodes_are_no_keys() {
        let layout = Layout::new("/cn");
        for node in [
            "/",
            "/cn",
            "/cnx/a",
            "/other/a",
            "/cn/a b",
            "/cn/ø",
            "/cn/.epoch",
            "/cn/.epoch/3",
            "/cn/a/.keep",
        ] {
            assert_eq!(layout.key(node), None, "{node}");
        }
        assert_eq!(Layout::new("").key("/zookeeper/config"), None);
        assert_eq!(layout.key("/cn/zookeeper"), Some(key("zookeeper")));
    }

    #[test]
    fn reserved_keys_are_refused() {
        let layout = Layout::new("");
        for text in [".epoch", ".epoch/1", "a/.keep", "zookeeper/quota"] {
            assert!(layout.check(&key(text)).is_err(), "{text}");
        }
        assert!(layout.check(&key("a/.epoch")).is_ok());
    }

    #[test]
    fn directories_come_before_what_is_in_them() {
        let layout = Layout::new("/x/y");
        assert_eq!(layout.chroot_nodes().collect::<Vec<_>>(), ["/x", "/x/y"]);
        assert_eq!(Layout::new("").chroot_nodes().count(), 0);
        let directories: Vec<_> =
            layout.directories([&key("a/b/c"), &key("a/d"), &key("e")]).into_iter().collect();
        assert_eq!(directories, ["/x/y/a", "/x/y/a/b"]);
    }

    #[test]
    fn stripes_are_the_same_everywhere_and_spread() {
        assert_eq!(Stripe::of(&key("a/b")), Stripe::of(&key("a/b")));
        let used: BTreeSet<_> = (0..3000).map(|n| Stripe::of(&key(&format!("cart/{n}")))).collect();
        assert_eq!(used.len(), Stripe::all().count());
    }
}
