/**
 * Where a zstd frame ends (RFC 8878, section 3.1.1): the library wants exactly one frame, and behind
 * a cluster's lie other bytes of its last sector.
 */

import { TWO_32 } from '../../codec/bits.js';

const MAGIC = 0xfd2fb528;
const DICTIONARY_ID_SIZES = [0, 1, 2, 4] as const;
const CONTENT_SIZE_SIZES = [0, 2, 4, 8] as const;
const RLE_BLOCK = 1;

export interface ZstdFrame {
  /** Bytes of the frame. */
  readonly length: number;
  /** Bytes that it holds, undefined where it does not say. */
  readonly contentSize: number | undefined;
  readonly blocks: number;
}

/** Measures the frame that begins at the first of `bytes`. Throws where it is cut or none. */
export function zstdFrame(bytes: Uint8Array): ZstdFrame {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 6 || view.getUint32(0, true) !== MAGIC) throw new Error('no zstd frame');
  const descriptor = view.getUint8(4);
  const singleSegment = (descriptor & 0x20) !== 0;
  const checksum = (descriptor & 0x04) !== 0;
  const contentFlag = descriptor >> 6;
  let at = 5 + (singleSegment ? 0 : 1) + DICTIONARY_ID_SIZES[(descriptor & 3) as 0]!;
  const contentBytes =
    contentFlag === 0 && singleSegment ? 1 : CONTENT_SIZE_SIZES[contentFlag as 0]!;
  const contentSize = readContentSize(view, at, contentBytes);
  at += contentBytes;
  let blocks = 0;
  for (let last = false; !last; blocks++) {
    const header = view.getUint16(at, true) | (view.getUint8(at + 2) << 16);
    last = (header & 1) === 1;
    at += 3 + (((header >> 1) & 3) === RLE_BLOCK ? 1 : header >> 3);
  }
  if (checksum) at += 4;
  if (at > bytes.length) throw new Error('zstd frame is cut short');
  return { length: at, contentSize, blocks };
}

function readContentSize(view: DataView, at: number, size: number): number | undefined {
  switch (size) {
    case 1:
      return view.getUint8(at);
    case 2:
      // The format's own offset: sizes below 256 take one byte.
      return view.getUint16(at, true) + 256;
    case 4:
      return view.getUint32(at, true);
    case 8:
      return view.getUint32(at, true) + view.getUint32(at + 4, true) * TWO_32;
    default:
      return undefined;
  }
}
