/** Looks whether each grain lies in its file. The first that does not ends the check, as an error. */
import { type ErrnoName, ERRNO, ImageError, isExpected } from '../../errors.js';
import { type CheckResult, NOTHING_FOUND, type ReportFormat } from '../check-result.js';
import { EXTENT, Extent, SECTOR_SIZE } from '../extent.js';
import type { FormatSource } from '../format.js';
import { strerror } from '../../sys/libc.js';
import { extentMapping } from './mapping.js';
import type { VmdkLayout } from './layout.js';

export function checkVmdk(
  { extents }: VmdkLayout,
  source: FormatSource,
  report: ReportFormat,
): CheckResult {
  const found = new Extent();
  let start = 0;
  for (const extent of extents) {
    const { size } = extent.body;
    const grain = extent.body.kind === 'flat' ? size : extent.body.grainSize;
    const mapping = extentMapping(extent, source);
    const file = mapping.storage.size();
    const wrong = (offset: number, kind: 'grain-unknown' | 'grain-outside'): ImageError => {
      report({ kind, sector: (start + offset) / SECTOR_SIZE });
      return checkEnded(kind === 'grain-unknown' ? 'EPERM' : 'EINVAL');
    };
    for (let offset = 0; offset < size; offset += found.length) {
      try {
        mapping.map(offset, size - offset, found);
      } catch (error) {
        if (!isExpected(error)) throw error;
        throw wrong(offset, 'grain-unknown');
      }
      if (found.kind === EXTENT.COMPRESSED) {
        if (found.hostOffset >= file) throw wrong(offset, 'grain-outside');
      } else if (found.kind === EXTENT.DATA) {
        // The first grain of the run that begins behind the end.
        const inside = Math.max(0, file - found.hostOffset);
        const first = Math.ceil(inside / grain) * grain;
        if (first < found.length) throw wrong(offset + first, 'grain-outside');
        if (extent.body.kind === 'flat') break;
      }
    }
    start += size;
  }
  return NOTHING_FOUND;
}

function checkEnded(code: ErrnoName): ImageError {
  return new ImageError('corrupt', code, strerror(ERRNO[code]), { operation: 'check' });
}
