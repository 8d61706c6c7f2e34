//! Files of another log in the place of ours. A batch does not say whose it is; its index does, and binds the
//! batches to it. So a segment that came with its own index is told from one whose index alone is lost.

use std::sync::Arc;

use varve_vfs::{File, VfsError};

use super::scan::Scanner;
use crate::format::{
    Companion, ENTRY_BYTES, HEADER_BYTES, INDEX_MAGIC, LogIdentity, SegmentHeader, chain_start,
    chain_step, identity_of,
};
use crate::segment::{Kind, Segment, intact_companions};

/// The log, or the other segment of it, that the index file and the batches belong to together. `None` when the
/// index is not intact, or does not fit these batches either: then it is lost and can be derived.
pub(crate) fn owner(
    index: &[u8],
    file: &Arc<dyn File>,
    len: u64,
) -> Result<Option<(LogIdentity, SegmentHeader)>, VfsError> {
    let head = index.get(..HEADER_BYTES);
    let Some(identity) = head.and_then(identity_of) else {
        return Ok(None);
    };
    let Ok(header) = SegmentHeader::decode(INDEX_MAGIC, &identity, index) else {
        return Ok(None);
    };
    let Some((0, first)) = intact_companions(index, header.segment_id).next() else {
        return Ok(None);
    };
    let theirs =
        first.end <= len && first_run(&identity, &header, &first, file, true)? == FirstRun::Fits;
    Ok(theirs.then_some((identity, header)))
}

/// What the first run of a segment is to an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FirstRun {
    Fits,
    /// Good batches that the index does not know.
    Other,
    Damaged,
}

/// Whether the first run of a segment whose index is trusted is the one that the index knows: a whole file
/// that was put in the place of ours, with the same length and offsets, is told by that. A damaged run is still
/// ours: reads refuse it and go on behind it.
pub(crate) fn begins_right(segment: &Segment, len: u64) -> Result<bool, VfsError> {
    let (vfs, mut entry) = (&segment.home.vfs, Vec::new());
    let index = vfs.open_read(&segment.path(Kind::Index))?;
    index.read_into(HEADER_BYTES as u64, ENTRY_BYTES, &mut entry)?;
    let Some(first) = Companion::decode(&entry, segment.id, 0) else {
        return Ok(false);
    };
    let file = vfs.open_read(&segment.path(Kind::Log))?;
    let identity = &segment.home.identity;
    let run = first_run(
        identity,
        &segment.header(),
        &first,
        &file,
        segment.compacted,
    )?;
    Ok(first.end <= len && run != FirstRun::Other)
}

/// Compares the batches up to the end of the first run with the running CRC that its index entry states. With
/// `gaps`, offsets may be missing between them.
fn first_run(
    identity: &LogIdentity,
    header: &SegmentHeader,
    first: &Companion,
    file: &Arc<dyn File>,
    gaps: bool,
) -> Result<FirstRun, VfsError> {
    let mut chain = chain_start(identity, header.segment_id, header.base_offset);
    let mut scanner = Scanner::new(file.clone(), 0, first.end, gaps);
    let mut next = header.base_offset;
    loop {
        let position = scanner.position;
        match scanner.next(next)? {
            Ok(Some(batch)) => {
                chain = chain_step(chain, &batch, position);
                next = batch.next_offset();
            }
            Ok(None) if chain == first.chain => return Ok(FirstRun::Fits),
            Ok(None) => return Ok(FirstRun::Other),
            Err(_) => return Ok(FirstRun::Damaged),
        }
    }
}
