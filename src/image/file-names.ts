/** Names that an image has for other files, as QEMU takes them. */
import { sep } from 'node:path';
import { ImageError } from '../errors.js';

/** The protocol that a name begins with: what stands before a colon that comes before any slash. */
export function protocolOf(name: string): string | undefined {
  return /^([^/:]*):/.exec(name)?.[1];
}

/**
 * A file's name seen from the working directory. As QEMU puts it together: nothing is normalized
 * (behind a link, `..` leads elsewhere), and names of a protocol stay as they are.
 */
export function fullName(overlay: string, name: string): string {
  if (name.startsWith('/') || protocolOf(name) !== undefined) return name;
  return overlay.slice(0, overlay.lastIndexOf('/') + 1) + name;
}

/**
 * The path of a file that holds a part of the disk of the image at `image`: QEMU puts the image's folder before
 * the name as it is. Throws where that is none of the host's.
 */
export function extentPath(image: string, name: string): string {
  const folder = image.slice(0, image.lastIndexOf('/') + 1);
  return resolveName('', name.startsWith('/') ? name : folder + name);
}

/** The path of a file that the image at `overlay` names. Throws where it is none of the host's. */
export function resolveName(overlay: string, name: string): string {
  if (name.includes('\0')) {
    throw new ImageError('invalid', 'EINVAL', 'the name of its backing or data file holds a NUL');
  }
  const protocol = protocolOf(name);
  if (protocol !== undefined && protocol !== 'file') {
    throw new ImageError('unsupported', 'ENOTSUP', `it refers to '${name}'`, {
      limit: `protocol '${protocol}:' is not supported, only files are`,
    });
  }
  return fullName(overlay, protocol === undefined ? name : name.slice('file:'.length));
}

/** Whether a path lies in a folder; both without links. */
export function isInside(path: string, folder: string): boolean {
  return path.startsWith(folder.endsWith(sep) ? folder : `${folder}${sep}`);
}
