/**
 * `NAME.changed.json`: the extents in which the disk may differ from a snapshot, by the maps of both. It can
 * take a look at every table of a large disk, so it is made when it is opened, and again only after tables have
 * changed. Who asks for its size before gets the least that it can be: 0 would make tar pass it over.
 */
import { LRUCache } from 'lru-cache';
import type { AttachedImage } from '../image/attach.js';
import { MapComparison } from '../image/map-comparison.js';
import { MadeTexts, type MadeTextsMemory } from '../shared/made-texts.js';
import { ToldSizes } from '../shared/told-sizes.js';
import { BytesContent } from './content.js';
import type { MadeFiles } from './file-tree.js';
import { viewOf } from './node.js';

/** Texts that a thread keeps. */
const TEXTS_KEPT = 4;
/** Extents that are told at most: the last one then reaches to the disk's end. */
const MOST_EXTENTS = 250_000;
const NO_EXTENTS = '[]\n';

interface Text {
  readonly edits: number;
  readonly bytes: Uint8Array;
}

export class ChangedExtents implements MadeFiles {
  readonly #image: AttachedImage;
  readonly #texts = new LRUCache<number, Text>({ max: TEXTS_KEPT });
  readonly #made: MadeTexts;
  readonly #sizes: ToldSizes;
  /** The same file, whichever disk of the image it is a layer of. */
  readonly #files: readonly number[];

  constructor(image: AttachedImage, texts: MadeTextsMemory, sizes: SharedArrayBuffer) {
    this.#image = image;
    this.#made = new MadeTexts(texts);
    this.#sizes = new ToldSizes(sizes);
    this.#files = image.description.layers.map((_, index) => index);
  }

  /** What stat tells of the file of the snapshot with that view: what it was when it was last made. */
  size(view: number): number {
    return this.#sizes.get(view) ?? NO_EXTENTS.length;
  }

  open(id: number): number {
    const number = this.#made.open();
    this.#made.put(number, this.#text(viewOf(id)));
    return number * 2;
  }

  content(id: number, handle: number): BytesContent {
    return new BytesContent(this.#made.get(handle / 2) ?? this.#text(viewOf(id)));
  }

  #text(view: number): Uint8Array {
    const { edits } = this.#image;
    const known = this.#texts.get(view);
    if (known !== undefined && known.edits === edits) return known.bytes;
    const bytes = Buffer.from(this.#make(view));
    this.#texts.set(view, { edits, bytes });
    this.#sizes.put(view, bytes.length);
    return bytes;
  }

  #make(view: number): string {
    const files = this.#files;
    const maps = new MapComparison(
      { disk: this.#image.snapshotDisk(view), files },
      { disk: this.#image.disk, files },
    );
    const lines: string[] = [];
    let start = 0;
    let end = -1;
    let zero = false;
    const close = () => {
      if (end >= 0) lines.push(JSON.stringify({ start, length: end - start, zero }));
    };
    for (let offset = 0; offset < maps.size; offset += maps.length) {
      maps.look(offset);
      if (!maps.differs) continue;
      if (offset !== end || maps.zero !== zero) {
        if (lines.length === MOST_EXTENTS) {
          end = maps.size;
          zero = false;
          break;
        }
        close();
        start = offset;
        zero = maps.zero;
      }
      end = offset + maps.length;
    }
    close();
    return lines.length === 0 ? NO_EXTENTS : `[${lines.join(',\n')}]\n`;
  }
}
