/** What to name where a command is given a folder, as the mount point of an image is one. */
import { ImageError } from '../errors.js';
import { mountOf } from './snapshot-mount.js';

/** An error that says that an image is a folder (EISDIR), with advice. */
export function adviseOnFolder(error: ImageError): ImageError {
  const { context, kind, code, message } = error;
  if (context.path === undefined) return error;
  // The system itself refuses to open one for writing.
  const writes = message.endsWith('Is a directory');
  const limit = adviceOn(context.path, writes);
  return new ImageError(kind, code, message, { ...context, limit }, error);
}

function adviceOn(path: string, writes: boolean): string {
  const mount = mountOf(path);
  if (mount === undefined) return 'a folder: name an image';
  const { image, writable } = mount;
  if (image === undefined) return 'a mount of many images: name one of these';
  const where = `a mount of '${image}'`;
  if (writes) return `${where}: unmount it, and name that`;
  return writable ? `${where}: name disk.raw in it` : `${where}: name that, or disk.raw in it`;
}
