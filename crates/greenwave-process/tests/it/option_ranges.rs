//! Public numbers at their limits.

use std::time::Duration;

use greenwave_process::{Child, Error, Jobserver};
use tokio::process::Command;

use crate::supervisor::supervisor;

#[test]
fn a_jobserver_of_any_size_is_created_or_refused() {
    assert!(Jobserver::new(0).is_ok() && Jobserver::new(1).is_ok());
    assert!(matches!(Jobserver::new(u32::MAX), Err(Error::Jobserver { .. })));
}

#[tokio::test]
async fn any_number_of_tokens_can_be_wanted() {
    for (running, wanted) in [(0, 0), (0, 1), (1, 0), (0, u32::MAX), (u32::MAX, 0), (u32::MAX, u32::MAX)] {
        let jobserver = Jobserver::new(3).unwrap();
        let mut tokens = jobserver.tokens();
        assert_eq!(tokens.jobs(), 1);
        tokens.adjust(running, wanted);
        if wanted > 3 {
            tokens.acquired().await;
            tokens.acquired().await;
            assert_eq!(tokens.jobs(), 3, "all tokens of the pool");
        }
        tokens.adjust(0, 0);
        assert_eq!(tokens.jobs(), 1);
    }
}

#[tokio::test]
async fn any_time_to_stop_has_a_meaning() {
    for grace in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        let command = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let supervised = |script: &str| {
            let spawn = supervisor().spawn(&command(script)).unwrap();
            Child::start(spawn)
        };
        let mut children = [Child::spawn(&mut command("sleep 600")), supervised("sleep 600")];
        for child in &mut children {
            assert!(!child.as_mut().unwrap().stop(grace).await.unwrap().success(), "{grace:?}");
        }
        let mut children = [Child::spawn(&mut command("exit 0")), supervised("exit 0")];
        for child in &mut children {
            let (status, is_left) = child.as_mut().unwrap().wait_for_group(grace).await.unwrap();
            assert!(status.success(), "{grace:?}");
            assert!(!is_left || grace < Duration::from_secs(1), "{grace:?}: nothing was left over");
        }
    }
}
