//! Turns metadata into the crc32c checksums of the `metadata_csum` feature.

/// crc32c without the final inversion, as ext4 chains it: the standard function inverts on the way in and out.
pub(super) fn crc(seed: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!seed, bytes)
}

/// The seed of every checksum of one filesystem: over its UUID.
pub(super) fn filesystem_seed(uuid: &[u8; 16]) -> u32 {
    crc(!0, uuid)
}

/// The seed of an inode's own checksum, and of its extent and directory blocks. Generations are always 0 here.
pub(super) fn inode_seed(filesystem: u32, number: u32) -> u32 {
    crc(crc(filesystem, &number.to_le_bytes()), &[0; 4])
}
