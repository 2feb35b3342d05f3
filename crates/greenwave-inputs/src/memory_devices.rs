//! Finds out which devices are file systems in memory.
//!
//! On these, a page that a program has mapped and read is writable at once, so a write to it
//! changes neither the modification time nor the status change time of the file.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;

use parking_lot::RwLock;

/// The file systems that are mounted (`proc_pid_mountinfo(5)`).
const MOUNTS: &str = "/proc/self/mountinfo";

/// Types of file systems in memory. `rootfs` is the first root of a machine that boots from memory.
const IN_MEMORY: [&str; 5] = ["tmpfs", "ramfs", "rootfs", "devtmpfs", "hugetlbfs"];

/// Options of an overlay that name directories with its files.
const LAYERS: [&str; 3] = ["upperdir", "lowerdir", "lowerdir+"];

/// For each device, whether it is a file system in memory. A device that is unmounted can lend its
/// number to another, but not while this process has files on it.
static DEVICES: RwLock<Option<Devices>> = RwLock::new(None);

type Devices = HashMap<u64, bool>;

/// Returns whether a device is a file system in memory. A device that the kernel does not list
/// counts as a disk: a subvolume of btrfs has such a device.
pub(crate) fn is_in_memory(device: u64) -> bool {
    let known = DEVICES.read().as_ref().and_then(|devices| devices.get(&device).copied());
    known.unwrap_or_else(|| {
        let mounts = std::fs::read_to_string(MOUNTS).unwrap_or_default();
        let mut devices = DEVICES.write();
        let devices = devices.get_or_insert_default();
        add(devices, &mounts);
        *devices.entry(device).or_insert(false)
    })
}

/// Adds the devices of all mounts. An overlay is in memory if one of its layers is.
fn add(devices: &mut Devices, mounts: &str) {
    let (overlays, others): (Vec<_>, Vec<_>) =
        mounts.lines().filter_map(Mount::parse).partition(|mount| mount.kind == "overlay");
    devices.extend(others.iter().map(|mount| (mount.device, IN_MEMORY.contains(&mount.kind))));
    for overlay in overlays {
        let is_in_memory = overlay.layers().any(|layer| {
            let layer = std::fs::metadata(layer);
            layer.is_ok_and(|layer| devices.get(&layer.dev()).copied().unwrap_or(false))
        });
        devices.insert(overlay.device, is_in_memory);
    }
}

/// A mounted file system.
#[derive(Debug, PartialEq, Eq)]
struct Mount<'m> {
    device: u64,
    kind: &'m str,
    options: &'m str,
}

impl<'m> Mount<'m> {
    fn parse(line: &'m str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let (major, minor) = mount.split(' ').nth(2)?.split_once(':')?;
        let mut words = file_system.split(' ');
        let (kind, options) = (words.next()?, words.nth(1)?);
        Some(Self { device: device(major.parse().ok()?, minor.parse().ok()?), kind, options })
    }

    /// Returns the directories with the files of an overlay. The mounter may have seen them at
    /// other paths.
    fn layers(&self) -> impl Iterator<Item = &'m str> {
        let options = self.options.split(',').filter_map(|option| option.split_once('='));
        options.filter(|(name, _)| LAYERS.contains(name)).flat_map(|(_, paths)| paths.split(':'))
    }
}

/// Returns the device with these numbers, as `stat` returns it on Linux (`makedev(3)`).
fn device(major: u64, minor: u64) -> u64 {
    (major & 0xffff_f000) << 32 | (minor & 0xffff_ff00) << 12 | (major & 0xfff) << 8 | minor & 0xff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_parsed() {
        let parse = |line| Mount::parse(line).map(|mount| (mount.device, mount.kind));
        let tmpfs = "36 35 0:27 /a /mnt\\0402 rw,noatime master:1 - tmpfs tmpfs rw,size=1k";
        assert_eq!(parse(tmpfs), Some((27, "tmpfs")));
        let disk = "36 35 98:300 / / rw - ext4 /dev/root rw";
        assert_eq!(parse(disk), Some((0x10_622c, "ext4")));
        assert_eq!(parse("36 35 98 / / rw - ext4 /dev/root rw"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn overlays_are_where_their_layers_are() {
        let directory = tempfile::tempdir().unwrap();
        let layer = directory.path().display();
        let dev = std::fs::metadata(directory.path()).unwrap().dev();
        let mounts = format!(
            "1 1 0:9 / /a rw - overlay overlay rw,lowerdir=/missing:{layer},upperdir=/missing\n\
             1 1 0:8 / /b rw - overlay overlay rw,lowerdir=/missing,workdir={layer}\n"
        );
        for in_memory in [true, false] {
            let mut devices = Devices::from([(dev, in_memory)]);
            add(&mut devices, &mounts);
            assert_eq!((devices[&9], devices[&8]), (in_memory, false));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn devices_are_those_of_stat() {
        let device = |path: &str| std::fs::metadata(path).unwrap().dev();
        assert!(is_in_memory(device("/dev/shm")));
        assert!(!is_in_memory(device("/proc")));
        assert!(!is_in_memory(u64::MAX));
    }
}
