//! Seals the state that a project's directory holds, so that state which somebody else has put
//! there is recognized.
//!
//! A project may be a clone: everything in it, state included, may have been made by somebody else.
//! State is therefore followed by a *seal*, a keyed BLAKE3 hash. Its key derives from a secret of
//! the user ([`UserKey`]) and from the path, device and inode of the project, so a seal of another
//! user, of another project or of a copy of this one does not verify.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use greenwave_dir::{Access, Dir, read_regular, refused};

use crate::Error;
use crate::codec::{path_bytes, replace_file};

/// Number of bytes of a key and of a seal.
const BYTES: usize = 32;
/// Name of the file that holds the key.
const FILE: &str = "key";
/// Name of the file that holds the key that signs results.
const SIGNING_FILE: &str = "signing";
/// Permissions that others must not have on the key or its directory.
const OTHERS: u32 = 0o077;
/// Maximum size of a sealed file, in bytes. The stat cache of a million files has about 100 MB.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Number of tries to create the key while other processes replace it.
const TRIES_MAX: u32 = 8;

/// A secret of the user, from which the keys of all seals derive. Omitted from `Debug` output.
#[derive(Clone, PartialEq, Eq)]
pub struct UserKey([u8; BYTES]);

impl UserKey {
    /// Creates a key from bytes that nobody else can guess.
    #[must_use]
    pub fn new(secret: [u8; BYTES]) -> Self {
        Self(secret)
    }

    /// Creates a random key, which is not stored: what it seals is absent for the next process.
    ///
    /// # Errors
    /// Fails if the system provides no random bytes.
    pub fn random() -> io::Result<Self> {
        let mut secret = [0; BYTES];
        File::open("/dev/urandom")?.read_exact(&mut secret)?;
        Ok(Self(secret))
    }

    /// Reads the key in a directory. Creates a missing directory with mode 0700 and a missing key
    /// with mode 0600. If several processes create it at once, all get the same key.
    ///
    /// A key that is damaged, or that another user may have read or written, is replaced.
    ///
    /// # Errors
    /// Fails if another user owns the directory or may write to it, and if the key cannot be
    /// created.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let directory = own_directory(directory)?;
        for _ in 0..TRIES_MAX {
            match read_key(&directory, FILE) {
                Ok(key) => return Ok(key),
                Err(error) if error.kind() == io::ErrorKind::NotFound => create_key(&directory, FILE)?,
                // A process that replaces the key at this moment may lose its new one. What it
                // seals is then absent later.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => remove_key(&directory, FILE)?,
                Err(error) => return Err(error),
            }
        }
        read_key(&directory, FILE)
    }

    /// Returns the bytes of the key that signs results, which is in the same directory. Returns
    /// `None` if it was not created.
    ///
    /// # Errors
    /// Fails with `InvalidData` if the key is damaged, or if another user may have read or written
    /// it: those who trust it must learn of a new one.
    pub fn signing(directory: &Path) -> io::Result<Option<[u8; BYTES]>> {
        let opened = Dir::open(directory).and_then(|directory| read_key(&directory, SIGNING_FILE));
        match opened {
            Ok(key) => Ok(Some(key.0)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates the key that signs results, or replaces it if `replace` is set. Otherwise an
    /// existing key stays. Returns its bytes.
    ///
    /// # Errors
    /// The errors of [`open`](Self::open) and [`signing`](Self::signing).
    pub fn create_signing(directory: &Path, replace: bool) -> io::Result<[u8; BYTES]> {
        let directory = own_directory(directory)?;
        if replace {
            remove_key(&directory, SIGNING_FILE)?;
        }
        create_key(&directory, SIGNING_FILE)?;
        Ok(read_key(&directory, SIGNING_FILE)?.0)
    }

    /// Derives a key for a purpose: a text that no other use of the key has.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> [u8; BYTES] {
        blake3::derive_key(purpose, &self.0)
    }

    /// Returns the seal of the project in a directory.
    ///
    /// # Errors
    /// Fails if the directory does not exist.
    pub fn for_project(&self, project: &Path) -> io::Result<StateSeal> {
        let project = project.canonicalize()?;
        let metadata = fs::metadata(&project)?;
        let key = self.derive("greenwave 2026-11 state of a project");
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(&metadata.dev().to_le_bytes()).update(&metadata.ino().to_le_bytes());
        hasher.update(path_bytes(&project));
        Ok(StateSeal(*hasher.finalize().as_bytes()))
    }

    /// Returns a seal that is not bound to a project, for a purpose: a text that no other use of
    /// the key has.
    #[must_use]
    pub fn for_purpose(&self, purpose: &str) -> StateSeal {
        StateSeal(self.derive(purpose))
    }
}

impl fmt::Debug for UserKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("UserKey")
    }
}

