/** The snapshot that a command is to read instead of the active disk. */
import { ImageError } from '../errors.js';
import type { SnapshotView } from '../image/attach.js';
import type { OpenDisk } from './open-disk.js';

/** What must be true of it; or its id or, where none has that id, its name. */
export interface SnapshotChoice {
  readonly id?: string | undefined;
  readonly name?: string | undefined;
  readonly idOrName?: string | undefined;
}

/** Throws an ImageError, in QEMU's words, where there is none. */
export function chosenSnapshot(image: OpenDisk, choice: SnapshotChoice): SnapshotView {
  const { format } = image.description.layers[0];
  if (format !== 'qcow2') {
    throw failed(
      `Block format '${format}' used by device '' does not support temporarily loading internal snapshots`,
    );
  }
  const { id, name, idOrName } = choice;
  const found =
    idOrName === undefined
      ? image.image.snapshots().find(({ snapshot }) => {
          const wanted = (id ?? snapshot.id) === snapshot.id;
          return wanted && (name ?? snapshot.name) === snapshot.name;
        })
      : image.findSnapshot(idOrName);
  if (found === undefined) throw failed("Can't find snapshot");
  return found;
}

function failed(problem: string): ImageError {
  return new ImageError('missing', 'ENOENT', `Failed to load snapshot: ${problem}`);
}
