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

/** Where the header of version 1 has its method of encryption. */
const CRYPT_METHOD_OF_1 = 36;

/** Whether the file is an encrypted image: qcow2's, or of version 1. */
export function isEncrypted(path: string): boolean {
  const bytes = headOf(path);
  if (bytes.toString('latin1', 0, 3) !== 'QFI') return false;
  const at = bytes.readUInt32BE(4) === 1 ? CRYPT_METHOD_OF_1 : HEADER.offsets.cryptMethod;
  return bytes.readUInt32BE(at) > 0;
}

function headOf(path: string): Buffer {
  const bytes = Buffer.alloc(HEADER.size);
  const fd = openSync(path, 'r');
  try {
    readSync(fd, bytes, 0, bytes.length, 0);
  } finally {
    closeSync(fd);
  }
  return bytes;
}

/** How QEMU's tools and ours name an encrypted image. */
export function encryptedName(path: string, driver = 'qcow2'): string {
  return `driver=${driver},file.filename=${path},encrypt.key-secret=s`;
}

/** The last words of a command of QEMU's on the image. */
export function imageWords(path: string): string[] {
  if (!isEncrypted(path)) return [path];
  const driver = headOf(path).readUInt32BE(4) === 1 ? 'qcow' : 'qcow2';
  return [...SECRET, '--image-opts', encryptedName(path, driver)];
}
