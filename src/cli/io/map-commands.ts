/** What an image has: length, map, alloc, info; and truncate, flush, aio_flush. */
import { ERRNO, errnoOf, ImageError } from '../../errors.js';
import { layerClusterSize, type LayerDescription } from '../../image/description.js';
import { collectInfo } from '../../image/info.js';
import { l1EntriesFor } from '../../image/qcow2/geometry.js';
import { preallocationNamed } from '../../image/writer.js';
import { strerror } from '../../sys/libc.js';
import { formatFacts } from '../info.js';
import { letters } from './arguments.js';
import type { ImageCommand } from './command.js';
import type { IoImage } from './image.js';
import { parseNumber, sizeText } from './words.js';

const SECTOR_SIZE = 512;

export const LENGTH: ImageCommand = {
  name: 'length',
  alias: 'l',
  summary: 'gets the length of the current file',
  words: [0, 0],
  onImage: (session, _args, { disk }) => session.print(`${sizeText(disk.size)}\n`),
};

export const MAP: ImageCommand = {
  name: 'map',
  usage: '',
  summary: 'prints the allocated areas of a file',
  words: [0, 0],
  onImage: (session, _args, { disk, requests }) => {
    session.settle();
    for (let offset = 0; offset < disk.size; ) {
      const { allocated, length } = requests.allocation(offset, disk.size - offset);
      session.print(
        `${sizeText(length)} (0x${length.toString(16)}) bytes ` +
          `${allocated ? '    allocated' : 'not allocated'} at offset ` +
          `${sizeText(offset)} (0x${offset.toString(16)})\n`,
      );
      offset += length;
    }
  },
};

export const ALLOC: ImageCommand = {
  name: 'alloc',
  alias: 'a',
  usage: 'offset [count]',
  summary: 'checks if offset is allocated in the file',
  words: [1, 2],
  onImage: (session, { operands }, { disk, requests }) => {
    const offset = parseNumber(operands[0]!);
    const count = operands[1] === undefined ? SECTOR_SIZE : parseNumber(operands[1]);
    const end = Math.min(disk.size, offset + count);
    session.settle();
    let sum = 0;
    for (let at = offset; at < end; ) {
      const { allocated, length } = requests.allocation(at, end - at);
      if (allocated) sum += length;
      at += length;
    }
    const asked = Math.max(0, end - offset);
    session.print(`${sum}/${asked} bytes allocated at offset ${sizeText(offset)}\n`);
  },
};

export const INFO: ImageCommand = {
  name: 'info',
  alias: 'i',
  summary: 'prints information about the current file',
  words: [0, 0],
  onImage: (session, _args, image) => {
    const top = image.disk.description.layers[0];
    session.print(formatName(top));
    // QEMU's driver has nothing more to tell.
    if (top.file.nullDisk !== undefined) return;
    const { clusterSize, vmStateOffset } = placesOf(image);
    session.print(
      `cluster size: ${sizeText(clusterSize)}\n` + `vm state offset: ${sizeText(vmStateOffset)}\n`,
    );
    for (const line of formatFacts(collectInfo(top, image.spec.filename)))
      session.print(`${line}\n`);
  },
};

/** As QEMU: what is a format and a way to a file at once has both names. */
function formatName(top: LayerDescription): string {
  const driver = top.format === 'raw' ? top.driver : undefined;
  return `format name: ${driver ?? top.format}\n`.repeat(driver === undefined ? 1 : 2);
}

function placesOf({ disk }: IoImage): { clusterSize: number; vmStateOffset: number } {
  const top = disk.description.layers[0];
  if (top.format !== 'qcow2') {
    return { clusterSize: layerClusterSize(top) ?? 0, vmStateOffset: 0 };
  }
  const { geometry } = top.header;
  const vmStateOffset = l1EntriesFor(geometry, disk.size) * geometry.l2Coverage;
  return { clusterSize: geometry.clusterSize, vmStateOffset };
}

export const TRUNCATE: ImageCommand = {
  name: 'truncate',
  alias: 't',
  usage: '[-m prealloc_mode] off',
  summary: 'truncates the current file at the given offset',
  words: [1, 3],
  writes: true,
  options: letters('m:'),
  onImage: (session, args, { disk }) => {
    const word = args.last('m') ?? 'off';
    const mode = preallocationNamed(word);
    if (mode === undefined) throw refused(`Invalid preallocation mode '${word}'`);
    const size = parseNumber(args.operands[0] ?? '');
    session.settle();
    const raw = disk.description.layers[0].format === 'raw';
    if (raw && mode === 'metadata') throw refused('Unsupported preallocation mode: metadata');
    if (!raw && size % SECTOR_SIZE !== 0) throw refused('The new size must be a multiple of 512');
    if (size < disk.size && mode !== 'off') {
      throw refused(
        raw
          ? 'Cannot use preallocation for shrinking files'
          : "Preallocation can't be used for shrinking an image",
      );
    }
    try {
      disk.writer.resize(size, mode);
    } catch (error) {
      if (errnoOf(error) !== ERRNO.EFBIG) throw error;
      const what = raw ? 'Could not resize file' : 'Failed to grow the L1 table';
      throw refused(`${what}: ${strerror(ERRNO.EFBIG)}`);
    }
  },
};

function refused(message: string): ImageError {
  return new ImageError('invalid', 'EINVAL', message);
}

export const FLUSH: ImageCommand = {
  name: 'flush',
  alias: 'f',
  summary: 'flush all in-core file state to disk',
  words: [0, 0],
  onImage: (session, _args, image) => {
    session.settle();
    if (image.writable) image.disk.writer.flush();
  },
};

export const AIO_FLUSH: ImageCommand = {
  name: 'aio_flush',
  summary: 'completes all outstanding aio requests',
  words: [0, 0],
  onImage: (session) => session.settle(),
};