/// Opens the directory of keys, which is created if it is missing.
fn own_directory(directory: &Path) -> io::Result<Dir> {
    let (above, name) = (directory.parent().unwrap_or(directory), directory.file_name());
    let above = Dir::create(above, 0o700)?;
    let directory = above.create_subdirectory(name.unwrap_or_default(), 0o700)?;
    let metadata = directory.metadata("")?;
    let is_own = metadata.owner() == rustix::process::geteuid().as_raw();
    if !is_own || metadata.permissions() & 0o022 != 0 {
        return Err(io::Error::other("the directory is not this user's alone"));
    }
    Ok(directory)
}

fn remove_key(directory: &Dir, name: &str) -> io::Result<()> {
    match directory.remove_file(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Reads a key. Fails with `InvalidData` if it has to be replaced.
fn read_key(directory: &Dir, name: &str) -> io::Result<UserKey> {
    let file = match directory.open_file(name, Access::Read, 0) {
        Err(error) if refused(&error).is_some() => return Err(io::ErrorKind::InvalidData.into()),
        opened => opened?,
    };
    let metadata = file.metadata()?;
    let is_own = metadata.is_file() && metadata.uid() == rustix::process::geteuid().as_raw();
    let mut secret = Vec::new();
    if is_own && metadata.mode() & OTHERS == 0 {
        file.take(BYTES as u64 + 1).read_to_end(&mut secret)?;
    }
    let secret = <[u8; BYTES]>::try_from(secret).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(UserKey(secret))
}

/// Creates a key unless there is one. It appears as a whole.
fn create_key(directory: &Dir, name: &str) -> io::Result<()> {
    let mut file = directory.temporary(".new-", 0o600)?;
    file.write_all(&UserKey::random()?.0)?;
    file.file().sync_all()?;
    match file.place(name) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Seals and verifies the state of one project. Omitted from `Debug` output.
#[derive(Clone, Copy)]
pub struct StateSeal([u8; BYTES]);

impl StateSeal {
    /// Appends a seal of `content` under a name. State under one name does not verify under
    /// another.
    #[must_use]
    pub fn seal(&self, name: &str, mut content: Vec<u8>) -> Vec<u8> {
        let seal = self.hash(name, &content);
        content.extend_from_slice(seal.as_bytes());
        content
    }

    /// Returns the content before the seal. Returns `None` if the seal does not verify.
    #[must_use]
    pub fn unseal<'b>(&self, name: &str, sealed: &'b [u8]) -> Option<&'b [u8]> {
        let (content, seal) = sealed.split_at_checked(sealed.len().checked_sub(BYTES)?)?;
        // `blake3::Hash` compares in constant time.
        (self.hash(name, content) == blake3::Hash::from_bytes(seal.try_into().ok()?)).then_some(content)
    }

    /// Reads a sealed file. Its name is the last component of its path.
    #[must_use]
    pub fn read(&self, file: &Path) -> SealedContent {
        let Ok(mut sealed) = read_regular(file, FILE_BYTES_MAX) else { return SealedContent::Missing };
        match self.unseal(&name_of(file), &sealed).map(<[u8]>::len) {
            Some(length) => {
                sealed.truncate(length);
                SealedContent::Valid(sealed)
            }
            None => SealedContent::Foreign,
        }
    }

    /// Replaces a sealed file atomically, as [`replace_file`] does.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written. The old content remains.
    pub fn replace(&self, file: &Path, content: Vec<u8>) -> Result<(), Error> {
        replace_file(file, &self.seal(&name_of(file), content))
    }

    /// Derives a key that is bound to the project as the seal is, for a purpose: a text that no
    /// other use of the seal has.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> [u8; BYTES] {
        blake3::derive_key(purpose, &self.0)
    }

    fn hash(&self, name: &str, content: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(content).update(name.as_bytes()).update(&(name.len() as u64).to_le_bytes());
        hasher.finalize()
    }
}

