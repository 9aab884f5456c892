//! A block device, or a regular file in its place: large aligned reads and writes past the page cache, real zeros.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Seek, SeekFrom},
    ops::Range,
    os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use rustix::{
    fs::{Advice, FallocateFlags, OFlags, fadvise, fallocate},
    io::Errno,
};

use super::{error::MoverError, source::READ};
use crate::contract::FailureReason;

/// What `O_DIRECT` wants of addresses, offsets and lengths, on every disk we know.
const ALIGN: usize = 4096;

/// An open device. Reads and writes bypass the page cache where the kernel lets them.
pub struct BlockFile {
    path: PathBuf,
    plain: File,
    direct: Option<File>,
    bytes: u64,
    pool: Pool,
    flushes: AtomicU64,
}

impl BlockFile {
    /// Opens a device for reading.
    pub fn open(path: &Path) -> Result<Self, MoverError> {
        Self::open_with(path, OpenOptions::new().read(true))
    }

    /// Opens a device for writing; a regular file that is too short becomes as long as is needed.
    pub fn open_for_writing(path: &Path, bytes: u64) -> Result<Self, MoverError> {
        let mut device = Self::open_with(path, OpenOptions::new().read(true).write(true))?;
        if device.bytes < bytes && device.plain.metadata().is_ok_and(|data| data.is_file()) {
            device.plain.set_len(bytes).map_err(|error| device.failed("making it longer", &error))?;
            device.bytes = bytes;
        }
        if device.bytes < bytes {
            let message = format!("{} has {} bytes, the disk needs {bytes}", path.display(), device.bytes);
            return Err(MoverError::terminal(FailureReason::DeviceError, message));
        }
        Ok(device)
    }

    fn open_with(path: &Path, options: &mut OpenOptions) -> Result<Self, MoverError> {
        let refused = |error: io::Error| {
            let message = format!("{} cannot be opened: {error}{}", path.display(), hint(&error));
            MoverError::terminal(FailureReason::DeviceError, message)
        };
        let mut plain = options.open(path).map_err(refused)?;
        let kind = plain.metadata().map_err(refused)?.file_type();
        if !kind.is_block_device() && !kind.is_file() {
            return Err(refused(io::Error::other("it is neither a block device nor a regular file")));
        }
        let bytes = plain.seek(SeekFrom::End(0)).map_err(refused)?;
        let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap_or(0);
        // Not every file system can.
        let direct = options.custom_flags(flags).open(path).ok();
        let (pool, flushes) = (Pool::default(), AtomicU64::new(0));
        Ok(Self { path: path.to_owned(), plain, direct, bytes, pool, flushes })
    }

    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// For messages.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Reads all of a range.
    pub fn read(&self, range: &Range<u64>) -> Result<Bytes, MoverError> {
        let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let mut lent = self.pool.lend(length);
        let buffer = &mut lent.buffer[..length.next_multiple_of(ALIGN)];
        let mut done = 0;
        while done < length {
            let read = self.read_some(buffer, done, range.start + done as u64);
            match read.map_err(|error| self.failed(&format!("reading at {}", range.start), &error))? {
                0 => return Err(self.failed("reading", &ErrorKind::UnexpectedEof.into())),
                // A direct read of the last, padded piece may bring more than was asked for.
                read => done = (done + read).min(length),
            }
        }
        Ok(Bytes::from_owner(lent))
    }

    fn read_some(&self, buffer: &mut [u8], done: usize, at: u64) -> io::Result<usize> {
        if let Some(direct) = &self.direct
            && done.is_multiple_of(ALIGN)
            && at.is_multiple_of(ALIGN as u64)
        {
            match direct.read_at(&mut buffer[done..], at) {
                Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {}
                other => return other,
            }
        }
        let read = self.plain.read_at(&mut buffer[done..], at)?;
        self.forget(at, read);
        Ok(read)
    }

    /// Writes bytes; zeros among them, in whole blocks, are punched. Take care to pass an aligned buffer.
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), MoverError> {
        let failed = |error: io::Error| self.failed(&format!("writing at {at}"), &error);
        if let Some(direct) = &self.direct
            && at.is_multiple_of(ALIGN as u64)
            && bytes.len().is_multiple_of(ALIGN)
            && bytes.as_ptr().addr().is_multiple_of(ALIGN)
        {
            match direct.write_all_at(bytes, at) {
                Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {}
                other => return other.map_err(failed),
            }
        }
        self.plain.write_all_at(bytes, at).map_err(failed)
    }

    /// Makes a range read as zeros: discarded where zeros are sure to come back, else zeroed by the device, else
    /// written. On block devices this is `BLKZEROOUT`, which the kernel offers as `fallocate`, too.
    pub fn zero(&self, range: Range<u64>) -> Result<(), MoverError> {
        let length = range.end.saturating_sub(range.start);
        let ways = [FallocateFlags::PUNCH_HOLE, FallocateFlags::ZERO_RANGE];
        if length == 0 || ways.iter().any(|way| self.fallocate(*way, range.start, length)) {
            return Ok(());
        }
        let zeros = aligned(1 << 20);
        let mut at = range.start;
        while at < range.end {
            let next = (at + zeros.len() as u64).min(range.end);
            self.write(at, &zeros[..usize::try_from(next - at).unwrap_or(zeros.len())])?;
            at = next;
        }
        Ok(())
    }

    fn fallocate(&self, way: FallocateFlags, at: u64, length: u64) -> bool {
        fallocate(&self.plain, way | FallocateFlags::KEEP_SIZE, at, length).is_ok()
    }

    /// Everything that was written is on the device, and no later read of these ranges comes from our cache. One flush,
    /// however many they are: it is of the whole device, and each costs a network disk milliseconds. (`BLKFLSBUF` would
    /// need a capability that movers do not have; `fsync` flushes as much.)
    pub fn settle(&self, ranges: &[Range<u64>]) -> Result<(), MoverError> {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.plain.sync_data().map_err(|error| self.failed("fsync", &error))?;
        for range in ranges {
            self.forget(range.start, usize::try_from(range.end - range.start).unwrap_or(0));
        }
        Ok(())
    }

    /// How often it was flushed.
    pub fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    /// Advice only: nothing depends on it.
    fn forget(&self, at: u64, length: usize) {
        let _ = fadvise(&self.plain, at, std::num::NonZeroU64::new(length as u64), Advice::DontNeed);
    }

    fn failed(&self, what: &str, error: &io::Error) -> MoverError {
        let message = format!("{}: {what} failed: {error}", self.path.display());
        MoverError::retryable(FailureReason::DeviceError, message)
    }
}

