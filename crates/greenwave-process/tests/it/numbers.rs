//! Public numbers at their limits.

use greenwave_process::{Error, Jobserver};

#[test]
fn a_jobserver_of_any_size_is_created_or_refused() {
    assert!(Jobserver::new(0).is_ok() && Jobserver::new(1).is_ok());
    assert!(matches!(Jobserver::new(u32::MAX), Err(Error::Jobserver { .. })));
}
