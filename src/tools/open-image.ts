/** Opening files of an image, for commands: `openDisk`, and looks at headers alone. */
import { ImageError } from '../errors.js';
import { type OpenedImage, openImage, type OpenPolicy } from '../image/open.js';
import { type ImageSpec, specOf } from '../image/spec.js';

/** Opens an image and its chain. Nothing stays open where it throws: errors as of `openDisk`. */
export function openDescription(image: string | ImageSpec, policy: OpenPolicy): OpenedImage {
  const spec = specOf(image);
  try {
    return openImage(spec, spec.forceShare === true ? { ...policy, lock: undefined } : policy);
  } catch (error) {
    if (!(error instanceof ImageError) || error.context.operation !== 'open') throw error;
    const start = `Could not open '${spec.filename}': `;
    // As QEMU's tools do: they name the image, and the file's own error names the file.
    if (error.message.startsWith(start) && spec.path !== spec.filename) throw error;
    if (error.context.path !== spec.path) throw error;
    throw new ImageError(error.kind, error.code, start + error.message, error.context, error);
  }
}
