//! The contract of backends, on a server in memory.

use std::sync::Arc;

use greenwave_cache::Backend;
use greenwave_cache::conformance::BackendFixture;

use crate::fake::{Fake, State};
use crate::{backend, patient};

impl BackendFixture for Fake {
    async fn open(&self) -> Arc<dyn Backend> {
        Arc::new(backend(self.port, patient()))
    }
}

mod a_server_that_sends_references {
    use super::*;

    greenwave_cache::backend_conformance!(Fake::start(State::default()));
}

mod a_server_that_sends_contents {
    use super::*;

    greenwave_cache::backend_conformance!(Fake::start(State { inlines: true, ..State::default() }));
}
