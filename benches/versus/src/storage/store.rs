//! Each store at its best settings for source files that are written once and read whole. Knows nothing of timing.
//!
//! All values are compressed with zstd level 1 and contexts that are used again, by the store itself where it can, else before it sees
//! them; that of foyer's own compression is off, since it changed nothing when tried.

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

/// The names of all stores, ours first. The last is no store but a limit.
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
/// Longest file that is put.
const FILE_BYTES_MAX: usize = 128 << 10;

/// What every store can do. Errors end the run: a figure of a store that fails is none.
pub trait Stored {
    /// Puts a group of files, and returns when they are durable.
    fn put(&mut self, first: u64, files: &[Vec<u8>]);
    /// A file's contents.
    fn get(&mut self, number: u64) -> Vec<u8>;
    /// Ends as its makers want it to.
    fn close(self: Box<Self>);
}

/// Opens a store in a folder, which it may find empty. `files` tells those that go by contents what a number means.
///
/// # Panics
/// If there is no store of this name, or it does not open.
pub fn open(name: &str, folder: &Path, files: &[Vec<u8>]) -> Box<dyn Stored> {
    match name {
        "greenwave-segment" => Box::new(Segment::open(folder)),
        "greenwave-storage" => Box::new(Hybrid::open(folder, files)),
        "redb" => Box::new(Redb::open(folder)),
        "fjall" => Box::new(Fjall::open(folder)),
        "foyer" => Box::new(Foyer::open(folder)),
        "cacache" => Box::new(Cacache { folder: folder.to_owned(), zstd: Zstd::new() }),
        "loose files" => Box::new(Loose { folder: folder.to_owned(), zstd: Zstd::new() }),
        "the disk" => Box::new(Bare::open(folder)),
        other => panic!("there is no store {other:?}"),
    }
}

/// zstd level 1, with contexts that are used again.
struct Zstd(Compressor<'static>, Decompressor<'static>);

impl Zstd {
    fn new() -> Self {
        Self(Compressor::new(1).expect("level 1 exists"), Decompressor::new().expect("there is memory"))
    }

    fn pack(&mut self, value: &[u8]) -> Vec<u8> {
        self.0.compress(value).expect("there is memory")
    }

    fn unpack(&mut self, packed: &[u8]) -> Vec<u8> {
        self.1.decompress(packed, FILE_BYTES_MAX).expect("what was packed unpacks")
    }
}

struct Segment(Log);

impl Segment {
    fn open(folder: &Path) -> Self {
        Self(Log::open(folder, greenwave_segment::Options::default()).expect("the log opens"))
    }
}

impl Stored for Segment {
    fn put(&mut self, first: u64, files: &[Vec<u8>]) {
        for (number, file) in (first..).zip(files) {
            self.0.put(&number.to_be_bytes(), file).expect("the log takes a file");
        }
        self.0.flush().expect("the log flushes");
    }

    fn get(&mut self, number: u64) -> Vec<u8> {
        self.0.get(&number.to_be_bytes()).expect("the log reads").expect("the file is there").into()
    }

    fn close(self: Box<Self>) {}
}

/// With a tenth of the files in memory while they are put and none after opening, and without looking for similar ones: none of these files is
/// a version of another.
struct Hybrid {
    runtime: Runtime,
    store: Store,
    ids: Vec<BlobId>,
}

impl Hybrid {
    fn open(folder: &Path, files: &[Vec<u8>]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("tokio starts");
        let options = SegmentOptions { find_similar: false, ..SegmentOptions::default() };
        let cold = SegmentColdTier::open(folder, options).expect("the cold tier opens");
        let options =
            StoreOptions { memory_bytes_max: 10 << 20, promote_after: 1000, ..StoreOptions::default() };
        let store =
            runtime.block_on(async { Store::open(options, Arc::new(cold)) }).expect("the store opens");
        Self { runtime, store, ids: files.iter().map(|file| BlobId::of(file)).collect() }
    }
}

