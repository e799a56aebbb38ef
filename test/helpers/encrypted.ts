/** Encrypted images that QEMU makes and reads. */
import { KeyRing } from '#src/image/crypto/key-ring.js';
import { createImage } from '#src/tools/create.js';
import { completeCreation, planCreation } from '#src/tools/creation.js';
import type { ImageSpec } from '#src/image/spec.js';
import { PASSPHRASE } from './image-words.js';
import { tryQemuIo } from './qemu.js';

/** `options`: behind the format and the key, `encrypt.cipher-mode=cbc` for example. */
export function luksOptions(options = ''): string {
  const rest = options === '' ? '' : `,${options}`;
  return `encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10${rest}`;
}

export const AES_OPTIONS = 'encrypt.format=aes,encrypt.key-secret=s';

/** How an image that one secret opens is named here. */
export function encryptedSpec(path: string, passphrase = PASSPHRASE): ImageSpec {
  const keys = new KeyRing({ secrets: new Map([['s', Buffer.from(passphrase)]]) });
  return { path, filename: path, keys, encryption: { secret: 's' } };
}

/** Makes an image here: QEMU would take seconds to time its keys. `options`: behind format and key. */
export async function makeLuksImage(path: string, size: number, options = ''): Promise<void> {
  const { keys } = encryptedSpec(path);
  const pairs = luksOptions(options)
    .split(',')
    .map((word) => word.split('=') as [string, string]);
  await createImage(completeCreation(planCreation(path, 'qcow2', pairs, keys), { size }));
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
