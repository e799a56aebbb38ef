/**
 * The names in a mount of many images, as the main thread knows them: folders of the source by their node
 * numbers, and image files by the numbers of their trees. What is known is looked at again whenever somebody
 * asks, so that images come and go with their files. Nothing is opened here but to look at its first bytes.
 */
import { type BigIntStats, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { ImageError, isExpected } from '../errors.js';
import type { KeptViews } from '../shared/image-state.js';
import { MEMBER_LIMIT } from '../shared/members.js';
import { isInside } from '../image/file-names.js';
import { fileOf, formatAt, lookAt, stateOf } from './image-files.js';
import { FIRST_FOLDER } from './member-ids.js';
import { ROOT_ID } from './node.js';

/** Entries that are looked at for one answer. */
const ENTRIES_AT_ONCE = 128;

/** What a mount shows: a file or folder by a path of its own. */
export interface Source {
  /** What it is called in the mount's root; empty where it is a folder that is the root. */
  readonly name: string;
  /** Without links. */
  readonly path: string;
}

export interface CatalogueOptions {
  readonly sources: readonly Source[];
  /** Without links: what is mounted there is not looked at. */
  readonly target: string;
  /** Whether a folder is the root of some mount of this program: not looked into, as two could wait for each other. */
  readonly isMount: (stat: BigIntStats) => boolean;
  /** The format of all images, where the user has stated one. */
  readonly format: string | undefined;
  /**
   * Whether a number can be given to another image: nobody knows it any more. It is asked again and again of
   * images whose files are gone.
   */
  readonly isFree: (member: number) => boolean;
  /** Told of a number that is given to an image. */
  readonly renew: (member: number) => void;
  /** Whether the image is open: it is what it was then, whatever is written to its file. */
  readonly isOpen: (member: number) => boolean;
}

export interface Folder {
  readonly kind: 'folder';
  /** Its node's number. */
  readonly id: number;
  readonly parent: number;
  /** Without links; undefined of a root that only holds the sources. */
  readonly path: string | undefined;
  /** In the mount, without a leading '/'; the root's is empty. */
  readonly shown: string;
  readonly entries: Map<string, Entry>;
  /** Whether all names in it were read once. */
  listed: boolean;
}

/** A file that is an image. */
export interface ImageFile {
  readonly kind: 'image';
  readonly member: number;
  /** The node of the folder that it lies in. */
  readonly folder: number;
  /** As it was found: a link, maybe. */
  readonly path: string;
  /** In the mount, without a leading '/'. */
  readonly shown: string;
  /** Where links may lead; undefined for one that the user has named. */
  readonly root: string | undefined;
  readonly format: string;
  /** `stateOf` the file: as it was looked at first, or left by us. */
  state: string;
  /** The same file, whatever it holds. */
  readonly file: string;
  /** It is not found any more, or is another one. */
  gone: boolean;
  /** The views that its snapshots had when it was open. */
  views: KeptViews | undefined;
}

/** A name in a folder. */
interface Entry {
  /** Where it stands in the folder's listing, from 1. */
  readonly place: number;
  /** What was found there, as it was looked at last; undefined for what is not shown. */
  found: Folder | ImageFile | undefined;
  /** `stateOf` a file that was looked at. */
  state: string | undefined;
}

export interface Found {
  readonly name: string;
  readonly place: number;
  readonly what: Folder | ImageFile;
  readonly stat: BigIntStats;
}

export class Catalogue {
  readonly #options: CatalogueOptions;
  readonly #folders = new Map<number, Folder>();
  readonly #images = new Map<number, ImageFile>();
  readonly #gone = new Set<ImageFile>();
  readonly #root: Folder;
  #lastFolder = FIRST_FOLDER;
  #lastPlace = 0;
  #lastMember = 0;

  constructor(options: CatalogueOptions) {
    this.#options = options;
    const [first] = options.sources;
    const path = first!.name === '' ? first!.path : undefined;
    this.#root = this.#folder(ROOT_ID, ROOT_ID, path, '');
    if (path !== undefined) return;
    this.#root.listed = true;
    for (const { name } of options.sources) this.#enter(this.#root, name);
  }

  /** Throws ESTALE where there is none of that number any more. */
  folder(id: number): Folder {
    const folder = this.#folders.get(id);
    if (folder === undefined) throw stale();
    return folder;
  }

  /** As `folder`; its file may be gone. */
  image(member: number): ImageFile {
    const image = this.#images.get(member);
    if (image === undefined) throw stale();
    return image;
  }

  images(): Iterable<ImageFile> {
    return this.#images.values();
  }

  /** What lies at a folder's own path now. Throws where it is gone. */
  statOf(folder: Folder): BigIntStats | undefined {
    if (folder.path === undefined) return undefined;
    const stat = lookAt(folder.path, '/');
    if (stat?.isDirectory()) return stat;
    throw stale();
  }

  lookup(folder: Folder, name: string): Found | undefined {
    const entry = folder.entries.get(name);
    if (entry === undefined && folder.path === undefined) return undefined;
    return this.#look(folder, name, entry);
  }

  /** Up to so many entries from a place on, in order; none where there are no more. */
  list(folder: Folder, from: number): Found[] {
    if (folder.path !== undefined && (from === 0 || !folder.listed)) this.#readNames(folder);
    const found: Found[] = [];
    for (const [name, entry] of [...folder.entries]) {
      if (entry.place <= from) continue;
      const one = this.#look(folder, name, entry);
      if (one !== undefined) found.push(one);
      if (found.length === ENTRIES_AT_ONCE) break;
    }
    return found;
  }

  /** Looks at everything below the root, until `enough` says so. */
  walk(enough: () => boolean): void {
    const waiting: Folder[] = [this.#root];
    for (let folder = waiting.pop(); folder !== undefined; folder = waiting.pop()) {
      for (let from = 0; !enough(); ) {
        const found = this.#listOrNothing(folder, from);
        if (found.length === 0) break;
        for (const { what } of found) if (what.kind === 'folder') waiting.push(what);
        from = found.at(-1)!.place;
      }
    }
  }

  /** Gives numbers free that nobody knows any more. */
  sweep(): void {
    for (const image of this.#gone) {
      if (!this.#options.isFree(image.member)) continue;
      this.#gone.delete(image);
      this.#images.delete(image.member);
    }
  }

  /** The image is another one now for whoever looks at it again. */
  retire(image: ImageFile): void {
    if (image.gone) return;
    image.gone = true;
    this.#gone.add(image);
  }

  #listOrNothing(folder: Folder, from: number): Found[] {
    try {
      return this.list(folder, from);
    } catch (error) {
      if (!isExpected(error)) throw error;
      return [];
    }
  }

  #folder(id: number, parent: number, path: string | undefined, shown: string): Folder {
    const folder: Folder = {
      ...{ kind: 'folder', id, parent, path, shown },
      ...{ entries: new Map(), listed: false },
    };
    this.#folders.set(id, folder);
    return folder;
  }

  #enter(folder: Folder, name: string): Entry {
    const entry: Entry = { place: ++this.#lastPlace, found: undefined, state: undefined };
    folder.entries.set(name, entry);
    return entry;
  }

  /** New names come behind those that are known, which keep their places. */
  #readNames(folder: Folder): void {
    const names = new Set(readdirSync(folder.path!));
    for (const name of folder.entries.keys()) if (!names.has(name)) this.#drop(folder, name);
    for (const name of [...names].sort()) {
      if (!folder.entries.has(name)) this.#enter(folder, name);
    }
    folder.listed = true;
  }

  #pathOf(folder: Folder, name: string): { path: string; root: string | undefined } {
    const { sources } = this.#options;
    if (folder.path !== undefined) {
      const path = join(folder.path, name);
      return { path, root: this.#rootOf(path) };
    }
    return { path: sources.find((source) => source.name === name)!.path, root: undefined };
  }

  /** The source that a path lies in. */
  #rootOf(path: string): string {
    return this.#options.sources.find((source) => isInside(path, source.path))!.path;
  }

  /** Looks at a name again. What is shown of it stays the same as long as the file does. */
  #look(folder: Folder, name: string, known: Entry | undefined): Found | undefined {
    const { path, root } = this.#pathOf(folder, name);
    const stat = path === this.#options.target ? undefined : lookAt(path, root);
    if (stat === undefined || (stat.isDirectory() && this.#options.isMount(stat))) {
      if (known !== undefined) this.#drop(folder, name);
      return undefined;
    }
    const entry = known ?? this.#enter(folder, name);
    this.#update(entry, folder, name, path, root, stat);
    const what = entry.found;
    return what === undefined ? undefined : { name, place: entry.place, what, stat };
  }

  #update(
    entry: Entry,
    folder: Folder,
    name: string,
    path: string,
    root: string | undefined,
    stat: BigIntStats,
  ): void {
    const { found } = entry;
    if (stat.isDirectory()) {
      if (found?.kind === 'folder') return;
      this.#forget(found);
      entry.found = this.#folder(++this.#lastFolder, folder.id, path, join(folder.shown, name));
      return;
    }
    const state = stateOf(stat);
    if (found?.kind === 'image' && !found.gone) {
      if (found.state === state) return;
      if (found.file === fileOf(stat) && this.#options.isOpen(found.member)) return;
    } else if (found === undefined && entry.state === state) return;
    this.#forget(found);
    entry.state = state;
    const format = formatAt(path, stat, this.#options.format, root === undefined);
    entry.found = undefined;
    if (format === undefined) return;
    const image: ImageFile = {
      ...{ kind: 'image', member: this.#freeMember(), folder: folder.id, path, root, format },
      ...{
        shown: join(folder.shown, name),
        state,
        file: fileOf(stat),
        gone: false,
        views: undefined,
      },
    };
    this.#images.set(image.member, image);
    this.#options.renew(image.member);
    entry.found = image;
  }

  /** The name leads to something else now, or nowhere. */
  #forget(found: Folder | ImageFile | undefined): void {
    if (found?.kind === 'image') this.retire(found);
    else if (found !== undefined) this.#dropFolder(found);
  }

  #drop(folder: Folder, name: string): void {
    this.#forget(folder.entries.get(name)?.found);
    const entry = folder.entries.get(name);
    // What the user has named stays in its place.
    if (folder.path !== undefined) folder.entries.delete(name);
    else if (entry !== undefined) Object.assign(entry, { found: undefined, state: undefined });
  }

  #dropFolder(folder: Folder): void {
    for (const { found } of folder.entries.values()) this.#forget(found);
    folder.entries.clear();
    folder.listed = false;
    if (folder !== this.#root) this.#folders.delete(folder.id);
  }

  #freeMember(): number {
    for (let pass = 0; pass < 2; pass++) {
      for (let tries = 1; tries < MEMBER_LIMIT; tries++) {
        this.#lastMember = (this.#lastMember % (MEMBER_LIMIT - 1)) + 1;
        if (!this.#images.has(this.#lastMember)) return this.#lastMember;
      }
      this.sweep();
    }
    throw new ImageError('policy', 'ENFILE', 'too many images are known', {
      limit: `${MEMBER_LIMIT - 1} at once`,
    });
  }
}

function stale(): ImageError {
  return new ImageError('missing', 'ESTALE', 'it is not there any more, or another one');
}