impl fmt::Debug for StateSeal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("StateSeal")
    }
}

/// The content of a sealed file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SealedContent {
    /// The file does not exist or cannot be read.
    Missing,
    /// The seal does not verify: the file was made by somebody else, for another project, or is
    /// damaged.
    Foreign,
    /// The content, without the seal.
    Valid(Vec<u8>),
}

impl SealedContent {
    /// Returns the content if the seal verifies.
    #[must_use]
    pub fn valid(self) -> Option<Vec<u8>> {
        match self {
            SealedContent::Valid(content) => Some(content),
            SealedContent::Missing | SealedContent::Foreign => None,
        }
    }
}

fn name_of(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Barrier;

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_seal_holds_for_one_user_project_name_and_content() {
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (directory.path().join("one"), directory.path().join("other"));
        fs::create_dir(&one).unwrap();
        fs::create_dir(&other).unwrap();
        let user = UserKey::new([1; 32]);
        let seal = user.for_project(&one).unwrap();
        let sealed = seal.seal("index", b"content".to_vec());
        assert_eq!(seal.unseal("index", &sealed), Some(&b"content"[..]));
        assert_eq!(seal.unseal("inde", &sealed), None);
        assert_eq!(user.for_project(&other).unwrap().unseal("index", &sealed), None);
        assert_eq!(UserKey::new([2; 32]).for_project(&one).unwrap().unseal("index", &sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(seal.unseal("index", &changed), None, "{at}");
            assert_eq!(seal.unseal("index", &sealed[..at]), None, "{at}");
        }
        // A copy at the same path has another inode.
        fs::rename(&one, directory.path().join("moved")).unwrap();
        fs::create_dir(&one).unwrap();
        assert_eq!(user.for_project(&one).unwrap().unseal("index", &sealed), None);
        assert_eq!(format!("{user:?} {seal:?}"), "UserKey StateSeal");
    }

    #[test]
    fn a_key_is_private_and_lasts() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state/greenwave");
        let key = UserKey::open(&state).unwrap();
        assert_eq!(fs::metadata(&state).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(state.join(FILE)).unwrap().mode() & 0o777, 0o600);
        assert_eq!(UserKey::open(&state).unwrap().0, key.0);
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_key_that_others_may_have_touched_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let path = state.join(FILE);
        let mut keys = vec![UserKey::open(&state).unwrap().0];
        let mut check = |what: &str| {
            let key = UserKey::open(&state).unwrap().0;
            assert!(!keys.contains(&key), "{what}");
            assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o777, 0o600, "{what}");
            keys.push(key);
        };
        set_mode(&path, 0o640);
        check("readable by others");
        fs::write(&path, [7; 31]).unwrap();
        check("too short");
        fs::write(&path, [7; 33]).unwrap();
        check("too long");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        check("a link");
        fs::remove_file(&path).unwrap();
        check("lost");
        set_mode(&state, 0o777);
        assert!(UserKey::open(&state).is_err(), "others may replace the key");
    }

    #[test]
    fn a_key_that_signs_is_made_on_request_and_never_replaced_by_itself() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        assert_eq!(UserKey::signing(&state).unwrap(), None);
        let key = UserKey::create_signing(&state, false).unwrap();
        let path = state.join(SIGNING_FILE);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(UserKey::create_signing(&state, false).unwrap(), key);
        assert_eq!(UserKey::signing(&state).unwrap(), Some(key));
        assert_ne!(UserKey::open(&state).unwrap().0, key);
        let new = UserKey::create_signing(&state, true).unwrap();
        assert_ne!(new, key);
        assert_eq!(UserKey::signing(&state).unwrap(), Some(new));
        // Others could have read it.
        set_mode(&path, 0o644);
        assert_eq!(UserKey::signing(&state).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(UserKey::create_signing(&state, false).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_ne!(UserKey::create_signing(&state, true).unwrap(), new);
    }

    #[test]
    fn processes_that_create_the_key_at_once_get_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let barrier = Barrier::new(8);
        let keys: Vec<[u8; 32]> = std::thread::scope(|scope| {
            let open = || {
                barrier.wait();
                UserKey::open(&state).unwrap().0
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
    }
}
