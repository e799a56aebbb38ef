/**
 * The images of a mount of many that are open: opened for who asks, and closed when nobody uses them any more,
 * or to make room for others. The main thread's alone.
 *
 * What closes an image makes durable all that was written to it, before its locks are let go of. Where that
 * fails, it stays open. A crash leaves each image as a crash of a mount of it alone would.
 */
import { fstatSync, readlinkSync, statSync } from 'node:fs';
import { ERRNO, errnoOf, ImageError } from '../errors.js';
import { filesOf, type ImageDescription } from '../image/description.js';
import { isInside } from '../image/file-names.js';
import { closeImage, type OpenedImage } from '../image/open.js';
import type { WriteOptions } from '../image/write-options.js';
import { Members } from '../shared/members.js';
import { MIN_CACHE_SIZE, type SliceCacheMemory } from '../shared/slice-cache.js';
import type { LogFacts } from '../sys/log.js';
import { WorkerStatus } from '../shared/worker-status.js';
import type { ImageFile } from './catalogue.js';
import type { OpenMember } from './collection-questions.js';
import type { MountFacts } from './facts.js';
import type { FlushedImage } from './flushed-image.js';
import { fileOf, stateOf } from './image-files.js';
import { flushedImage, keptViews, type ServedImage, serveImage } from './served-image.js';

/** Of what is left of the cache, an image that is opened gets one part in so many. */
const SHARE_OF_CACHE = 4;

export interface OpenMembersOptions {
  /** Of `Members`. */
  readonly members: SharedArrayBuffer;
  /** Of `WorkerStatus`. */
  readonly statuses: SharedArrayBuffer;
  readonly workers: number;
  /** Images at most that are open at once. */
  readonly maxOpen: number;
  /** Bytes of all metadata caches together, if each can have the least size. */
  readonly cacheSize: number;
  readonly write: WriteOptions;
  /** Opens an image's file, with its locks. */
  readonly openFile: (image: ImageFile) => OpenedImage;
  readonly factsOf: (image: ImageFile, description: ImageDescription) => MountFacts;
  readonly log: Record<'error' | 'warning' | 'info', (message: string, facts?: LogFacts) => void>;
}

interface Open {
  readonly image: ImageFile;
  readonly served: ServedImage;
  readonly flushed: FlushedImage | null;
  readonly cacheSize: number;
  readonly state: number;
}

export class OpenMembers {
  readonly members: Members;
  readonly #options: OpenMembersOptions;
  readonly #open = new Map<number, Open>();
  /** Of images that are closed, by their sizes: memory that others get is not waited for to be freed. */
  readonly #caches = new Map<number, SliceCacheMemory[]>();

  constructor(options: OpenMembersOptions) {
    this.#options = options;
    this.members = new Members(options.members);
  }

  isOpen(member: number): boolean {
    return this.#open.has(member);
  }