impl Stored for Hybrid {
    fn put(&mut self, first: u64, files: &[Vec<u8>]) {
        self.runtime.block_on(async {
            for (number, file) in (first..).zip(files) {
                let contents = Bytes::copy_from_slice(file);
                self.store.put(&number.to_string(), contents).await.expect("the store takes a file");
            }
            self.store.flush().await.expect("the store flushes");
        });
    }

    fn get(&mut self, number: u64) -> Vec<u8> {
        let found = self.runtime.block_on(self.store.get_blob(&self.ids[number as usize]));
        found.expect("the store reads").expect("the file is there").into()
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
    fn open(folder: &Path) -> Self {
        let database = redb::Database::create(folder.join("redb")).expect("redb opens");
        Self { database, zstd: Zstd::new() }
    }
}

impl Stored for Redb {
    fn put(&mut self, first: u64, files: &[Vec<u8>]) {
        let write = self.database.begin_write().expect("redb begins");
        {
            let mut table = write.open_table(TABLE).expect("redb has a table");
            for (number, file) in (first..).zip(files) {
                table.insert(number, self.zstd.pack(file).as_slice()).expect("redb takes a file");
            }
        }
        write.commit().expect("redb commits");
    }

    fn get(&mut self, number: u64) -> Vec<u8> {
        let read = self.database.begin_read().expect("redb begins");
        let table = read.open_table(TABLE).expect("redb has a table");
        let packed = table.get(number).expect("redb reads").expect("the file is there");
        self.zstd.unpack(packed.value())
    }

    fn close(self: Box<Self>) {}
}

/// With keys and values apart, as its makers advise for values of this size.
struct Fjall {
    database: fjall::Database,
    files: fjall::Keyspace,
    zstd: Zstd,
}

impl Fjall {
    fn open(folder: &Path) -> Self {
        let database = fjall::Database::builder(folder).open().expect("fjall opens");
        let options = || {
            let apart = fjall::KvSeparationOptions::default().compression(fjall::CompressionType::None);
            fjall::KeyspaceCreateOptions::default().with_kv_separation(Some(apart))
        };
        let files = database.keyspace("files", options).expect("fjall has a keyspace");
        Self { database, files, zstd: Zstd::new() }
    }
}

impl Stored for Fjall {
    fn put(&mut self, first: u64, files: &[Vec<u8>]) {
        for (number, file) in (first..).zip(files) {
            self.files.insert(number.to_be_bytes(), self.zstd.pack(file)).expect("fjall takes a file");
        }
        self.database.persist(fjall::PersistMode::SyncData).expect("fjall syncs");
    }

    fn get(&mut self, number: u64) -> Vec<u8> {
        let packed = self.files.get(number.to_be_bytes()).expect("fjall reads").expect("the file is there");
        self.zstd.unpack(&packed)
    }

