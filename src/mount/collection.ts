/**
 * A mount of many images, as the main thread has it: it answers what workers ask, and sees to it that
 * images are closed that nobody uses.
 */
import type { BigIntStats } from 'node:fs';
import { describeError, type ErrnoName, ImageError, isExpected, errorCode } from '../errors.js';
import { AttachedImage } from '../image/attach.js';
import { closeImage, openImage } from '../image/open.js';
import { Catalogue, type Folder, type Found, type ImageFile, type Source } from './catalogue.js';
import type { CollectionQuestions, FoundFolder, OpenMember } from './collection-questions.js';
import type { Ownership } from './facts.js';
import { folderNode, imageNode } from './folder-nodes.js';
import { lookAt, stateOf } from './image-files.js';
import { isMemberRoot, memberOf } from './member-ids.js';
import type { DirectoryNode } from './node.js';
import { OpenMembers, type OpenMembersOptions } from './open-members.js';
import { type ImageStatus, imageStatus } from './status.js';

/** Milliseconds after which it is tried again to open what could not be opened. */
const RETRY_MS = 2000;
/** The same, where that took long (a wrong passphrase does): so many times as long. All wait for it meanwhile. */
const RETRY_FACTOR = 100;
/** Milliseconds that are taken for a look at all images, for who asks what is wrong with them. */
const CHECK_MS = 1000;
const TICK_MS = 1000;

export interface CollectionOptions extends OpenMembersOptions {
  readonly sources: readonly Source[];
  /** The mount point, without links. */
  readonly target: string;
  readonly isMount: (stat: BigIntStats) => boolean;
  readonly format: string | undefined;
  readonly ownership: Ownership;
  readonly writable: boolean;
  /** Seconds after which an image is closed that nobody uses. */
  readonly idle: number;
}

interface Problem {
  readonly image: ImageFile;
  /** Of the file that it was found with. */
  readonly state: string;
  readonly error: ImageError;
  readonly since: Date;
  /** When it is tried again; on the clock of `performance`. */
  readonly retryMs: number;
}

export class Collection implements CollectionQuestions {
  readonly opened: OpenMembers;
  readonly #options: CollectionOptions;
  readonly #catalogue: Catalogue;
  /** By the images' numbers. */
  readonly #problems = new Map<number, Problem>();
  /** Those that were looked into for `errors`, or opened. */
  readonly #checked = new WeakSet<ImageFile>();
  readonly #timer: NodeJS.Timeout;

