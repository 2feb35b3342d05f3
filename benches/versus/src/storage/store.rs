//! The compared stores, each at its best settings for source files that are written once and read
//! whole.
//!
//! All values are compressed with zstd level 1 and reused contexts: by the store if it can,
//! otherwise by the caller. The compression of foyer is off, since it made no difference when
//! tried.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use greenwave_segment::Log;
use greenwave_storage::{BlobId, SegmentColdTier, SegmentOptions, Store, StoreOptions};
use redb::{ReadableDatabase, TableDefinition};
use tokio::runtime::Runtime;
use zstd::bulk::{Compressor, Decompressor};

/// Names of all stores, those of this workspace first. The last one is a lower bound, not a store.
pub const STORES: [&str; 8] = [
    "greenwave-segment",
    "greenwave-storage",
    "redb",
    "fjall",
    "foyer",
    "cacache",
    "loose files",
    "the disk",
];

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("files");
/// Maximum size of a file, in bytes.
const FILE_BYTES_MAX: usize = 128 << 10;

/// The common interface of the stores. Errors panic, since the figures of a failing store are
/// meaningless.
pub trait BenchStore {
    /// Stores a group of files numbered from `first`, and returns once they are durable.
    fn put(&mut self, first: u64, files: &[Vec<u8>]);
    /// Returns the contents of a file.
    fn get(&mut self, number: u64) -> Vec<u8>;
    /// Closes the store in the way that its documentation recommends.
    fn close(self: Box<Self>);
}

/// Opens a store in a directory, which may be empty. Stores that address contents by hash need
/// `files` to map numbers to hashes.
///
/// # Panics
/// If no store has this name, or it cannot be opened.
pub fn open(name: &str, directory: &Path, files: &[Vec<u8>]) -> Box<dyn BenchStore> {
    match name {
        "greenwave-segment" => Box::new(Segment::open(directory)),
        "greenwave-storage" => Box::new(Hybrid::open(directory, files)),
        "redb" => Box::new(Redb::open(directory)),
        "fjall" => Box::new(Fjall::open(directory)),
        "foyer" => Box::new(Foyer::open(directory)),
        "cacache" => Box::new(Cacache { directory: directory.to_owned(), zstd: Zstd::new() }),
        "loose files" => Box::new(Loose { directory: directory.to_owned(), zstd: Zstd::new() }),
        "the disk" => Box::new(RawFile::open(directory)),
        other => panic!("invalid store {other:?}"),
    }
}

/// zstd level 1 with reused contexts.
struct Zstd(Compressor<'static>, Decompressor<'static>);

impl Zstd {
    fn new() -> Self {
        Self(
            Compressor::new(1).expect("level 1 exists"),
            Decompressor::new().expect("a context can be allocated"),
        )
    }

    fn pack(&mut self, value: &[u8]) -> Vec<u8> {
        self.0.compress(value).expect("the buffer is large enough")
    }

    fn unpack(&mut self, packed: &[u8]) -> Vec<u8> {
        self.1.decompress(packed, FILE_BYTES_MAX).expect("compressed values decompress")
    }
}

struct Segment(Log);

impl Segment {
    fn open(directory: &Path) -> Self {
        Self(Log::open(directory, greenwave_segment::Options::default()).expect("the log opens"))
    }
}

impl BenchStore for Segment {
    fn put(&mut self, first: u64, files: &[Vec<u8>]) {
        for (number, file) in (first..).zip(files) {
            self.0.put(&number.to_be_bytes(), file).expect("the log stores a file");
        }
        self.0.flush().expect("the log flushes");
    }

    fn get(&mut self, number: u64) -> Vec<u8> {
        self.0.get(&number.to_be_bytes()).expect("the log reads").expect("the file is stored").into()
    }

    fn close(self: Box<Self>) {}
}

/// The hybrid store. Memory holds a tenth of the files while they are put, and none after opening.
/// The search for similar contents is off, since no file is a version of another.
struct Hybrid {
    runtime: Runtime,
    store: Store,
    ids: Vec<BlobId>,
}

impl Hybrid {
    fn open(directory: &Path, files: &[Vec<u8>]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("tokio starts");
        let options = SegmentOptions { find_similar: false, ..SegmentOptions::default() };
        let cold = SegmentColdTier::open(directory, options).expect("the cold tier opens");
        let options =
            StoreOptions { memory_bytes_max: 10 << 20, promote_after: 1000, ..StoreOptions::default() };
        let store =
            runtime.block_on(async { Store::open(options, Arc::new(cold)) }).expect("the store opens");
        Self { runtime, store, ids: files.iter().map(|file| BlobId::of(file)).collect() }
    }
}

