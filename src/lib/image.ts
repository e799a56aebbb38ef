/** An open image, for the library. */
import { ImageError } from '../errors.js';
import type { SnapshotView } from '../image/attach.js';
import { collectInfo } from '../image/info.js';
import { openDisk } from '../tools/open-disk.js';
import { checkRange, chunks, DiskReader, Opened } from './disk.js';
import { checkOpenOptions, imageSpec, openPolicy, writeOptions } from './options.js';
import type { Disk, Image, ImageInfo, OpenOptions, Snapshot } from './types.js';

/**
 * Opens an image and what it names. Rejects with an ImageError: ENOENT, EACCES and others of the system, EAGAIN where
 * another process has locked it, EINVAL where it is no valid image, ENOTSUP of a feature that is not known. Nothing stays
 * open then.
 */
export async function openImage(path: string, options: OpenOptions = {}): Promise<Image> {
  checkOpenOptions(options);
  const { writable, forceShare, cacheSize } = options;
  const disk = await openDisk(imageSpec(path, options), {
    ...{ writable, forceShare, cacheSize },
    policy: openPolicy(options),
    write: writeOptions(options),
  });
  return new OpenImage(path, new Opened(disk));
}

class OpenImage extends DiskReader implements Image {
  readonly path: string;

  constructor(path: string, opened: Opened) {
    super(opened, () => opened.disk.disk);
    this.path = path;
  }

  get writable(): boolean {
    return this.opened.disk.description.writable === true;
  }

  get warnings(): readonly string[] {
    return this.opened.disk.warnings;
  }

  info(): ImageInfo {
    const [top] = this.opened.use().description.layers;
    const info = collectInfo(top, this.path);
    const { format, actualSize, clusterSize, encrypted, backing, qcow2 } = info;
    return {
      ...{ format, actualSize, clusterSize, encrypted },
      backing: backing === null ? null : { file: backing.name, format: backing.format },
      qcow2:
        qcow2 === null
          ? null
          : {
              version: qcow2.version,
              compressionType: qcow2.compressionType,
              refcountBits: qcow2.refcountBits,
              lazyRefcounts: qcow2.lazyRefcounts,
              extendedL2: qcow2.extendedL2,
              corrupt: qcow2.corrupt,
              dataFile: qcow2.dataFile,
              bitmaps: qcow2.bitmaps.map(({ name }) => name),
            },
    };
  }

  write(offset: number, source: Uint8Array): void {
    const { writer } = this.opened.use();
    const { buffer } = this.opened;
    checkRange(this.size, offset, source.length);
    for (const { at, done, n } of chunks(offset, source.length)) {
      buffer.bytes.set(source.subarray(done, done + n));
      writer.write(at, n, buffer, 0);
    }
  }

  zero(offset: number, length: number): void {
    const { writer } = this.opened.use();
    checkRange(this.size, offset, length);
    if (length > 0) writer.zero(offset, length);
  }

  discard(offset: number, length: number): void {
    const { writer } = this.opened.use();
    checkRange(this.size, offset, length);
    if (length > 0) writer.discard(offset, length);
  }

  resize(size: number): void {
    this.opened.use().writer.resize(size);
  }

  snapshots(): readonly Snapshot[] {
    return this.opened.use().image.snapshots().map(snapshotOf);
  }

  snapshot(idOrName: string): Disk {
    const { view, snapshot } = this.#find(idOrName);
    const { image } = this.opened.use();
    if (snapshot.problem !== null) image.snapshotDisk(view);
    return new DiskReader(this.opened, () => image.snapshotDisk(view));
  }

  takeSnapshot(name: string): Snapshot {
    const disk = this.opened.use();
    disk.writer.createSnapshot(name);
    return snapshotOf(disk.image.snapshots().at(-1)!);
  }

  deleteSnapshot(idOrName: string): void {
    this.opened.use().writer.deleteSnapshot(this.#find(idOrName).view);
  }

  revertTo(idOrName: string): void {
    this.opened.use().writer.revertTo(this.#find(idOrName).view);
  }

  flush(): void {
    const disk = this.opened.use();
    if (this.writable) disk.writer.flush();
  }

  close(): void {
    this.opened.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #find(idOrName: string): SnapshotView {
    const found = this.opened.use().findSnapshot(idOrName);
    if (found !== undefined) return found;
    throw new ImageError('missing', 'ENOENT', `${this.path}: no snapshot '${idOrName}'`);
  }
}

function snapshotOf({ snapshot }: SnapshotView): Snapshot {
  const { id, name, diskSize, vmStateSize, dateSec, dateNsec } = snapshot;
  const date = new Date(dateSec * 1000 + Math.floor(dateNsec / 1e6));
  return { id, name, size: diskSize, vmStateSize, date };
}
