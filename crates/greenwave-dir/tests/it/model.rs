//! Random operations, compared with a naive model of a file system.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use greenwave_dir::{Access, Dir};
use proptest::prelude::*;

use crate::handles;

/// An entry of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    File(Vec<u8>),
    Directory,
    Link(String),
}

/// Paths of the base, relative to it, with their entries.
type Model = BTreeMap<String, Node>;

#[derive(Debug, Clone)]
enum Operation {
    Replace(String, u8),
    Create(String),
    CreateDirectory(String),
    Link(String, String),
    Rename(String, String),
    Remove(String),
    Read(String),
}

/// Short paths of few names, so that operations meet. Some try to leave the directory.
fn path() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b", "c", "d", "..", ".", "l"]);
    let names = prop::collection::vec(name, 1..4);
    (names, prop::bool::weighted(0.05)).prop_map(|(names, is_absolute)| {
        if is_absolute { format!("/{}", names.join("/")) } else { names.join("/") }
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    let target = prop::sample::select(vec!["a", "..", "../outside", "a/b", ".", "missing"]);
    prop_oneof![
        (path(), any::<u8>()).prop_map(|(path, byte)| Operation::Replace(path, byte)),
        path().prop_map(Operation::Create),
        path().prop_map(Operation::CreateDirectory),
        (target, path()).prop_map(|(target, path)| Operation::Link(target.to_owned(), path)),
        (path(), path()).prop_map(|(from, to)| Operation::Rename(from, to)),
        path().prop_map(Operation::Remove),
        path().prop_map(Operation::Read),
    ]
}

/// Returns the path in its normal form, if it has one.
fn normal(path: &str) -> Option<String> {
    let names: Vec<&str> = path.split('/').filter(|name| *name != ".").collect();
    let is_inside = names.iter().all(|name| !name.is_empty() && *name != "..");
    is_inside.then(|| names.join("/"))
}

/// Returns whether all parents of a path are directories.
fn has_parents(model: &Model, path: &str) -> bool {
    let mut parents = Path::new(path).ancestors().skip(1).map(|parent| parent.to_str().unwrap());
    parents.all(|parent| parent.is_empty() || model.get(parent) == Some(&Node::Directory))
}

/// Applies an operation to the model; returns whether it succeeds, and the content that it reads.
fn expect(model: &mut Model, operation: &Operation) -> Option<Option<Vec<u8>>> {
    let place =
        |model: &Model, path: &str| normal(path).filter(|path| !path.is_empty() && has_parents(model, path));
    match operation {
        Operation::Replace(path, byte) => {
            let path = place(model, path)?;
            if !matches!(model.get(&path), None | Some(Node::File(_))) {
                return None;
            }
            model.insert(path, Node::File(vec![*byte]));
        }
        Operation::Create(path) => {
            let path = place(model, path)?;
            match model.get(&path) {
                None => drop(model.insert(path, Node::File(Vec::new()))),
                Some(Node::File(_)) => {}
                Some(_) => return None,
            }
        }
        Operation::CreateDirectory(path) => {
            let path = normal(path)?;
            let mut parents: Vec<&Path> = Path::new(&path).ancestors().collect();
            parents.reverse();
            for parent in parents.into_iter().map(|parent| parent.to_str().unwrap()) {
                if parent.is_empty() {
                    continue;
                }
                match model.get(parent) {
                    None => drop(model.insert(parent.to_owned(), Node::Directory)),
                    Some(Node::Directory) => {}
                    Some(_) => return None,
                }
            }
        }
        Operation::Link(target, path) => {
            let path = place(model, path)?;
            if model.contains_key(&path) {
                return None;
            }
            model.insert(path, Node::Link(target.clone()));
        }
        Operation::Rename(from, to) => {
            let (from, to) = (place(model, from)?, place(model, to)?);
            rename(model, &from, &to)?;
        }
        Operation::Remove(path) => {
            let path = normal(path).filter(|path| !path.is_empty())?;
            if !has_parents(model, &path) {
                return is_missing(model, &path).then_some(None);
            }
            let inside = format!("{path}/");
            model.retain(|other, _| *other != path && !other.starts_with(&inside));
        }
        Operation::Read(path) => {
            let path = place(model, path)?;
            let Some(Node::File(content)) = model.get(&path) else { return None };
            return Some(Some(content.clone()));
        }
    }
    Some(None)
}

/// Returns whether the first component that is not a directory does not exist either.
fn is_missing(model: &Model, path: &str) -> bool {
    let mut parents: Vec<&Path> = Path::new(path).ancestors().collect();
    parents.reverse();
    let parents = parents.into_iter().map(|parent| parent.to_str().unwrap());
    let mut nodes = parents.filter(|parent| !parent.is_empty()).map(|parent| model.get(parent));
    nodes.find(|node| *node != Some(&Node::Directory)).is_some_and(|node| node.is_none())
}

fn rename(model: &mut Model, from: &str, to: &str) -> Option<()> {
    let moved = model.get(from)?.clone();
    let is_empty =
        |model: &Model, path: &str| !model.keys().any(|other| other.starts_with(&format!("{path}/")));
    let fits = match (&moved, model.get(to)) {
        _ if from == to => true,
        (_, None) => true,
        (Node::Directory, Some(Node::Directory)) => is_empty(model, to),
        (Node::Directory, _) | (_, Some(Node::Directory)) => false,
        _ => true,
    };
    if !fits || to.starts_with(&format!("{from}/")) {
        return None;
    }
    let inside = format!("{from}/");
    let below: Vec<String> =
        model.keys().filter(|path| *path == from || path.starts_with(&inside)).cloned().collect();
    for path in below {
        let node = model.remove(&path).unwrap();
        model.insert(format!("{to}{}", &path[from.len()..]), node);
    }
    Some(())
}

fn apply(dir: &Dir, operation: &Operation) -> io::Result<Option<Vec<u8>>> {
    match operation {
        Operation::Replace(path, byte) => dir.replace_file(path, &[*byte], 0o600)?,
        Operation::Create(path) => drop(dir.open_file(path, Access::Create, 0o600)?),
        Operation::CreateDirectory(path) => drop(dir.create_subdirectory(path, 0o700)?),
        Operation::Link(target, path) => dir.symlink(target, path)?,
        Operation::Rename(from, to) => dir.rename(from, to)?,
        Operation::Remove(path) => dir.remove_all(path)?,
        Operation::Read(path) => return dir.read(path, 100).map(Some),
    }
    Ok(None)
}

fn observe(root: &Path, below: &str, model: &mut Model) {
    for entry in fs::read_dir(root.join(below)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        let kind = entry.file_type().unwrap();
        if kind.is_symlink() {
            let target = fs::read_link(entry.path()).unwrap();
            model.insert(path, Node::Link(target.to_str().unwrap().to_owned()));
        } else if kind.is_dir() {
            model.insert(path.clone(), Node::Directory);
            observe(root, &path, model);
        } else {
            model.insert(path, Node::File(fs::read(entry.path()).unwrap()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn operations_do_what_the_model_does_and_nothing_outside(
        operations in prop::collection::vec(operation(), 1..40),
        way in 0_usize..2,
    ) {
        let world = tempfile::tempdir().unwrap();
        let (base, outside) = (world.path().join("base"), world.path().join("outside"));
        fs::create_dir(&base).unwrap();
        fs::create_dir_all(outside.join("b")).unwrap();
        fs::write(outside.join("a"), "precious").unwrap();
        let dir = &handles(&base)[way];
        let mut model = Model::new();
        for operation in &operations {
            let expected = expect(&mut model, operation);
            let done = apply(dir, operation);
            prop_assert_eq!(done.as_ref().ok(), expected.as_ref(), "{:?}: {:?}", operation, done);
        }
        let (mut found, mut untouched) = (Model::new(), Model::new());
        observe(&base, "", &mut found);
        observe(&outside, "", &mut untouched);
        prop_assert_eq!(found, model);
        let precious = Node::File(b"precious".to_vec());
        prop_assert_eq!(untouched, [("a".to_owned(), precious), ("b".to_owned(), Node::Directory)].into());
    }
}
