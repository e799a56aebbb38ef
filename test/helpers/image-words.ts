/** How images are named, encrypted or not, to what opens them here and to QEMU: all have the same passphrase. */
import { closeSync, openSync, readSync } from 'node:fs';
import { KeyRing } from '#src/image/crypto/key-ring.js';
import { HEADER } from '#src/image/qcow2/layout.js';
import type { ImageSpec } from '#src/image/spec.js';

export const PASSPHRASE = 'päss';
export const SECRET = ['--object', `secret,id=s,data=${PASSPHRASE}`];

/** An image whose layers, where they are encrypted, open with the passphrase. */
export function imageOf(path: string): ImageSpec {
  return { path, filename: path, keys: new KeyRing({ passphrases: [Buffer.from(PASSPHRASE)] }) };
}

/** Whether the file is an encrypted qcow2 image. */
export function isEncrypted(path: string): boolean {
  const bytes = Buffer.alloc(HEADER.size);
  const fd = openSync(path, 'r');
  try {
    readSync(fd, bytes, 0, bytes.length, 0);
  } finally {
    closeSync(fd);
  }
  // Version 1 has another header.
  const isQcow2 = bytes.toString('latin1', 0, 3) === 'QFI' && bytes.readUInt32BE(4) > 1;
  return isQcow2 && bytes.readUInt32BE(HEADER.offsets.cryptMethod) > 0;
}

/** How QEMU's tools and ours name an encrypted image. */
export function encryptedName(path: string): string {
  return `driver=qcow2,file.filename=${path},encrypt.key-secret=s`;
}

/** The last words of a command of QEMU's on the image. */
export function imageWords(path: string): string[] {
  return isEncrypted(path) ? [...SECRET, '--image-opts', encryptedName(path)] : [path];
}
