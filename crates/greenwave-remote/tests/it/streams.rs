//! Transfers of large blobs that are cut.

use greenwave_remote::{Digest, Error};

use crate::fake::{Fake, State};
use crate::{blob, client, patient};

const PART: usize = 1 << 20;

#[tokio::test]
async fn a_transfer_continues_after_each_cut() {
    let fake = Fake::start(State { stream_bytes_max: Some(PART), ..State::default() });
    let client = client(fake.port, patient());
    let (large, digest) = (blob(5 * PART), Digest::of(&blob(5 * PART)));
    client.upload(std::slice::from_ref(&large)).await.unwrap();
    let offsets: Vec<i64> = std::mem::take(&mut fake.state.lock().offsets);
    assert_eq!(offsets, (0..5).map(|part| part * PART as i64).collect::<Vec<_>>());
    let names = std::mem::take(&mut fake.state.lock().names);
    assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
    let [_, uuid, _] = names[0].split('/').take(3).collect::<Vec<_>>()[..] else { panic!("{names:?}") };
    assert_eq!(names[0], format!("uploads/{uuid}/blobs/{digest}"));
    let parts: Vec<usize> = uuid.split('-').map(str::len).collect();
    assert_eq!((parts, uuid.as_bytes()[14]), (vec![8, 4, 4, 4, 12], b'4'), "{uuid}");
    let found = client.download(&[digest], u64::MAX).await.unwrap();
    assert!(found == [Some(large)]);
    let offsets: Vec<i64> = std::mem::take(&mut fake.state.lock().offsets);
    assert_eq!(offsets, (0..5).map(|part| part * PART as i64).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_transfer_without_progress_fails() {
    let fake = Fake::start(State::default());
    let client = client(fake.port, patient());
    let large = blob(5 * PART);
    client.upload(std::slice::from_ref(&large)).await.unwrap();
    fake.state.lock().stream_bytes_max = Some(0);
    let error = client.download(&[Digest::of(&large)], u64::MAX).await.unwrap_err();
    assert!(matches!(error, Error::Call { operation: "fetch a blob", .. }), "{error}");
    assert_eq!(fake.calls("read"), 3);
}

#[tokio::test]
async fn a_stream_with_too_many_bytes_is_no_blob() {
    let fake = Fake::start(State::default());
    let client = client(fake.port, patient());
    let large = blob(5 * PART);
    client.upload(std::slice::from_ref(&large)).await.unwrap();
    fake.state.lock().excess_bytes = 1;
    assert_eq!(client.download(&[Digest::of(&large)], u64::MAX).await.unwrap(), [None]);
    assert_eq!(fake.calls("read"), 1);
}

#[tokio::test]
async fn an_upload_that_the_server_refuses_is_not_repeated() {
    let refusal = tonic::Status::resource_exhausted("no space is left");
    let fake = Fake::start(State { refuses_blobs: Some(refusal), ..State::default() });
    let error = client(fake.port, patient()).upload(&[blob(5 * PART)]).await.unwrap_err();
    assert!(error.is_refusal(), "{error}");
    assert_eq!(fake.calls("write"), 1);
}
