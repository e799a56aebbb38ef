/**
 * The folder `.qcow2fs` of a mount's root: files about the mount itself. It is found by name, and not listed, so
 * that who copies the tree does not take it along. A file's text is made when it is opened, and again when it is
 * read from its start: as in /proc, its size is told as 0.
 */
import { MadeTexts, type MadeTextsMemory } from '../shared/made-texts.js';
import { BytesContent } from './content.js';
import { type Entry, fileEntry } from './entry.js';
import type { MadeFiles } from './file-tree.js';
import { isOwnFile, nodeId, SLOT, slotOf } from './node.js';

export const OWN_FOLDER = '.qcow2fs';

/** A file of the folder. */
export interface OwnFile {
  readonly name: string;
  /** Its text, as it is now. */
  readonly make: () => string;
}

export class OwnFolder implements MadeFiles {
  readonly #texts: MadeTexts;
  readonly #files: readonly OwnFile[];

  /** `files`: the same, in the same order, in every thread; at most `LAST_OWN_FILE`. */
  constructor(texts: MadeTextsMemory, files: readonly OwnFile[]) {
    this.#texts = new MadeTexts(texts);
    this.#files = files;
  }

  /** The number that a node of that name has. */
  find(name: string): number | undefined {
    const index = this.#files.findIndex((file) => file.name === name);
    return index < 0 ? undefined : nodeId(0, SLOT.OWN_FILE + index);
  }

  list(from: number): Entry[] {
    return this.#files
      .map(({ name }, index) => fileEntry(name, nodeId(0, SLOT.OWN_FILE + index), index + 1))
      .slice(from);
  }

  has(id: number): boolean {
    return isOwnFile(id) && this.#file(id) !== undefined;
  }

  open(id: number): number {
    const number = this.#texts.open();
    this.#make(id, number);
    return number * 2;
  }

  content(id: number, handle: number, offset: number): BytesContent {
    const number = handle / 2;
    const kept = offset === 0 ? undefined : this.#texts.get(number);
    return new BytesContent(kept ?? this.#make(id, number));
  }

  #make(id: number, number: number): Uint8Array {
    const text = Buffer.from(this.#file(id)!.make());
    this.#texts.put(number, text);
    return text;
  }

  #file(id: number): OwnFile | undefined {
    return this.#files[slotOf(id) - SLOT.OWN_FILE];
  }
}
