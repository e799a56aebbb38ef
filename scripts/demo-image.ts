/** Makes the small image of the demo, without QEMU: `node build/scripts/demo-image.js FILE`. */
import { writeImage } from '../test/helpers/image-builder.js';

const CLUSTER = 64 << 10;
const MIB = 1 << 20;

/** A boot record with one Linux partition, from 1 MiB on, of 4 MiB. */
function bootRecord(): Buffer {
  const record = Buffer.alloc(512);
  record[446 + 4] = 0x83;
  record.writeUInt32LE(MIB / 512, 446 + 8);
  record.writeUInt32LE((4 * MIB) / 512, 446 + 12);
  record.writeUInt16BE(0x55aa, 510);
  return record;
}

const data = (bytes: Uint8Array) => ({ kind: 'data', bytes }) as const;
const boot = data(bootRecord());
const text = (line: string) => data(Buffer.from(`${line}\n`));
const partition = MIB / CLUSTER;

const [path] = process.argv.slice(2);
if (path === undefined) throw new Error('usage: demo-image FILE');
writeImage(path, {
  size: 16 * MIB,
  clusters: new Map([
    [0, boot],
    [partition, text('This is the first partition, as it is now.')],
  ]),
  snapshots: [
    {
      id: '1',
      name: 'yesterday',
      fields: { dateSec: Math.floor(Date.now() / 1000) - 24 * 60 * 60 },
      clusters: new Map([
        [0, boot],
        [partition, text('This is the first partition, as it was yesterday.')],
      ]),
    },
  ],
});