  constructor(options: CollectionOptions) {
    this.#options = options;
    this.opened = new OpenMembers(options);
    const { opened } = this;
    this.#catalogue = new Catalogue({
      ...options,
      isOpen: (member) => opened.isOpen(member),
      isFree: (member) => {
        const { members } = opened;
        return !opened.isOpen(member) && members.files(member) <= 0 && members.lookups(member) <= 0;
      },
      renew: (member) => opened.members.renew(member),
    });
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
    this.#timer.unref();
  }

  /** No image is closed any more but by who ends the mount. */
  stop(): void {
    clearInterval(this.#timer);
  }

  #tick(): void {
    this.opened.members.tick();
    this.opened.closeIdle(this.#options.idle);
    this.#catalogue.sweep();
    for (const [member, { image }] of this.#problems) {
      if (image.gone) this.#problems.delete(member);
    }
  }

  lookup(id: number, name: string): FoundFolder | null {
    const found = this.#catalogue.lookup(this.#catalogue.folder(id), name);
    return found === undefined ? null : this.#shown(found);
  }

  list(id: number, from: number): readonly FoundFolder[] {
    const folder = this.#catalogue.folder(id);
    return this.#catalogue.list(folder, from).map((found) => this.#shown(found));
  }

  node(id: number): DirectoryNode {
    if (isMemberRoot(id)) {
      const image = this.#catalogue.image(memberOf(id));
      return this.#imageNode(image, this.#statOf(image));
    }
    const folder = this.#catalogue.folder(id);
    return this.#folderNode(folder, this.#catalogue.statOf(folder)!);
  }

  open(member: number): OpenMember {
    const image = this.#catalogue.image(member);
    if (this.opened.isOpen(member)) return this.opened.open(image);
    if (stateOf(this.#statOf(image)) !== image.state) {
      this.#catalogue.retire(image);
      throw new ImageError('missing', 'ESTALE', `${image.path}: it has changed`);
    }
    const known = this.#problems.get(member);
    const started = performance.now();
    if (known?.state === image.state && started < known.retryMs) throw known.error;
    this.#checked.add(image);
    try {
      const open = this.opened.open(image);
      this.#problems.delete(member);
      return open;
    } catch (error) {
      throw this.#problem(image, error, performance.now() - started);
    }
  }

  errors(): string {
    const end = performance.now() + CHECK_MS;
    const isLate = () => performance.now() > end;
    this.#catalogue.walk(isLate);
    for (const image of this.#catalogue.images()) {
      if (isLate()) break;
      if (!image.gone && !this.#checked.has(image)) this.#check(image);
    }
    const shown: object[] = [];
    for (const { image, error, since } of this.#problems.values()) {
      if (image.gone) continue;
      const { code: errno } = error;
      const text = describeError(error);
      shown.push({ path: image.shown, error: text, errno, since: since.toISOString() });
    }
    return `${JSON.stringify(shown, null, 2)}\n`;
  }

  status(): readonly ImageStatus[] {
    const owner = this.#options.workers + 1;
    return this.opened.served().map(({ description, memory }) => {
      return imageStatus(new AttachedImage(description, memory, owner));
    });
  }

  #statOf({ path, root }: ImageFile): BigIntStats {
    const stat = lookAt(path, root);
    if (stat !== undefined && !stat.isDirectory()) return stat;
    throw new ImageError('missing', 'ESTALE', `${path}: it is gone`);
  }

  #shown({ name, place, what, stat }: Found): FoundFolder {
    const node = what.kind === 'image' ? this.#imageNode(what, stat) : this.#folderNode(what, stat);
    return { name, node, next: place };
  }

  #imageNode(image: ImageFile, stat: BigIntStats): DirectoryNode {
    const { ownership, writable } = this.#options;
    return imageNode(image, stat, ownership, writable);
  }

  #folderNode(folder: Folder, stat: BigIntStats): DirectoryNode {
    return folderNode(folder, stat, this.#options.ownership);
  }

  /** Looks at an image's headers, without locks and keys. */
  #check(image: ImageFile): void {
    this.#checked.add(image);
    const { path, format } = image;
    const look = { format, alone: true, noDataFiles: true, allowEncrypted: true };
    try {
      closeImage(openImage(path, look).description);
    } catch (error) {
      this.#problem(image, error);
    }
  }

  /** Keeps in mind why an image cannot be opened, and tells it once; answers it as it is answered. */
  #problem(image: ImageFile, cause: unknown, tookMs = 0): ImageError {
    const error = asShown(cause);
    // That is about the mount, not about the image.
    if (PASSING.has(error.code)) return error;
    const known = this.#problems.get(image.member);
    const isSame = known?.error.message === error.message;
    if (!isSame) this.#options.log.warning(`${image.shown}: ${describeError(error)}`);
    this.#problems.set(image.member, {
      ...{ image, error, state: image.state },
      retryMs: performance.now() + Math.max(RETRY_MS, tookMs * RETRY_FACTOR),
      since: isSame ? known.since : new Date(),
    });
    return error;
  }
}

const PASSING: ReadonlySet<ErrnoName> = new Set(['ENFILE', 'EMFILE', 'ESTALE']);

/** What a system call on a folder that is there may fail with, without leading anybody astray. */
const SHOWN_AS: ReadonlyMap<ErrnoName, ErrnoName> = new Map([
  ['EAGAIN', 'EBUSY'],
  // The host's other name of it.
  ['EWOULDBLOCK', 'EBUSY'],
  ['EINVAL', 'EIO'],
  ['EISDIR', 'EIO'],
  ['ELOOP', 'EIO'],
  ['ENOENT', 'EIO'],
  ['ENOTDIR', 'EIO'],
  ['EROFS', 'EACCES'],
]);

function asShown(error: unknown): ImageError {
  if (!isExpected(error)) throw error;
  const code = errorCode(error);
  const kind = error instanceof ImageError ? error.kind : 'invalid';
  return new ImageError(kind, SHOWN_AS.get(code) ?? code, describeError(error), {}, error);
}