    fn close(self: Box<Self>) {
        // What is left in its journal would be in memory after opening: no read of that is cold.
        self.files.rotate_memtable_and_wait().expect("fjall moves on");
        self.database.persist(fjall::PersistMode::SyncAll).expect("fjall syncs");
    }
}

/// A cache, which does not sync: it writes on insertion, and closing waits for what is under way.
struct Foyer {
    runtime: Runtime,
    cache: foyer::HybridCache<u64, Vec<u8>>,
    zstd: Zstd,
}

impl Foyer {
    fn open(folder: &Path) -> Self {
        use foyer::{
            BlockEngineConfig, DeviceBuilder, FsDeviceBuilder, HybridCacheBuilder, HybridCachePolicy,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("tokio starts");
        let cache = runtime.block_on(async {
            let device =
                FsDeviceBuilder::new(folder).with_capacity(256 << 20).build().expect("foyer has a device");
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

impl Stored for Foyer {
    fn put(&mut self, first: u64, files: &[Vec<u8>]) {
        for (number, file) in (first..).zip(files) {
            let packed = self.zstd.pack(file);
            self.runtime.block_on(async { drop(self.cache.insert(number, packed)) });
        }
        // Otherwise it drops what its queue cannot hold.
        self.runtime.block_on(self.cache.storage().wait());
    }

    fn get(&mut self, number: u64) -> Vec<u8> {
        let found = self.runtime.block_on(async { self.cache.get(&number).await });
        let entry = found.expect("foyer reads").expect("the file is there");
        self.zstd.unpack(entry.value())
    }

    fn close(self: Box<Self>) {
        self.runtime.block_on(self.cache.close()).expect("foyer closes");
    }
}

/// With its fastest hash. It never syncs.
struct Cacache {
    folder: PathBuf,
    zstd: Zstd,
}

impl Stored for Cacache {
    fn put(&mut self, first: u64, files: &[Vec<u8>]) {
        for (number, file) in (first..).zip(files) {
            let packed = self.zstd.pack(file);
            let hash = cacache::Algorithm::Xxh3;
            cacache::write_sync_with_algo(hash, &self.folder, number.to_string(), packed)
                .expect("cacache takes a file");
        }
    }

    fn get(&mut self, number: u64) -> Vec<u8> {
        let packed = cacache::read_sync(&self.folder, number.to_string()).expect("cacache reads");
        self.zstd.unpack(&packed)
    }

    fn close(self: Box<Self>) {}
}

/// A file each: written beside, synced, renamed. 256 folders.
struct Loose {
    folder: PathBuf,
    zstd: Zstd,
}

impl Loose {
    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{:02x}/{number:016x}", number % 256))
    }
}

impl Stored for Loose {
    fn put(&mut self, first: u64, files: &[Vec<u8>]) {
        for (number, file) in (first..).zip(files) {
            let path = self.path(number);
            fs::create_dir_all(path.parent().expect("a path in a folder")).expect("a folder can be made");
            let beside = path.with_extension("new");
            let mut new = fs::File::create(&beside).expect("a file can be made");
            new.write_all(&self.zstd.pack(file)).expect("and written");
            new.sync_data().expect("and synced");
            fs::rename(beside, path).expect("and renamed");
        }
    }

    fn get(&mut self, number: u64) -> Vec<u8> {
        let packed = fs::read(self.path(number)).expect("a file can be read");
        self.zstd.unpack(&packed)
    }

    fn close(self: Box<Self>) {}
}

/// What any store has to do at least: one file, written and read at known places, nothing checked, nothing recovered.
struct Bare {
    file: fs::File,
    ends: Vec<u64>,
    list: PathBuf,
    zstd: Zstd,
}

impl Bare {
    fn open(folder: &Path) -> Self {
        let mut options = fs::OpenOptions::new();
        let file =
            options.create(true).append(true).read(true).open(folder.join("values")).expect("a file opens");
        let list = folder.join("ends");
        let ends = fs::read(&list).unwrap_or_default();
        let ends = ends.as_chunks::<8>().0.iter().map(|end| u64::from_le_bytes(*end)).collect();
        Self { file, ends, list, zstd: Zstd::new() }
    }
}

impl Stored for Bare {
    fn put(&mut self, _: u64, files: &[Vec<u8>]) {
        for file in files {
            let packed = self.zstd.pack(file);
            self.file.write_all(&packed).expect("a file can be written");
            self.ends.push(self.ends.last().unwrap_or(&0) + packed.len() as u64);
        }
        self.file.sync_data().expect("and synced");
        let ends: Vec<u8> = self.ends.iter().flat_map(|end| end.to_le_bytes()).collect();
        fs::write(&self.list, ends).expect("a file can be written");
    }

    fn get(&mut self, number: u64) -> Vec<u8> {
        let at = number as usize;
        let begin = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        let mut packed = vec![0; (self.ends[at] - begin) as usize];
        std::os::unix::fs::FileExt::read_exact_at(&self.file, &mut packed, begin)
            .expect("a file can be read");
        self.zstd.unpack(&packed)
    }

    fn close(self: Box<Self>) {}
}
