//! The dependencies of a task, as the parameters of its code.

use std::sync::Arc;

use super::{Handle, Results};
use crate::TaskId;

/// The tasks whose results another task receives: `()`, a [`Handle`], a tuple of up to six inputs
/// or a `Vec` of inputs of one type. This trait is sealed.
pub trait Inputs: sealed::Sealed + Send + Sync + 'static {
    /// The results, as a task receives them: an [`Arc`] for each handle.
    type Values: Send + 'static;

    /// Calls `visit` with the number of the flow and the id of each task.
    #[doc(hidden)]
    fn visit(&self, visit: &mut dyn FnMut(u64, TaskId));

    /// Returns the results; `None` if one is missing.
    #[doc(hidden)]
    fn values(&self, results: &Results) -> Option<Self::Values>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for () {}
    impl<T> Sealed for super::Handle<T> {}
    impl<I> Sealed for Vec<I> {}
}

impl Inputs for () {
    type Values = ();

    fn visit(&self, _visit: &mut dyn FnMut(u64, TaskId)) {}

    fn values(&self, _results: &Results) -> Option<()> {
        Some(())
    }
}

impl<T: Send + Sync + 'static> Inputs for Handle<T> {
    type Values = Arc<T>;

    fn visit(&self, visit: &mut dyn FnMut(u64, TaskId)) {
        visit(self.flow, self.task);
    }

    fn values(&self, results: &Results) -> Option<Arc<T>> {
        results.get(self.task)
    }
}

impl<I: Inputs> Inputs for Vec<I> {
    type Values = Vec<I::Values>;

    fn visit(&self, visit: &mut dyn FnMut(u64, TaskId)) {
        self.iter().for_each(|input| input.visit(visit));
    }

    fn values(&self, results: &Results) -> Option<Self::Values> {
        self.iter().map(|input| input.values(results)).collect()
    }
}

macro_rules! tuple {
    ($($name:ident $at:tt),+) => {
        impl<$($name),+> sealed::Sealed for ($($name,)+) {}

        impl<$($name: Inputs),+> Inputs for ($($name,)+) {
            type Values = ($($name::Values,)+);

            fn visit(&self, visit: &mut dyn FnMut(u64, TaskId)) {
                $(self.$at.visit(visit);)+
            }

                    fn values(&self, results: &Results) -> Option<Self::Values> {
                Some(($(self.$at.values(results)?,)+))
            }
        }
    };
}

tuple!(A 0);
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);
tuple!(A 0, B 1, C 2, D 3, E 4);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5);
