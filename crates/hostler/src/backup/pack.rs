//! Lays an archive out: pieces of bytes and files in their order, so that whoever sends it needs no more memory than
//! one piece. Files are hashed before anything is sent, because the manifest comes first.

use std::fs::File;
use std::io::{self, Read, Seek as _};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use super::manifest::{MANIFEST, Manifest, Part};

/// A tar is made of blocks of this length.
const BLOCK: usize = 512;
/// Bytes that are hashed at a time.
const PIECE: usize = 128 << 10;

/// One file on its way into an archive.
pub(crate) struct Source {
    pub(crate) part: Part,
    pub(crate) file: File,
}

/// A stretch of an archive.
#[derive(Debug)]
pub(crate) enum Stretch {
    Bytes(Bytes),
    /// So many bytes of a file, from where it stands.
    File(File, u64),
}

impl Source {
    /// Hashes the file and goes back to its beginning.
    pub(crate) fn new(name: String, mut file: File) -> io::Result<Self> {
        let (bytes, sha256) = hash(&mut file)?;
        file.rewind()?;
        let part = Part {
            name,
            bytes,
            sha256,
        };
        Ok(Self { part, file })
    }
}

/// The whole archive. The manifest's files are those of `sources`.
pub(crate) fn lay_out(mut manifest: Manifest, sources: Vec<Source>) -> io::Result<Vec<Stretch>> {
    manifest.files = sources.iter().map(|source| source.part.clone()).collect();
    let text = serde_json::to_vec_pretty(&manifest)?;
    let length = text.len() as u64;
    let mut stretches = vec![
        Stretch::Bytes(header(MANIFEST, length)?),
        Stretch::Bytes(text.into()),
        Stretch::Bytes(padding(length)),
    ];
    for Source { part, file } in sources {
        stretches.push(Stretch::Bytes(header(&part.name, part.bytes)?));
        stretches.push(Stretch::File(file, part.bytes));
        stretches.push(Stretch::Bytes(padding(part.bytes)));
    }
    // Two empty blocks end an archive.
    stretches.push(Stretch::Bytes(Bytes::from_static(&[0; 1024])));
    Ok(stretches)
}

/// Length and SHA-256 of what is left to read.
pub(super) fn hash(reader: &mut impl Read) -> io::Result<(u64, String)> {
    let mut digest = Sha256::new();
    let mut piece = vec![0; PIECE];
    let mut length = 0;
    loop {
        match reader.read(&mut piece)? {
            0 => return Ok((length, hexadecimal(&digest.finalize()))),
            read => {
                digest.update(&piece[..read]);
                length += read as u64;
            }
        }
    }
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn header(name: &str, length: u64) -> io::Result<Bytes> {
    let mut header = Header::new_ustar();
    header.set_path(name)?;
    header.set_size(length);
    header.set_mode(0o600);
    header.set_entry_type(EntryType::Regular);
    header.set_cksum();
    Ok(Bytes::copy_from_slice(header.as_bytes()))
}

fn padding(length: u64) -> Bytes {
    static EMPTY: [u8; BLOCK] = [0; BLOCK];
    // Less than a block.
    let over = usize::try_from(length % BLOCK as u64).unwrap_or(0);
    let missing = if over == 0 { 0 } else { BLOCK - over };
    Bytes::from_static(&EMPTY[..missing])
}
