//! The numeric option of a trace at zero, one and its maximum.

use std::process::Stdio;

use greenwave_process::Child;
use greenwave_sandbox::Tracer;
use tokio::process::Command;

use crate::support::can_trace;

#[tokio::test]
async fn traces_of_any_number_of_paths() {
    if !can_trace() {
        return;
    }
    for paths_max in [0, 1, 3, usize::MAX] {
        let mut command = Command::new("ls");
        command.arg("/").stdin(Stdio::null()).stdout(Stdio::null());
        let session = Tracer { paths_max }.attach(&mut command).unwrap();
        let mut child = Child::spawn(&mut command).unwrap();
        assert!(child.wait().await.unwrap().success(), "{paths_max}");
        let trace = session.blocking_finish();
        assert!(trace.paths.len() <= paths_max);
        assert_eq!(trace.incomplete.is_none(), paths_max == usize::MAX, "{paths_max}: {trace:?}");
    }
}