/// What to do about a device that its node gives to root alone.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => {
            "; the container runtime gave the device to root and not to the pod's user: set \
             device_ownership_from_security_context = true (containerd: in the CRI plugin's section; CRI-O: in \
             [crio.runtime]) on the nodes and restart it, or set transfer.mode to Image in the OpenStackCloud"
        }
        _ => "",
    }
}

/// How many buffers are kept that nobody uses.
const SPARE: usize = 8;

/// Buffers that were read into, to be read into again: a fresh one costs a page fault for every 4 KiB.
#[derive(Clone, Default)]
struct Pool(Arc<Mutex<Vec<BytesMut>>>);

impl Pool {
    /// A buffer for so many bytes, which comes back when it is dropped. What it holds is of an earlier read.
    fn lend(&self, length: usize) -> Lent {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().filter(|_| length <= READ);
        let buffer = spare.unwrap_or_else(|| aligned(length.max(READ)));
        Lent { buffer, length, pool: self.clone() }
    }
}

/// A buffer of a pool.
struct Lent {
    buffer: BytesMut,
    length: usize,
    pool: Pool,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut spare = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE && self.buffer.len() == READ {
            spare.push(std::mem::take(&mut self.buffer));
        }
    }
}

/// A zeroed buffer whose start suits `O_DIRECT`, its length rounded up.
pub fn aligned(length: usize) -> BytesMut {
    let padded = length.next_multiple_of(ALIGN);
    let mut buffer = BytesMut::zeroed(padded + ALIGN);
    let skip = buffer.as_ptr().align_offset(ALIGN).min(ALIGN);
    let mut buffer = buffer.split_off(skip);
    buffer.truncate(padded);
    buffer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_takes_reads_writes_and_zeros_of_any_size() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        std::fs::write(&path, vec![7_u8; 1000]).unwrap();
        let device = BlockFile::open_for_writing(&path, 300_001).unwrap();
        let mut expected = vec![0_u8; 300_001];
        expected[..1000].fill(7);
        assert_eq!(device.read(&(0..300_001)).unwrap(), expected);
        for (at, length, value) in [(0, 4096, 1), (4096, 65_536, 2), (100_000, 17, 3), (299_990, 11, 4)] {
            let mut bytes = aligned(length);
            bytes.truncate(length);
            bytes.fill(value);
            device.write(at as u64, &bytes).unwrap();
            expected[at..at + length].fill(value);
        }
        device.zero(8192..20_000).unwrap();
        expected[8192..20_000].fill(0);
        device.settle(&[0..8192, 8192..300_001]).unwrap();
        assert_eq!(device.flushes(), 1);
        for range in [0..300_001, 0..1, 4095..4097, 99_999..100_018, 299_989..300_001, 5..5] {
            let (start, end) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
            assert_eq!(device.read(&range).unwrap(), expected[start..end], "{range:?}");
        }
        assert!(device.read(&(300_000..300_002)).is_err());
    }

    #[test]
    fn what_is_no_disk_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert!(BlockFile::open(directory.path()).is_err());
        assert!(BlockFile::open(&directory.path().join("nothing")).is_err());
        assert!(BlockFile::open(Path::new("/dev/null")).is_err());
    }

    #[test]
    fn who_is_refused_a_device_learns_what_to_set() {
        let denied = io::Error::from_raw_os_error(Errno::ACCESS.raw_os_error());
        assert!(hint(&denied).contains("device_ownership_from_security_context = true"));
        assert_eq!(hint(&io::Error::from_raw_os_error(Errno::NOENT.raw_os_error())), "");
    }

    #[test]
    fn buffers_are_used_again_and_keep_nothing_of_an_earlier_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        std::fs::write(&path, [vec![1_u8; 8192], vec![2_u8; 8192]].concat()).unwrap();
        let device = BlockFile::open(&path).unwrap();
        let first = device.read(&(0..8192)).unwrap();
        let place = first.as_ptr();
        // It is not given to another while somebody holds it.
        let held = first.slice(100..200);
        drop(first);
        let second = device.read(&(8192..16_384)).unwrap();
        assert_eq!((held, second.clone()), (Bytes::from(vec![1; 100]), Bytes::from(vec![2; 8192])));
        let third = device.read(&(0..8100)).unwrap();
        assert_eq!((third.as_ptr(), third), (place, Bytes::from(vec![1; 8100])));
        let many: Vec<_> = (0..2 * SPARE).map(|_| device.read(&(0..8192)).unwrap()).collect();
        drop((many, second));
        assert_eq!(device.pool.0.lock().unwrap().len(), SPARE);
    }

    #[test]
    fn buffers_are_aligned() {
        for length in [0, 1, 4096, 5000, 1 << 20] {
            let buffer = aligned(length);
            assert!(
                buffer.as_ptr().addr().is_multiple_of(ALIGN)
                    && buffer.len() == length.next_multiple_of(ALIGN)
            );
        }
    }
}
