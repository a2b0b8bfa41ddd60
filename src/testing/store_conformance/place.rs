//! [`StorePlace`]: where a store keeps its records, for the conformance tests.

use crate::error::Error;
use crate::store::Store;

/// A place where a store keeps its records, such as a folder or a database, for
/// [`StoreConformance`](super::StoreConformance). It is empty when it is made.
///
/// A closure that opens a store is a place. A type of the program's own can do more: each method besides
/// [`open`](StorePlace::open) makes more rules checkable.
///
/// ```
/// use std::fs;
/// use long_polling::Error;
/// # use std::time::Duration;
/// # use long_polling::store::{GroupCommit, Record, RecordLog};
/// use long_polling::store::Store;
/// use long_polling::testing::StorePlace;
/// # struct MyLog(std::path::PathBuf);
/// # impl RecordLog for MyLog {
/// #     fn open(&mut self, _: &mut dyn FnMut(Record)) -> Result<(), Error> {
/// #         Ok(())
/// #     }
/// #     fn write(&mut self, _: &[Record]) -> Result<(), Error> {
/// #         Ok(())
/// #     }
/// # }
/// # fn my_store(path: std::path::PathBuf) -> Box<dyn Store> {
/// #     Box::new(GroupCommit::new(MyLog(path)))
/// # }
///
/// struct Folder(tempfile::TempDir);
///
/// impl StorePlace for Folder {
///     fn open(&self) -> Result<Box<dyn Store>, Error> {
///         Ok(Box::new(my_store(self.0.path().join("events"))))
///     }
///
///     fn after_kill(&self) -> Result<Option<Box<dyn Store>>, Error> {
///         // What the file has now is what a killed process leaves.
///         fs::copy(self.0.path().join("events"), self.0.path().join("killed"))?;
///         Ok(Some(Box::new(my_store(self.0.path().join("killed")))))
///     }
/// }
/// ```
pub trait StorePlace {
    /// Returns a store on this place that is not started. The stores of earlier calls are stopped or dropped by then.
    ///
    /// # Errors
    ///
    /// Any error. The rule that is being checked then fails.
    fn open(&self) -> Result<Box<dyn Store>, Error>;

    /// Returns a store, not started, that has what would be left if the process were killed now; for example a store on a
    /// copy of the files. The store on this place goes on meanwhile. Defaults to `None`: what a kill leaves is not checked.
    ///
    /// # Errors
    ///
    /// Any error. The rule that is being checked then fails.
    fn after_kill(&self) -> Result<Option<Box<dyn Store>>, Error> {
        Ok(None)
    }

    /// Makes writes to the disk fail in this way from now on, or with `None` work again. Returns `false` if the place can't do
    /// that; the rules that need the fault are then not checked. Defaults to `false`.
    fn set_fault(&self, fault: Option<Fault>) -> bool {
        let _ = fault;
        false
    }
}

impl<F, S> StorePlace for F
where
    F: Fn() -> Result<S, Error>,
    S: Store + 'static,
{
    fn open(&self) -> Result<Box<dyn Store>, Error> {
        Ok(Box::new(self()?))
    }
}

/// How writes to a disk fail, for [`StorePlace::set_fault`]. Reading works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// A write waits until the fault ends, and then succeeds.
    Stall,
    /// A write fails at once, with nothing written.
    Fail,
}
