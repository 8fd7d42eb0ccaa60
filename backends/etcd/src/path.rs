//! Where entries are in etcd's flat space of keys.
//!
//! The entry `a/b/c` is under `<namespace>/a/b/c`, always with a slash in front: as it would be in ZooKeeper. One name
//! is not for callers: `.fence` at the top, where [`lease`](crate::lease) keeps late writes out.

use discovery::{
    Error, LeaseId, Result,
    kv::{Key, Range, Txn},
};

const FENCE: &str = ".fence";

/// Maps entries to etcd's keys and back.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// What is in front of every key: a slash at least, and one at the end.
    front: String,
}

impl Layout {
    /// The layout under a namespace that [`check_namespace`] returned.
    pub(crate) fn new(namespace: &str) -> Self {
        Self { front: format!("{namespace}/") }
    }

    /// Where the entry of a key is.
    pub(crate) fn path(&self, key: &Key) -> String {
        format!("{}{}", self.front, key.as_str())
    }

    /// The key of what is at a path; `None` for what is outside of the namespace, reserved, or no key.
    pub(crate) fn key(&self, path: &[u8]) -> Option<Key> {
        let key = str::from_utf8(path.strip_prefix(self.front.as_bytes())?).ok()?.parse().ok()?;
        (!is_reserved(&key)).then_some(key)
    }

    /// What all paths of a range have in front, and nothing outside of the subtree has.
    fn below(&self, key: &Key) -> String {
        if key.is_root() { self.front.clone() } else { format!("{}/", self.path(key)) }
    }

    /// The first path of a range, and the one behind its last, as etcd has it: empty if there is but the first.
    pub(crate) fn bounds(&self, range: &Range) -> (String, Vec<u8>) {
        match range {
            Range::Key(only) => (self.path(only), Vec::new()),
            Range::Children(top) | Range::Subtree(top) => {
                let below = self.below(top);
                let end = end_of(&below);
                (below, end)
            }
        }
    }

    /// Behind a path that is below one of a key's children: the first that is behind everything below that child.
    pub(crate) fn behind_child(&self, key: &Key, path: &[u8]) -> Option<Vec<u8>> {
        let from = self.below(key).len();
        let slash = from + path.get(from..)?.iter().position(|byte| *byte == b'/')?;
        // `0` is the character behind the slash.
        Some([&path[..slash], b"0"].concat())
    }

    /// A path that is never an entry, to ask for something that costs nothing.
    pub(crate) fn nothing(&self) -> String {
        self.front.clone()
    }

    /// Where the fence of a lease is.
    pub(crate) fn fence(&self, lease: LeaseId) -> String {
        format!("{}{FENCE}/{lease}", self.front)
    }

    /// Refuses keys that are not for callers.
    pub(crate) fn check(key: &Key) -> Result<()> {
        if is_reserved(key) {
            return Err(Error::invalid(format!("key {key} is reserved; choose one not under {FENCE}")));
        }
        Ok(())
    }

    /// Refuses transactions with keys that are not for callers.
    pub(crate) fn check_txn(txn: &Txn) -> Result<()> {
        let guards = txn.guards().iter().map(discovery::kv::Guard::key);
        guards.chain(txn.ops().iter().map(discovery::kv::Op::key)).try_for_each(Self::check)
    }
}

/// The first byte string behind all that start with `prefix`, whose last byte is a slash.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

fn is_reserved(key: &Key) -> bool {
    key.segments().next() == Some(FENCE)
}

/// The namespace as a path: empty, or with a slash in front and none behind.
pub(crate) fn check_namespace(text: &str) -> Result<String> {
    let text = text.trim_matches('/');
    if text.is_empty() {
        return Ok(String::new());
    }
    let key: Key = text.parse().map_err(|error| {
        Error::invalid("the namespace is not a path of segments of visible ASCII characters joined by /")
            .with_source(error)
    })?;
    if is_reserved(&key) {
        return Err(Error::invalid(format!("the namespace is under {FENCE}; choose another")));
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
    fn keys_and_paths_are_one_to_one() {
        for namespace in ["", "/cn", "/apps/cn"] {
            let layout = Layout::new(namespace);
            for text in ["a", "a/b/c", ".fences/1", "a/.fence"] {
                let path = layout.path(&key(text));
                assert_eq!(path, format!("{namespace}/{text}"));
                assert_eq!(layout.key(path.as_bytes()), Some(key(text)));
            }
        }
    }

    #[test]
    fn what_is_foreign_is_no_key() {
        let layout = Layout::new("/cn");
        for path in ["/", "/cn", "/cn/", "/cnx/a", "/other/a", "/cn/a b", "/cn//a", "/cn/a/", "/cn/.fence/3"]
        {
            assert_eq!(layout.key(path.as_bytes()), None, "{path}");
        }
        assert_eq!(layout.key(b"/cn/\xff"), None);
        assert_eq!(layout.key(layout.fence(LeaseId(7)).as_bytes()), None);
        assert!(Layout::check(&key(".fence/1")).is_err() && Layout::check(&key("a/.fence")).is_ok());
    }

    #[test]
    fn a_range_is_what_has_the_same_in_front() {
        let layout = Layout::new("/cn");
        assert_eq!(layout.below(&Key::root()), "/cn/");
        assert_eq!(layout.below(&key("a/b")), "/cn/a/b/");
        for range in [Range::Children(key("a/b")), Range::Subtree(key("a/b"))] {
            assert_eq!(layout.bounds(&range), ("/cn/a/b/".into(), b"/cn/a/b0".into()));
        }
        assert_eq!(layout.bounds(&Range::Key(key("a/b"))), ("/cn/a/b".into(), vec![]));
        // Nothing that is there is an entry.
        assert_eq!(layout.bounds(&Range::Key(Key::root())), (layout.nothing(), vec![]));
    }

    #[test]
    fn what_is_below_a_child_can_be_passed_over() {
        let layout = Layout::new("/cn");
        let behind = |top, path: &str| {
            let behind = layout.behind_child(&top, path.as_bytes());
            behind.map(|behind| String::from_utf8(behind).unwrap())
        };
        assert_eq!(behind(key("a"), "/cn/a/b/c/1").as_deref(), Some("/cn/a/b0"));
        assert_eq!(behind(Key::root(), "/cn/a/b").as_deref(), Some("/cn/a0"));
        assert_eq!(behind(Key::root(), "/cn//a").as_deref(), Some("/cn/0"));
        assert_eq!(behind(Key::root(), "/cn/."), None, "there may be /cn/.-a behind it");
    }
}
