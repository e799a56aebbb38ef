/** Encrypted images that QEMU makes and reads. */
import { readFileSync, rmSync } from 'node:fs';
import { KeyRing } from '#src/image/crypto/key-ring.js';
import type { ImageSpec } from '#src/image/spec.js';
import { qemuImg, tryQemuIo } from './qemu.js';

export const PASSPHRASE = 'päss';
export const SECRET = ['--object', `secret,id=s,data=${PASSPHRASE}`];

/** `options`: behind the format and the key, `encrypt.cipher-mode=cbc` for example. */
export function luksOptions(options = ''): string {
  const rest = options === '' ? '' : `,${options}`;
  return `encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10${rest}`;
}

export const AES_OPTIONS = 'encrypt.format=aes,encrypt.key-secret=s';

/** How QEMU's tools and ours name the image. */
export function encryptedName(path: string): string {
  return `driver=qcow2,file.filename=${path},encrypt.key-secret=s`;
}

/** The same for what opens it here. */
export function encryptedSpec(path: string, passphrase = PASSPHRASE): ImageSpec {
  const keys = new KeyRing({ secrets: new Map([['s', Buffer.from(passphrase)]]) });
  return { path, filename: path, keys, encryption: { secret: 's' } };
}

/** The disk as QEMU reads it. */
export function qemuReadEncrypted(path: string, snapshot?: string): Buffer {
  const target = `${path}.as-raw`;
  const which = snapshot === undefined ? [] : ['-l', snapshot];
  const words = [...SECRET, '-O', 'raw', ...which, '--image-opts', encryptedName(path), target];
  qemuImg('convert', ...words);
  try {
    return readFileSync(target);
  } finally {
    rmSync(target, { force: true });
  }
}

/** Runs commands of qemu-io on an image that is named by options. Throws where one fails. */
export function qemuIoOn(
  name: string,
  objects: readonly string[],
  ...commands: readonly string[]
): void {
  const words = commands.flatMap((command) => ['-c', command]);
  const { status, stdout, stderr } = tryQemuIo(...objects, '--image-opts', ...words, name);
  if (status !== 0 || /failed|error/i.test(stdout + stderr)) throw new Error(stdout + stderr);
}