  served(): ServedImage[] {
    return [...this.#open.values()].map(({ served }) => served);
  }

  /** Those that are open for writing. */
  flushed(): FlushedImage[] {
    return [...this.#open.values()].flatMap(({ flushed }) => flushed ?? []);
  }

  /** Opens an image, if it is not open. Throws what is wrong with it, or ENFILE where too many are in use. */
  open(image: ImageFile): OpenMember {
    const known = this.#open.get(image.member);
    if (known !== undefined) return { state: known.state, image: known.served };
    this.#makeRoom();
    const opened = this.#openWithRoom(image);
    const { description } = opened;
    try {
      checkFile(image, description);
      const { cacheSize, open } = this.#serve(image, description);
      this.#open.set(image.member, { image, cacheSize, ...open });
      const { log } = this.#options;
      for (const warning of opened.warnings) log.warning(warning, { file: image.path });
      log.info(`${image.path} is opened`, { file: image.path });
      return { state: open.state, image: open.served };
    } catch (error) {
      closeImage(description);
      throw error;
    }
  }

  #serve(image: ImageFile, description: ImageDescription) {
    const { factsOf, log, workers, write } = this.#options;
    const owners = workers + 1;
    const cacheSize = this.#shareOfCache();
    const facts = factsOf(image, description);
    const cache = this.#caches.get(cacheSize)?.pop();
    const { views } = image;
    const served = serveImage(description, facts, { cacheSize, owners, write, views, cache });
    const error = (message: string, facts?: LogFacts) =>
      log.error(`${image.path}: ${message}`, { file: image.path, ...facts });
    const flushed = flushedImage(served, owners, { error });
    const state = this.members.open(image.member);
    this.members.use(image.member);
    return { cacheSize, open: { served, flushed, state } };
  }

  /** The least size, and a part of what is left beyond that for all. */
  #shareOfCache(): number {
    const { cacheSize, maxOpen } = this.#options;
    let left = cacheSize - maxOpen * MIN_CACHE_SIZE;
    for (const open of this.#open.values()) left -= open.cacheSize - MIN_CACHE_SIZE;
    const most = MIN_CACHE_SIZE + Math.max(0, left) / SHARE_OF_CACHE;
    // As the cache itself rounds it.
    return 2 ** Math.floor(Math.log2(most));
  }

  /** Where other images of ours are in the way, they are closed, if nobody uses them. */
  #openWithRoom(image: ImageFile): OpenedImage {
    const { openFile } = this.#options;
    try {
      return openFile(image);
    } catch (error) {
      if (!this.#giveWay(error)) throw error;
      return openFile(image);
    }
  }

  #giveWay(error: unknown): boolean {
    const errno = errnoOf(error);
    if (errno === ERRNO.EMFILE) return this.#closeOldest();
    const path = error instanceof ImageError ? error.context.path : undefined;
    if (errno !== ERRNO.EAGAIN || path === undefined) return false;
    // Ours may have the lock: of the image by another name, or of one that lies below another.
    const stat = statSync(path, { bigint: true });
    const holders = [...this.#open.values()].filter(({ served }) => hasFile(served, fileOf(stat)));
    return holders.filter((open) => this.#close(open)).length > 0;
  }

  #makeRoom(): void {
    const { maxOpen } = this.#options;
    while (this.#open.size >= maxOpen) {
      if (this.#closeOldest()) continue;
      throw new ImageError('policy', 'ENFILE', `${this.#open.size} images are in use at once`, {
        limit: `max-open=${maxOpen}`,
      });
    }
  }

  #closeOldest(): boolean {
    const { members } = this;
    const age = ({ image: { member } }: Open) => members.now - members.used(member);
    return [...this.#open.values()].sort((a, b) => age(b) - age(a)).some((one) => this.#close(one));
  }

  /** Closes those that nobody has used for so many ticks, and those whose files are gone. */
  closeIdle(ticks: number): void {
    const { members } = this;
    for (const open of [...this.#open.values()]) {
      const { member, gone } = open.image;
      if (gone || members.now - members.used(member) >= ticks) this.#close(open);
    }
  }

  /** Lets go of all images, which no thread uses any more. */
  release(): void {
    for (const { served } of this.#open.values()) closeImage(served.description);
    this.#open.clear();
  }

  /** False where it is in use, or what was written cannot be made durable. */
  #close({ image, served, flushed, cacheSize }: Open): boolean {
    const { members } = this;
    const { member } = image;
    if (members.files(member) > 0) return false;
    members.beginClosing(member);
    // Behind the mark: whoever comes now sees it. A file may have been opened before.
    const inUse = this.#isInside(member) || members.files(member) > 0;
    if (inUse || (flushed !== null && flushed.close(true) !== 'done')) {
      members.reopen(member);
      return false;
    }
    this.#open.delete(member);
    // What we have written ourselves does not make it another image.
    if (flushed !== null) image.state = stateNow(served.description);
    image.views = keptViews(served);
    closeImage(served.description);
    members.close(member);
    this.#options.log.info(`${image.path} is closed`, { file: image.path });
    this.#keepCache(cacheSize, served.memory.cache);
    return true;
  }

  #keepCache(size: number, cache: SliceCacheMemory): void {
    const kept = this.#caches.get(size);
    if (kept === undefined) this.#caches.set(size, [cache]);
    else kept.push(cache);
  }

  #isInside(member: number): boolean {
    const { statuses, workers } = this.#options;
    for (let index = 0; index < workers; index++) {
      if (new WorkerStatus(statuses, index).member === member) return true;
    }
    return false;
  }
}

function hasFile({ description }: ServedImage, file: string): boolean {
  const files = description.layers.flatMap(filesOf);
  return files.some(({ fd }) => fileOf(fstatSync(fd, { bigint: true })) === file);
}

function stateNow({ layers: [top] }: ImageDescription): string {
  return stateOf(fstatSync(top.file.fd, { bigint: true }));
}

/** What was opened must be what was looked at: names can be changed at any time. */
function checkFile({ file, path, root, state }: ImageFile, description: ImageDescription): void {
  const { fd } = description.layers[0].file;
  const stat = fstatSync(fd, { bigint: true });
  if (fileOf(stat) !== file || (!description.writable && stateOf(stat) !== state)) {
    throw new ImageError('missing', 'ESTALE', `${path}: it is another file now`);
  }
  if (root === undefined || isInside(readlinkSync(`/proc/self/fd/${fd}`), root)) return;
  throw new ImageError('policy', 'EPERM', `${path}: it lies outside of '${root}'`);
}