impl BenchStore for Hybrid {
    fn put(&mut self, first: u64, files: &[Vec<u8>]) {
        self.runtime.block_on(async {
            for (number, file) in (first..).zip(files) {
                let contents = Bytes::copy_from_slice(file);
                self.store.put(&number.to_string(), contents).await.expect("the store stores a file");
            }
            self.store.flush().await.expect("the store flushes");
        });
    }

    fn get(&mut self, number: u64) -> Vec<u8> {
        let found = self.runtime.block_on(self.store.get_blob(&self.ids[number as usize]));
        found.expect("the store reads").expect("the file is stored").into()
    }

    fn close(self: Box<Self>) {
        self.runtime.block_on(self.store.close()).expect("the store closes");
    }
}

struct Redb {
    database: redb::Database,
    zstd: Zstd,
}

impl Redb {
    fn open(directory: &Path) -> Self {
        let database = redb::Database::create(directory.join("redb")).expect("redb opens");
        Self { database, zstd: Zstd::new() }
    }
}

impl BenchStore for Redb {
    fn put(&mut self, first: u64, files: &[Vec<u8>]) {
        let write = self.database.begin_write().expect("redb begins");
        {
            let mut table = write.open_table(TABLE).expect("redb has a table");
            for (number, file) in (first..).zip(files) {
                table.insert(number, self.zstd.pack(file).as_slice()).expect("redb stores a file");
            }
        }
        write.commit().expect("redb commits");
    }

    fn get(&mut self, number: u64) -> Vec<u8> {
        let read = self.database.begin_read().expect("redb begins");
        let table = read.open_table(TABLE).expect("redb has a table");
        let packed = table.get(number).expect("redb reads").expect("the file is stored");
        self.zstd.unpack(packed.value())
    }

    fn close(self: Box<Self>) {}
}

/// fjall with key-value separation, as its documentation recommends for values of this size.
struct Fjall {
    database: fjall::Database,
    files: fjall::Keyspace,
    zstd: Zstd,
}

impl Fjall {
    fn open(directory: &Path) -> Self {
        let database = fjall::Database::builder(directory).open().expect("fjall opens");
        let options = || {
            let separated = fjall::KvSeparationOptions::default().compression(fjall::CompressionType::None);
            fjall::KeyspaceCreateOptions::default().with_kv_separation(Some(separated))
        };
        let files = database.keyspace("files", options).expect("fjall has a keyspace");
        Self { database, files, zstd: Zstd::new() }
    }
}

impl BenchStore for Fjall {
    fn put(&mut self, first: u64, files: &[Vec<u8>]) {
        for (number, file) in (first..).zip(files) {
            self.files.insert(number.to_be_bytes(), self.zstd.pack(file)).expect("fjall stores a file");
        }
        self.database.persist(fjall::PersistMode::SyncData).expect("fjall syncs");
    }

    fn get(&mut self, number: u64) -> Vec<u8> {
        let packed = self.files.get(number.to_be_bytes()).expect("fjall reads").expect("the file is stored");
        self.zstd.unpack(&packed)
    }

    fn close(self: Box<Self>) {
        // Values that remain in the journal would be in memory after opening, and not be read cold.
        self.files.rotate_memtable_and_wait().expect("fjall rotates its memtable");
        self.database.persist(fjall::PersistMode::SyncAll).expect("fjall syncs");
    }
}

/// foyer, a cache, which does not sync. It writes on insertion, and closing waits for pending
/// writes.
struct Foyer {
    runtime: Runtime,
    cache: foyer::HybridCache<u64, Vec<u8>>,
    zstd: Zstd,
}

impl Foyer {
    fn open(directory: &Path) -> Self {
        use foyer::{
            BlockEngineConfig, DeviceBuilder, FsDeviceBuilder, HybridCacheBuilder, HybridCachePolicy,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("tokio starts");
        let cache = runtime.block_on(async {
            let device =
                FsDeviceBuilder::new(directory).with_capacity(256 << 20).build().expect("foyer has a device");
            let builder = HybridCacheBuilder::new()
                .with_policy(HybridCachePolicy::WriteOnInsertion)
                .memory(64 << 10)
                .with_weighter(|_, value: &Vec<u8>| value.len())
                .storage()
                .with_engine_config(BlockEngineConfig::new(device).with_block_size(16 << 20));
            builder.build().await.expect("foyer opens")
        });
        Self { runtime, cache, zstd: Zstd::new() }
    }
}

impl BenchStore for Foyer {
    fn put(&mut self, first: u64, files: &[Vec<u8>]) {
        for (number, file) in (first..).zip(files) {
            let packed = self.zstd.pack(file);
            self.runtime.block_on(async { drop(self.cache.insert(number, packed)) });
        }
        // Without this call, foyer drops writes that do not fit in its queue.
        self.runtime.block_on(self.cache.storage().wait());
    }

