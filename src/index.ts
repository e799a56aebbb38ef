/** The library: `import { openImage } from 'qcow2fs'`. What is exported here, and nothing else, is promised. */
export { checkImage } from './lib/check.js';
export { ImageError, SysError } from './lib/errors.js';
export { openImage } from './lib/image.js';
export type {
  CheckOptions,
  CheckResult,
  Disk,
  Extent,
  Image,
  ImageInfo,
  OpenOptions,
  Snapshot,
} from './lib/types.js';
