//! Tests of the dependencies in a record.

use greenwave_inputs::{InputSpec, Selection, list_files_durably};

use super::*;

#[tokio::test]
async fn a_path_that_was_created_after_the_lookup_stays_a_dependency() {
    let project = tempfile::tempdir().unwrap();
    let root = project.path().canonicalize().unwrap();
    std::fs::create_dir(root.join("lib")).unwrap();
    let spec = ("t".to_owned(), InputSpec::default());
    let files = ProjectFiles::new(&root, Arc::default(), None, [spec], |_| None).unwrap();
    let paths = ["lib/gone.so", "lib/new.so", "other/gone.so"].map(PathBuf::from);
    let set = DiscoveredDeps::new(paths.iter().map(|path| (path.clone(), AccessKind::Content)));
    let snapshot = files.latest().await.unwrap();
    let inputs = LookupInputs { snapshot, programs: Vec::new(), sets: vec![Arc::new(set)], tests: 1 };
    for path in &paths {
        assert_eq!(inputs.snapshot.states.state(path, AccessKind::Content).0, PathState::Absent);
    }
    std::fs::write(root.join("lib/new.so"), "").unwrap();
    // The stamp of the directory is younger than the file.
    let (_, listed) = list_files_durably(&root, &[&Selection::everything()]).unwrap();
    assert!(listed.is_none(), "the stamp of a directory that has just changed is not trusted");
    let directory = FileStamp::from_metadata(&root.join("lib").metadata().unwrap());
    let kept = dependencies(&root, &inputs, &[("lib".into(), directory)]);
    let kept: Vec<&Path> = kept.accesses.iter().map(|(path, _)| path.as_path()).collect();
    assert_eq!(kept, [Path::new("lib/new.so"), Path::new("other/gone.so")]);
}
