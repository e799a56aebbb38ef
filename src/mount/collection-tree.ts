/**
 * The folders of a mount of many images, as a worker has them: what is in them is asked of the main thread, each
 * time. The root alone is known here: whoever unmounts looks at it, while the main thread waits for that.
 */
import { fstatSync } from 'node:fs';
import type { CollectionQuestions } from './collection-questions.js';
import { BytesContent, type Content } from './content.js';
import { directoryEntry, type Entry } from './entry.js';
import type { Ownership } from './facts.js';
import type { FileTree } from './file-tree.js';
import { folderNode } from './folder-nodes.js';
import { metricsText } from './metrics.js';
import { type DirectoryNode, type FileNode, type Node, ROOT_ID, SLOT } from './node.js';
import { OWN_FOLDER, OwnFolder } from './own-folder.js';
import { type MountStatus, mountStatus, type StatusFacts } from './status.js';
import { DAEMON_PID, SOURCES } from './xattrs.js';

const S_IFREG = 0o100000;
const EXECUTABLE = 0o111;

/** Plain data, as every worker gets it. */
export interface CollectionFacts {
  /** A descriptor of what the root looks like: of the source's folder. */
  readonly rootFd: number;
  readonly ownership: Ownership;
  readonly status: StatusFacts;
  /** Where the images come from: paths by their names in the root, or by none where the folder is the root. */
  readonly sources: Readonly<Record<string, string>>;
}

export class CollectionTree implements FileTree {
  readonly rootId = ROOT_ID;
  /** The files about the mount itself. */
  readonly own: OwnFolder;
  /** Only what is read of images counts. */
  readonly counters = { read: () => {} };
  readonly disk = { size: 0 };
  readonly rootFiles = 0;
  readonly #facts: CollectionFacts;
  readonly #questions: CollectionQuestions;
  /** What was answered within the request. */
  readonly #found = new Map<number, DirectoryNode>();

  constructor(facts: CollectionFacts, questions: CollectionQuestions) {
    this.#facts = facts;
    this.#questions = questions;
    this.own = new OwnFolder(facts.status.texts, [
      { name: 'errors.json', make: () => questions.errors() },
      { name: 'metrics', make: () => metricsText(this.#status()) },
      { name: 'status.json', make: () => this.status() },
    ]);
  }

  enter(): void {
    this.#found.clear();
  }

  leave(): void {
    this.#found.clear();
  }

  node(id: number): Node | undefined {
    if (id === ROOT_ID) return this.#root();
    if (id === SLOT.OWN) return { ...this.#root(), ...this.#ownIds(id) };
    if (this.own.has(id)) return this.#ownFile(id);
    return this.#found.get(id) ?? this.#questions.node(id);
  }

  lookup(folder: number, name: string): number | undefined {
    if (folder === SLOT.OWN) return this.own.find(name);
    if (folder === ROOT_ID && name === OWN_FOLDER) return SLOT.OWN;
    const found = this.#questions.lookup(folder, name);
    if (found === null) return undefined;
    this.#found.set(found.node.id, found.node);
    return found.node.id;
  }

  *list(folder: number, from: number): Iterable<Entry> {
    if (folder === SLOT.OWN) {
      yield* this.own.list(from);
      return;
    }
    for (let place = from; ; ) {
      const found = this.#questions.list(folder, place);
      if (found.length === 0) return;
      for (const { name, node, next } of found) {
        this.#found.set(node.id, node);
        yield directoryEntry(name, node.id, next);
        place = next;
      }
    }
  }

  content(): Content | undefined {
    return undefined;
  }

  xattrs(id: number): ReadonlyMap<string, string> {
    if (id !== ROOT_ID) return new Map();
    const { sources, status } = this.#facts;
    return new Map([
      [DAEMON_PID, String(status.pid)],
      [SOURCES, JSON.stringify(sources)],
    ]);
  }

  madeFiles(): OwnFolder {
    return this.own;
  }

  isOfView(): boolean {
    return false;
  }

  lasts(): boolean {
    return false;
  }

  status(): string {
    return `${JSON.stringify(this.#status())}\n`;
  }

  #status(): MountStatus {
    return mountStatus(this.#facts.status, this.#questions.status());
  }

  #root(): DirectoryNode {
    const { ownership, rootFd } = this.#facts;
    const stat = fstatSync(rootFd, { bigint: true });
    return folderNode({ id: ROOT_ID, parent: ROOT_ID }, stat, ownership);
  }

  #ownIds(id: number) {
    const { attributes } = this.#root();
    return { id, parent: ROOT_ID, attributes: { ...attributes, ino: id } };
  }

  #ownFile(id: number): FileNode {
    const { attributes, lasting } = this.#root();
    const mode = S_IFREG | (attributes.mode & ~EXECUTABLE & 0o777);
    return {
      ...{
        kind: 'file',
        id,
        parent: SLOT.OWN,
        lasting,
        content: new BytesContent(Buffer.alloc(0)),
      },
      attributes: { ...attributes, ino: id, mode },
    };
  }
}
