//! Containers by the names that callers know, in the order in which they came. An array has thousands, and all of them are put
//! together whenever one of them changes.

use std::collections::HashMap;

use super::super::container::ContainerView;

#[derive(Default)]
pub(super) struct Named {
    all: Vec<ContainerView>,
    at: HashMap<String, usize>,
}

impl Named {
    /// The container with that name.
    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut ContainerView> {
        #[cfg(test)]
        work::add();
        self.at.get(name).map(|at| &mut self.all[*at])
    }

    /// Adds one whose name is new.
    pub(super) fn push(&mut self, container: ContainerView) {
        self.at.insert(container.name.clone(), self.all.len());
        self.all.push(container);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn into_vec(self) -> Vec<ContainerView> {
        self.all
    }
}

/// What is done with names, counted.
#[cfg(test)]
pub(super) mod work {
    use std::cell::Cell;

    thread_local! {
        static DONE: Cell<usize> = const { Cell::new(0) };
    }

    pub(in super::super) fn add() {
        DONE.set(DONE.get() + 1);
    }

    /// So much was done in this thread since this was asked last.
    pub(in super::super) fn take() -> usize {
        DONE.take()
    }
}
