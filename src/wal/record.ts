/**
 * The frame around every record of the log, used by both the encoder and the decoder: an 8-byte little-endian length
 * field, the walpb.Record, and 0 to 7 zero bytes so that the next length field is 8-byte aligned and can never straddle
 * a disk sector. The lower 56 bits of the length field hold the record's size without padding; if there is padding, the
 * topmost byte is 0x80 plus its size. Source: etcd server/storage/wal/encoder.go
 */

export const RecordType = { metadata: 1, entry: 2, state: 3, crc: 4, snapshot: 5 } as const;

/** Bytes of the length field. */
export const FRAME_BYTES = 8;

/** The unit that a disk writes completely or not at all. */
export const SECTOR_BYTES = 512;

/** 64 MB: etcd's SegmentSizeBytes. */
export const SEGMENT_SIZE_BYTES = 64 * 1000 * 1000;

export function padBytesOf(recordBytes: number): number {
  return -recordBytes & 7;
}