    fn get(&mut self, number: u64) -> Vec<u8> {
        let found = self.runtime.block_on(async { self.cache.get(&number).await });
        let entry = found.expect("foyer reads").expect("the file is stored");
        self.zstd.unpack(entry.value())
    }

    fn close(self: Box<Self>) {
        self.runtime.block_on(self.cache.close()).expect("foyer closes");
    }
}

/// cacache with its fastest hash. It never syncs.
struct Cacache {
    directory: PathBuf,
    zstd: Zstd,
}

impl BenchStore for Cacache {
    fn put(&mut self, first: u64, files: &[Vec<u8>]) {
        for (number, file) in (first..).zip(files) {
            let packed = self.zstd.pack(file);
            let hash = cacache::Algorithm::Xxh3;
            cacache::write_sync_with_algo(hash, &self.directory, number.to_string(), packed)
                .expect("cacache stores a file");
        }
    }

    fn get(&mut self, number: u64) -> Vec<u8> {
        let packed = cacache::read_sync(&self.directory, number.to_string()).expect("cacache reads");
        self.zstd.unpack(&packed)
    }

    fn close(self: Box<Self>) {}
}

/// One file per value in 256 directories. Each is written to a temporary file, synced and renamed.
struct Loose {
    directory: PathBuf,
    zstd: Zstd,
}

impl Loose {
    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{:02x}/{number:016x}", number % 256))
    }
}

impl BenchStore for Loose {
    fn put(&mut self, first: u64, files: &[Vec<u8>]) {
        for (number, file) in (first..).zip(files) {
            let path = self.path(number);
            fs::create_dir_all(path.parent().expect("the path has a parent"))
                .expect("a directory can be created");
            let temporary = path.with_extension("new");
            let mut new = fs::File::create(&temporary).expect("a file can be created");
            new.write_all(&self.zstd.pack(file)).expect("the file can be written");
            new.sync_data().expect("the file can be synced");
            fs::rename(temporary, path).expect("the file can be renamed");
        }
    }

    fn get(&mut self, number: u64) -> Vec<u8> {
        let packed = fs::read(self.path(number)).expect("a file can be read");
        self.zstd.unpack(&packed)
    }

    fn close(self: Box<Self>) {}
}

/// A lower bound of any store's work: one file, written and read at given offsets without checks or
/// recovery.
struct RawFile {
    file: fs::File,
    ends: Vec<u64>,
    list: PathBuf,
    zstd: Zstd,
}

impl RawFile {
    fn open(directory: &Path) -> Self {
        let mut options = fs::OpenOptions::new();
        let file = options
            .create(true)
            .append(true)
            .read(true)
            .open(directory.join("values"))
            .expect("a file opens");
        let list = directory.join("ends");
        let ends = fs::read(&list).unwrap_or_default();
        let ends = ends.as_chunks::<8>().0.iter().map(|end| u64::from_le_bytes(*end)).collect();
        Self { file, ends, list, zstd: Zstd::new() }
    }
}

impl BenchStore for RawFile {
    fn put(&mut self, _: u64, files: &[Vec<u8>]) {
        for file in files {
            let packed = self.zstd.pack(file);
            self.file.write_all(&packed).expect("a file can be written");
            self.ends.push(self.ends.last().unwrap_or(&0) + packed.len() as u64);
        }
        self.file.sync_data().expect("the file can be synced");
        let ends: Vec<u8> = self.ends.iter().flat_map(|end| end.to_le_bytes()).collect();
        fs::write(&self.list, ends).expect("a file can be written");
    }

    fn get(&mut self, number: u64) -> Vec<u8> {
        let at = number as usize;
        let begin = at.checked_sub(1).map_or(0, |previous| self.ends[previous]);
        let mut packed = vec![0; (self.ends[at] - begin) as usize];
        std::os::unix::fs::FileExt::read_exact_at(&self.file, &mut packed, begin)
            .expect("a file can be read");
        self.zstd.unpack(&packed)
    }

    fn close(self: Box<Self>) {}
}
