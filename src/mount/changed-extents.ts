/**
 * `NAME.changed.json`: the extents in which the disk may differ from a snapshot, by the maps of both. It can
 * take a look at every table of a large disk, so it is made when it is read, and again only after tables have
 * changed.
 */
import { LRUCache } from 'lru-cache';
import type { AttachedImage } from '../image/attach.js';
import { MapComparison } from '../image/map-comparison.js';
import type { IoBuffer } from '../sys/io-buffer.js';
import { BytesContent, type Content } from './content.js';

/** Texts that a thread keeps. */
const TEXTS_KEPT = 4;
/** Extents that are told at most: the last one then reaches to the disk's end. */
const MOST_EXTENTS = 250_000;

interface Text {
  readonly edits: number;
  readonly content: BytesContent;
}

export class ChangedExtents {
  readonly #image: AttachedImage;
  readonly #texts = new LRUCache<number, Text>({ max: TEXTS_KEPT });
  /** The same file, whichever disk of the image it is a layer of. */
  readonly #files: readonly number[];

  constructor(image: AttachedImage) {
    this.#image = image;
    this.#files = image.description.layers.map((_, index) => index);
  }

  /** Of the snapshot with that view. */
  content(view: number): Content {
    return new MadeContent(() => this.#text(view));
  }

  #text(view: number): BytesContent {
    const { edits } = this.#image;
    const known = this.#texts.get(view);
    if (known !== undefined && known.edits === edits) return known.content;
    const content = new BytesContent(Buffer.from(this.#make(view)));
    this.#texts.set(view, { edits, content });
    return content;
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
    return lines.length === 0 ? '[]\n' : `[${lines.join(',\n')}]\n`;
  }
}

/** What is not there before somebody asks for it. */
class MadeContent implements Content {
  readonly #text: () => BytesContent;

  constructor(text: () => BytesContent) {
    this.#text = text;
  }

  get size(): number {
    return this.#text().size;
  }

  read(offset: number, length: number, target: IoBuffer, at: number): void {
    this.#text().read(offset, length, target, at);
  }

  seek(offset: number, hole: boolean): number {
    return this.#text().seek(offset, hole);
  }
}
