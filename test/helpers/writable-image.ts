/** An image that is open for writing on a storage that tells what is done, and fails when told to. */
import { AttachedImage } from '#src/image/attach.js';
import { allocateImageMemory, type ImageMemory } from '#src/image/memory.js';
import { DEFAULT_WRITE_OPTIONS, type WriteOptions } from '#src/image/write-options.js';
import { closeImage, openImage } from '#src/image/open.js';
import type { ImageWriter } from '#src/image/writer.js';
import { FailingStorage } from './failing-storage.js';

export interface WritableImage {
  readonly image: AttachedImage;
  readonly writer: ImageWriter;
  readonly storage: FailingStorage;
  /** Its data file, where it has one. */
  readonly dataStorage: FailingStorage | null;
  readonly memory: ImageMemory;
  /** Another thread's use of the same image, by its number from 2. */
  attach(owner: number): AttachedImage;
}

/** Opens the image for `use`, and closes it whatever comes of that; nothing is flushed. */
export function withWritable(
  path: string,
  use: (opened: WritableImage) => void,
  write: Partial<WriteOptions> = {},
  format = 'qcow2',
): void {
  const { description } = openImage(path, { writable: true, lock: 'write', format });
  try {
    const storage = new FailingStorage(description.layers[0].file.fd, path);
    const options = {
      cacheSize: 256 << 10,
      owners: 3,
      write: { ...DEFAULT_WRITE_OPTIONS, ...write },
    };
    const memory = allocateImageMemory(description, options);
    const [top] = description.layers;
    const data = top.format === 'qcow2' ? top.dataFile : null;
    const dataStorage = data === null ? null : new FailingStorage(data.fd, data.path);
    const instead = dataStorage === null ? { storage } : { storage, dataStorage };
    const attach = (owner: number) => new AttachedImage(description, memory, owner, instead);
    const image = attach(1);
    use({ image, writer: image.writer!, storage, dataStorage, memory, attach });
  } finally {
    closeImage(description);
  }
}
