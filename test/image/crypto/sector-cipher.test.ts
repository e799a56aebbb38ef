import { createCipheriv, createHash, randomBytes } from 'node:crypto';
import { expect } from 'chai';
import type { CipherKey } from '#src/image/crypto/cipher-key.js';
import { sectorCipher } from '#src/image/crypto/sector-cipher.js';

const SECTOR = 512;

/** Each sector by itself, with node:crypto's own modes. */
function reference(key: CipherKey, plain: Buffer, first: number): Buffer {
  const { mode, ivGenerator, ivHash } = key;
  const bits = (mode === 'xts' ? key.key.length / 2 : key.key.length) * 8;
  const sectors: Buffer[] = [];
  for (let at = 0; at < plain.length; at += SECTOR) {
    const number = BigInt(first + at / SECTOR);
    let iv = Buffer.alloc(16);
    if (ivGenerator === 'plain') iv.writeUInt32LE(Number(number & 0xffff_ffffn));
    else iv.writeBigUInt64LE(number);
    if (ivGenerator === 'essiv') {
      const salt = createHash(ivHash!).update(key.key).digest();
      iv = createCipheriv(`aes-${salt.length * 8}-ecb`, salt, null).update(iv);
    }
    const cipher = createCipheriv(`aes-${bits}-${mode}`, key.key, mode === 'ecb' ? null : iv);
    cipher.setAutoPadding(false);
    sectors.push(cipher.update(plain.subarray(at, at + SECTOR)));
  }
  return Buffer.concat(sectors);
}

describe('sectorCipher', () => {
  const modes = ['xts', 'cbc', 'ctr', 'ecb'] as const;
  const vectors = [
    { ivGenerator: 'plain', ivHash: null },
    { ivGenerator: 'plain64', ivHash: null },
    { ivGenerator: 'essiv', ivHash: 'sha256' },
    { ivGenerator: 'essiv', ivHash: 'md5' },
  ] as const;
  for (const mode of modes) {
    it(`${mode} is what node:crypto makes of each sector, for every key and vector`, () => {
      for (const size of [16, 24, 32]) {
        // IEEE 1619 has no XTS with AES-192, and neither has OpenSSL.
        if (mode === 'xts' && size === 24) continue;
        for (const vector of vectors) {
          const key: CipherKey = {
            ...{ cipher: 'aes', mode, ...vector },
            key: randomBytes(mode === 'xts' ? 2 * size : size),
          };
          const cipher = sectorCipher(key);
          for (const [sectors, first] of [
            [1, 0],
            [8, 0xffff_fffe],
            [300, 2 ** 44 - 7],
          ] as const) {
            const plain = randomBytes(sectors * SECTOR);
            const bytes = Buffer.concat([Buffer.alloc(3, 1), plain, Buffer.alloc(5, 2)]);
            cipher.encrypt(bytes, 3, plain.length, first);
            expect(bytes.subarray(3, -5).equals(reference(key, plain, first))).to.equal(true);
            cipher.decrypt(bytes, 3, plain.length, first);
            expect(bytes.subarray(3, -5).equals(plain)).to.equal(true);
            expect([...bytes.subarray(0, 3), ...bytes.subarray(-5)]).to.deep.equal([
              ...[1, 1, 1, 2, 2, 2, 2, 2],
            ]);
          }
        }
      }
    });
  }

  it('refuses ciphers that node:crypto lacks', () => {
    const key = {
      mode: 'xts',
      ivGenerator: 'plain64',
      ivHash: null,
      key: randomBytes(64),
    } as const;
    expect(() => sectorCipher({ ...key, cipher: 'serpent' })).to.throw(
      /'serpent' is not supported/,
    );
  });
});
