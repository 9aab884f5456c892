//! Whether something is there: found, proven to be gone, or neither. Only the first two are facts.
//!
//! A gateway's 404, a cell of Nova that is down and a list that was cut all look like absence and prove nothing: they are
//! errors that may pass. A server is gone when Nova itself says so and its history, or a whole list, bears that out.

use std::{ops::Deref, vec::IntoIter};

use serde_json::Value;

use super::types::Server;

/// What proves that a server is gone, besides Nova's own 404.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Its history says that it was deleted.
    Deleted,
    /// The whole list of the project's servers does not have it.
    NotListed {
        /// How many servers the list has. An empty one proves less: another project's is empty, too.
        others: usize,
    },
}

/// What a look for a server gave. What could not be seen is an error.
#[derive(Clone, Debug, PartialEq)]
pub enum Sighting {
    /// It is there, and all of it was seen.
    Found(Box<Server>),
    /// It is not there. One look is not enough to act on that.
    Gone(Proof),
}

/// All pages of a list. Nothing can be concluded from what is missing in one that is not whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed<T> {
    /// What could be read.
    pub items: Vec<T>,
    /// Items that could not be read, as the service gave them.
    pub unread: Vec<Value>,
    /// The service said that there is more, and did not give it.
    pub cut: bool,
    /// How many pages there were.
    pub pages: usize,
}

impl<T> Listed<T> {
    /// Every item was read.
    pub fn whole(&self) -> bool {
        self.unread.is_empty() && !self.cut
    }
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { items: vec![], unread: vec![], cut: false, pages: 0 }
    }
}

impl<T> Deref for Listed<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.items
    }
}

impl<'a, T> IntoIterator for &'a Listed<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.iter()
    }
}

impl<T> IntoIterator for Listed<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        self.items.into_iter()
    }
}
