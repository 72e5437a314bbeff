//! Equal values are held once: a fleet of a million devices has few ladders, profiles and groups.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Values that are shared by those who hold equal ones.
#[derive(Debug)]
pub(crate) struct Pool<T: ?Sized + Ord>(BTreeSet<Arc<T>>);

impl<T: ?Sized + Ord> Default for Pool<T> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<T: ?Sized + Ord> Pool<T> {
    /// This value, shared with everybody who brought an equal one.
    pub(crate) fn share<V: Borrow<T> + Into<Arc<T>>>(&mut self, value: V) -> Arc<T> {
        if let Some(known) = self.0.get(value.borrow()) {
            return Arc::clone(known);
        }
        let shared: Arc<T> = value.into();
        self.0.insert(Arc::clone(&shared));
        shared
    }
}
