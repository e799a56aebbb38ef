/// <reference lib="esnext.disposable" preserve="true" />
/**
 * What the library shows of images. Offsets, lengths and sizes are bytes, and numbers: none is above 2^53.
 */

/** What an image is opened with. */
export interface OpenOptions {
  /** Open it for writing; what it names (backing files) stays as it is. */
  readonly writable?: boolean;
  /** `qcow2`, `raw`, `qed`, `qcow`, `vdi`, `vpc`, `vmdk`, `vhdx`; found out where it is not given. */
  readonly format?: string;
  /** Refuse images that name another file. */
  readonly noBacking?: boolean;
  /** A folder: open only files in it that the image names, links followed. */
  readonly backingRoot?: string;
  /** What opens encrypted images: each is tried on each encrypted file of the chain. */
  readonly passphrases?: readonly (string | Uint8Array)[];
  /** Read an image that another process writes to, without locks. What is read may be wrong then. */
  readonly forceShare?: boolean;
  /** How writes become durable: `writeback` (by `flush`, the default), `writethrough` (each one), … */
  readonly cache?: 'writeback' | 'writethrough' | 'none' | 'directsync' | 'unsafe';
  /** Whether freed clusters become holes of the image's file (`unmap`, the default). */
  readonly discard?: 'unmap' | 'ignore';
  /** Whether writes of zeroes become zero clusters, with their space kept or given back (`off`). */
  readonly detectZeroes?: 'off' | 'on' | 'unmap';
  /** Of the metadata cache; 32 MiB, enough for a disk of 256 GiB, where it is not given. */
  readonly cacheSize?: number;
}

/** A run of a disk that is alike throughout. */
export interface Extent {
  readonly offset: number;
  readonly length: number;
  /** It reads as zeroes, for sure. */
  readonly zero: boolean;
  /** Bytes are stored for it. */
  readonly data: boolean;
  readonly compressed: boolean;
  /** The file of the chain that tells what is there: 0 is the image, 1 its backing file. */
  readonly depth: number;
  /** Whether that file has something there; false where none of them has. */
  readonly present: boolean;
  /** Where it lies as it is; null where it lies nowhere, or is compressed or encrypted. */
  readonly host: { readonly file: string; readonly offset: number } | null;
}

/** A disk that can be read. */
export interface Disk {
  /** It changes only by `resize` and `revertTo`. */
  readonly size: number;

  /** The `length` bytes at `offset`, in memory of their own. */
  read(offset: number, length: number): Uint8Array;

  /** Fills `target` with the bytes at `offset`. */
  readInto(offset: number, target: Uint8Array): void;

  /**
   * The extents of the range, of the whole disk where it is not given, in order and without gaps. Each is looked
   * for when it is asked for.
   */
  extents(offset?: number, length?: number): IterableIterator<Extent>;
}

/** An internal snapshot, as it was when it was listed. */
export interface Snapshot {
  readonly id: string;
  /** Not always unique. */
  readonly name: string;
  /** Of its disk. */
  readonly size: number;
  /** Of the machine's state that was saved with it; 0 where there is none. */
  readonly vmStateSize: number;
  readonly date: Date;
}

/** What an image's header tells. */
export interface ImageInfo {
  readonly format: string;
  /** What its file takes on the host. */
  readonly actualSize: number;
  /** Null in formats that have none. */
  readonly clusterSize: number | null;
  readonly encrypted: boolean;
  /** As the image names it. */
  readonly backing: { readonly file: string; readonly format: string | null } | null;
  /** Of qcow2 alone. */
  readonly qcow2: {
    /** 2 or 3. */
    readonly version: number;
    readonly compressionType: 'zlib' | 'zstd';
    readonly refcountBits: number;
    readonly lazyRefcounts: boolean;
    readonly extendedL2: boolean;
    /** It was found to contradict itself, and is for reading alone until it is repaired. */
    readonly corrupt: boolean;
    readonly dataFile: string | null;
    readonly bitmaps: readonly string[];
  } | null;
}

/**
 * An open image: its active disk, and all else of it. Everything is done when a call returns; nothing waits in the
 * background, and the thread is blocked meanwhile, as by `fs.readSync`.
 *
 * It is locked as QEMU locks images: by others it can be read while it is open for reading, and not opened
 * while it is open for writing. It is for the thread that opened it.
 */
export interface Image extends Disk, Disposable {
  readonly path: string;
  readonly writable: boolean;
  /** What one should know though it could be opened. */
  readonly warnings: readonly string[];

  /** As of when it was opened, but for `actualSize`. */
  info(): ImageInfo;

  /** Writes all of `source`. It is durable after the next `flush`; so are the changes below. */
  write(offset: number, source: Uint8Array): void;

  /** Makes the range read as zeroes; it keeps the space that it has. */
  zero(offset: number, length: number): void;

  /** Makes the range read as zeroes, and gives its space back. */
  discard(offset: number, length: number): void;

  /** Makes the disk larger, by zeroes, or smaller. A multiple of 512. */
  resize(size: number): void;

  /** The snapshots as they are now, in the order of the image's table. */
  snapshots(): readonly Snapshot[];

  /** The disk of the snapshot with that id or, where none has it, that name. It is read until the image is closed. */
  snapshot(idOrName: string): Disk;

  /** Takes a snapshot of the disk as it is now; durable when it returns. EEXIST where one has that name. */
  takeSnapshot(name: string): Snapshot;

  /** Deletes the snapshot with that id or name. */
  deleteSnapshot(idOrName: string): void;

  /** Makes the disk what a snapshot is, its size too. EBUSY where the image has bitmaps. */
  revertTo(idOrName: string): void;

  /** Returns when all that was changed before is on the disk, whatever happens to the machine. */
  flush(): void;

  /**
   * Flushes, leaves the image clean and lets go of it. What it throws was not made durable; it is closed all the
   * same. Once more does nothing. Without it, what was not flushed is lost, and the image may have to be repaired by
   * the next who opens it for writing, as after a crash.
   */
  close(): void;
}

/** What a check is done with; the rest as for opening. */
export interface CheckOptions
  extends Pick<OpenOptions, 'format' | 'noBacking' | 'backingRoot' | 'forceShare'> {
  /** What is put right: clusters that nothing refers to, or all that can be; nothing where it is not given. */
  readonly repair?: 'leaks' | 'all';
}

/** What a check has found, after a repair: numbers of things, and what was repaired. */
export interface CheckResult {
  readonly corruptions: number;
  readonly leaks: number;
  /** What could not be checked. */
  readonly checkErrors: number;
  readonly corruptionsFixed: number;
  readonly leaksFixed: number;
  /** Where the last cluster in use ends. */
  readonly imageEndOffset: number;
  /** Of the active disk. */
  readonly totalClusters: number;
  readonly allocatedClusters: number;
  readonly fragmentedClusters: number;
  readonly compressedClusters: number;
}
