//! Archives of files that come out of a sandbox, or that a person puts into one.

use std::io::Read;
use std::path::Component;

use sandbox::archive::{Bounds, Entry, Listed, Other, Reader, What, Writer};

pub(crate) const BLOCK: usize = 512;
const BOUNDS: Bounds = Bounds {
    entries: 64,
    file_bytes: 16 << 10,
    total_bytes: 32 << 10,
    path_bytes: 300,
    depth: 8,
};

/// An archive means the same in any pieces and when it is written again; what is handed out of it lies
/// below one place and within bounds, and a listing has no contents.
pub fn archive(bytes: &[u8]) {
    for bytes in [bytes.to_vec(), summed(bytes)] {
        let all = read(&bytes[..]);
        for piece in [1, 7, 600] {
            assert_eq!(read(Pieces(&bytes, piece)), all);
        }
        all.iter()
            .for_each(|(entry, content)| holds(entry, content));
        let total: usize = all.iter().map(|(_, content)| content.len()).sum();
        assert!(all.len() <= 64 && total <= 32 << 10);
        is_the_same_again(&all);
        let mut listing = Reader::new(&bytes[..], BOUNDS);
        while let Ok(Some(Listed { entry, .. })) = listing.next_listed() {
            holds_of_a_path(&entry);
        }
    }
}

/// With the sum that each block would have as a header: else few changes come further than that.
pub(crate) fn summed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(BLOCK) {
        if block[257..262] == *b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    bytes
}

fn read(from: impl Read) -> Vec<(Entry, Vec<u8>)> {
    let mut reader = Reader::new(from, BOUNDS);
    let mut all = Vec::new();
    while let Ok(Some(entry)) = reader.next_entry() {
        let mut content = Vec::new();
        if reader.read_to_end(&mut content).is_err() {
            break;
        }
        all.push((entry, content));
    }
    all
}

fn holds(entry: &Entry, content: &[u8]) {
    holds_of_a_path(entry);
    let len = match &entry.what {
        What::File { len, .. } => *len,
        What::Link { target } => {
            let target = target.as_os_str().as_encoded_bytes();
            assert!(!target.is_empty() && target.len() <= 300 && !target.contains(&0));
            0
        }
        What::Directory | What::Other(_) => 0,
    };
    assert_eq!(u64::try_from(content.len()), Ok(len));
}

fn holds_of_a_path(entry: &Entry) {
    let bytes = entry.path.as_os_str().as_encoded_bytes();
    assert!(bytes.len() <= 300 && !bytes.contains(&0));
    let parts: Vec<Component<'_>> = entry.path.components().collect();
    assert!(parts.len() <= 8);
    let ordinary = |part: &Component<'_>| matches!(part, Component::Normal(_));
    assert!(parts.iter().all(ordinary));
    assert!(!parts.is_empty() || entry.what == What::Directory);
}

fn is_the_same_again(all: &[(Entry, Vec<u8>)]) {
    let mut writer = Writer::new(Vec::new());
    let mut carried = Vec::new();
    for (entry, content) in all {
        let written = writer.entry(entry, &mut content.as_slice());
        match entry.what {
            What::Other(Other::Device | Other::Pipe | Other::Socket) => assert!(written.is_err()),
            _ => {
                written.unwrap();
                carried.push((entry.clone(), content.clone()));
            }
        }
    }
    assert_eq!(read(&writer.finish().unwrap()[..]), carried);
}

/// Never more than so many bytes at once.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(self.1);
        self.0.read(&mut buffer[..most])
    }
}
