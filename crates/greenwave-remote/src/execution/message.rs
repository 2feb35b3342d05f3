//! The messages that describe an action.

use std::collections::BTreeMap;

use bazel_remote_apis::build::bazel::remote::execution::v2 as proto;
use bazel_remote_apis::google::protobuf;
use bytes::Bytes;
use prost::Message;

use crate::Digest;
use crate::executor::{Action, PATH};
use crate::tree::{Entry, Tree};

/// A directory of a tree that is being encoded.
#[derive(Default)]
struct Node<'t> {
    directories: BTreeMap<&'t str, Node<'t>>,
    entries: BTreeMap<&'t str, &'t Entry>,
}

/// Blobs that an action consists of.
#[derive(Default)]
struct Blobs(BTreeMap<Digest, Bytes>);

impl Blobs {
    fn add(&mut self, blob: Bytes) -> proto::Digest {
        let digest = Digest::of(&blob);
        self.0.insert(digest, blob);
        digest.message()
    }
}

/// Returns the digest of an action, and all blobs that it consists of.
pub(super) fn encode(action: &Action) -> (Digest, Vec<Bytes>) {
    let mut blobs = Blobs::default();
    let root = directory(&nodes(&action.tree), &mut blobs);
    let root = blobs.add(root.encode_to_vec().into());
    let command = blobs.add(command(action).encode_to_vec().into());
    let message = proto::Action {
        command_digest: Some(command),
        input_root_digest: Some(root),
        timeout: Some(duration(action.time_limit)),
        do_not_cache: !action.is_cacheable,
        salt: action.salt.to_vec(),
        platform: Some(platform(action)),
    };
    let message = Bytes::from(message.encode_to_vec());
    let digest = Digest::of(&message);
    blobs.add(message);
    (digest, blobs.0.into_values().collect())
}

/// Returns the entries of a tree by directory. The protocol wants names in order.
fn nodes(tree: &Tree) -> Node<'_> {
    let mut root = Node::default();
    for (path, entry) in tree.iter() {
        let mut node = &mut root;
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        for directory in above.split('/').filter(|directory| !directory.is_empty()) {
            node = node.directories.entry(directory).or_default();
        }
        match entry {
            Entry::Directory => {
                node.directories.entry(name).or_default();
            }
            _ => {
                node.entries.insert(name, entry);
            }
        }
    }
    root
}

/// Encodes a directory, and adds the blobs below it. The depth is that of a checked path.
fn directory(node: &Node<'_>, blobs: &mut Blobs) -> proto::Directory {
    let mut message = proto::Directory::default();
    for (name, below) in &node.directories {
        let below = directory(below, blobs);
        let digest = Some(blobs.add(below.encode_to_vec().into()));
        message.directories.push(proto::DirectoryNode { name: (*name).to_owned(), digest });
    }
    for (name, entry) in &node.entries {
        let name = (*name).to_owned();
        match entry {
            Entry::File { content, is_executable } => message.files.push(proto::FileNode {
                name,
                digest: Some(blobs.add(content.clone())),
                is_executable: *is_executable,
                ..proto::FileNode::default()
            }),
            Entry::Link(target) => {
                let target = target.clone();
                message.symlinks.push(proto::SymlinkNode { name, target, ..proto::SymlinkNode::default() });
            }
            Entry::Directory => {}
        }
    }
    message
}

#[expect(deprecated, reason = "servers before version 2.2 read the platform of the command")]
fn command(action: &Action) -> proto::Command {
    let mut variables = action.variables.clone();
    variables.entry("PATH".to_owned()).or_insert_with(|| PATH.to_owned());
    let variable = |(name, value)| proto::command::EnvironmentVariable { name, value };
    let mut output_paths = action.outputs.clone();
    output_paths.sort_unstable();
    output_paths.dedup();
    proto::Command {
        arguments: action.command.clone(),
        environment_variables: variables.into_iter().map(variable).collect(),
        output_paths,
        working_directory: action.directory.clone(),
        platform: Some(platform(action)),
        ..proto::Command::default()
    }
}

fn platform(action: &Action) -> proto::Platform {
    let property = |(name, value): (&String, &String)| proto::platform::Property {
        name: name.clone(),
        value: value.clone(),
    };
    proto::Platform { properties: action.platform.iter().map(property).collect() }
}

fn duration(limit: std::time::Duration) -> protobuf::Duration {
    let seconds = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
    protobuf::Duration { seconds, nanos: i32::try_from(limit.subsec_nanos()).unwrap_or(0) }
}
