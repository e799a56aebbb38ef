/**
 * Encrypting and decrypting sectors, many at a time: a call into node:crypto costs as much as some sectors
 * of work. All modes are made of AES-ECB over as many blocks as there are, and XOR around it. Sources: IEEE
 * 1619 (XTS), NIST SP 800-38A (CBC, CTR), the LUKS specification (initial vectors).
 */
import { createCipheriv, createDecipheriv, createHash } from 'node:crypto';
import { TWO_32 } from '../../codec/bits.js';
import { ImageError } from '../../errors.js';
import { SECTOR_SIZE } from '../extent.js';
import type { CipherKey, IvGenerator, SectorCipher } from './cipher-key.js';

const BLOCK_SIZE = 16;
/** 32-bit words of a block, and of a sector. */
const BLOCK_WORDS = 4;
const SECTOR_WORDS = SECTOR_SIZE / 4;
/** Sectors that go through at once: what is worked on stays in the processor's cache. */
const MOST_SECTORS = 128;

/** The same number of bytes, a multiple of a block, through the block cipher. */
type Blocks = (bytes: Uint8Array) => Buffer;

/** Words of `bytes`, of which node:crypto makes a buffer of its own. */
function wordsOf(bytes: Buffer): Int32Array {
  return new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
}

/** Memory that is used again and again. */
class Words {
  readonly words: Int32Array;
  readonly bytes: Buffer;

  constructor(count: number) {
    this.words = new Int32Array(count);
    this.bytes = Buffer.from(this.words.buffer);
  }
}

/** Throws an ImageError (ENOTSUP) where the cipher is none that node:crypto has. */
export function sectorCipher(key: CipherKey): SectorCipher {
  checkCipher(key.cipher);
  switch (key.mode) {
    case 'xts':
      return new InPieces(new Xts(key));
    case 'cbc':
      return new InPieces(new Cbc(key));
    case 'ctr':
      return new InPieces(new Ctr(key));
    case 'ecb':
      return new InPieces(new Ecb(key));
  }
}

/** Throws where node:crypto lacks that cipher. */
export function checkCipher(cipher: string): void {
  if (cipher === 'aes') return;
  throw new ImageError('unsupported', 'ENOTSUP', `Cipher '${cipher}' is not supported`, {
    limit: 'supported: aes',
  });
}

/** One mode, over at most MOST_SECTORS in `data`. */
interface Mode {
  /** Both leave in `data` what they were asked for. */
  decrypt(data: Words, sectors: number, first: number): void;
  encrypt(data: Words, sectors: number, first: number): void;
}

class InPieces implements SectorCipher {
  readonly #mode: Mode;
  readonly #data = new Words(MOST_SECTORS * SECTOR_WORDS);

  constructor(mode: Mode) {
    this.#mode = mode;
  }

  decrypt(bytes: Buffer, at: number, length: number, sector: number): void {
    this.#each(bytes, at, length, sector, false);
  }

  encrypt(bytes: Buffer, at: number, length: number, sector: number): void {
    this.#each(bytes, at, length, sector, true);
  }

  #each(bytes: Buffer, at: number, length: number, sector: number, encrypts: boolean): void {
    const data = this.#data;
    const mode = this.#mode;
    for (let done = 0; done < length; done += MOST_SECTORS * SECTOR_SIZE) {
      const n = Math.min(length - done, MOST_SECTORS * SECTOR_SIZE);
      bytes.copy(data.bytes, 0, at + done, at + done + n);
      const first = sector + done / SECTOR_SIZE;
      if (encrypts) mode.encrypt(data, n / SECTOR_SIZE, first);
      else mode.decrypt(data, n / SECTOR_SIZE, first);
      data.bytes.copy(bytes, at + done, 0, n);
    }
  }
}

function encryptor(key: Uint8Array): Blocks {
  const cipher = createCipheriv(`aes-${key.length * 8}-ecb`, key, null).setAutoPadding(false);
  return (bytes) => cipher.update(bytes);
}

function decryptor(key: Uint8Array): Blocks {
  const cipher = createDecipheriv(`aes-${key.length * 8}-ecb`, key, null).setAutoPadding(false);
  return (bytes) => cipher.update(bytes);
}

/** The initial vectors of sectors: 16 bytes each. */
class InitialVectors {
  readonly #generator: IvGenerator;
  readonly #salted: Blocks | null;
  readonly #vectors = new Words(MOST_SECTORS * BLOCK_WORDS);
  readonly #view = new DataView(this.#vectors.words.buffer);

  constructor({ ivGenerator, ivHash, key }: CipherKey) {
    this.#generator = ivGenerator;
    this.#salted =
      ivGenerator === 'essiv' ? encryptor(createHash(ivHash!).update(key).digest()) : null;
  }

  /** Of `sectors` from number `first` on; valid until the next call. */
  of(sectors: number, first: number): Buffer {
    const view = this.#view;
    const wide = this.#generator !== 'plain';
    for (let n = 0; n < sectors; n++) {
      const sector = first + n;
      view.setUint32(n * BLOCK_SIZE, sector % TWO_32, true);
      view.setUint32(n * BLOCK_SIZE + 4, wide ? Math.floor(sector / TWO_32) : 0, true);
    }
    const vectors = this.#vectors.bytes.subarray(0, sectors * BLOCK_SIZE);
    return this.#salted === null ? vectors : this.#salted(vectors);
  }
}

class Xts implements Mode {
  readonly #vectors: InitialVectors;
  readonly #encrypt: Blocks;
  readonly #decrypt: Blocks;
  readonly #tweak: Blocks;
  readonly #tweaks = new Int32Array(MOST_SECTORS * SECTOR_WORDS);

  constructor(key: CipherKey) {
    const half = key.key.length / 2;
    this.#vectors = new InitialVectors(key);
    this.#encrypt = encryptor(key.key.subarray(0, half));
    this.#decrypt = decryptor(key.key.subarray(0, half));
    this.#tweak = encryptor(key.key.subarray(half));
  }

  decrypt(data: Words, sectors: number, first: number): void {
    this.#run(data, sectors, first, this.#decrypt);
  }

  encrypt(data: Words, sectors: number, first: number): void {
    this.#run(data, sectors, first, this.#encrypt);
  }

  #run({ words, bytes }: Words, sectors: number, first: number, blocks: Blocks): void {
    const tweaks = this.#tweaks;
    const starts = wordsOf(this.#tweak(this.#vectors.of(sectors, first)));
    for (let sector = 0; sector < sectors; sector++) {
      whiten(words, tweaks, sector * SECTOR_WORDS, starts, sector * BLOCK_WORDS);
    }
    const done = wordsOf(blocks(bytes.subarray(0, sectors * SECTOR_SIZE)));
    const end = sectors * SECTOR_WORDS;
    for (let at = 0; at < end; at++) words[at] = done[at]! ^ tweaks[at]!;
  }
}

/**
 * XORs the sector of `words` at `at` with its tweaks, which are kept in `tweaks`. The first is given, and
 * each block's is that of the block before, times x in GF(2^128). Words are little-endian, as the host's.
 */
function whiten(
  words: Int32Array,
  tweaks: Int32Array,
  at: number,
  starts: Int32Array,
  start: number,
): void {
  let t0 = starts[start]!;
  let t1 = starts[start + 1]!;
  let t2 = starts[start + 2]!;
  let t3 = starts[start + 3]!;
  const end = at + SECTOR_WORDS;
  for (let word = at; word < end; word += BLOCK_WORDS) {
    tweaks[word] = t0;
    tweaks[word + 1] = t1;
    tweaks[word + 2] = t2;
    tweaks[word + 3] = t3;
    words[word]! ^= t0;
    words[word + 1]! ^= t1;
    words[word + 2]! ^= t2;
    words[word + 3]! ^= t3;
    const carry = (t3 >> 31) & 0x87;
    t3 = (t3 << 1) | (t2 >>> 31);
    t2 = (t2 << 1) | (t1 >>> 31);
    t1 = (t1 << 1) | (t0 >>> 31);
    t0 = (t0 << 1) ^ carry;
  }
}

class Cbc implements Mode {
  readonly #vectors: InitialVectors;
  readonly #encrypt: Blocks;
  readonly #decrypt: Blocks;
  readonly #row = new Words(MOST_SECTORS * BLOCK_WORDS);

  constructor(key: CipherKey) {
    this.#vectors = new InitialVectors(key);
    this.#encrypt = encryptor(key.key);
    this.#decrypt = decryptor(key.key);
  }

  decrypt({ words, bytes }: Words, sectors: number, first: number): void {
    const vectors = wordsOf(this.#vectors.of(sectors, first));
    const done = wordsOf(this.#decrypt(bytes.subarray(0, sectors * SECTOR_SIZE)));
    for (let sector = sectors - 1; sector >= 0; sector--) {
      const start = sector * SECTOR_WORDS;
      // From the end: each block asks for the one before as it was.
      for (let at = start + SECTOR_WORDS - 1; at >= start + BLOCK_WORDS; at--) {
        words[at] = done[at]! ^ words[at - BLOCK_WORDS]!;
      }
      for (let n = 0; n < BLOCK_WORDS; n++) {
        words[start + n] = done[start + n]! ^ vectors[sector * BLOCK_WORDS + n]!;
      }
    }
  }

  /** A block depends on the one before, but not on other sectors: one block of each at a time. */
  encrypt({ words }: Words, sectors: number, first: number): void {
    const row = this.#row;
    const used = row.bytes.subarray(0, sectors * BLOCK_SIZE);
    let before = wordsOf(this.#vectors.of(sectors, first));
    for (let column = 0; column < SECTOR_WORDS; column += BLOCK_WORDS) {
      for (let sector = 0; sector < sectors; sector++) {
        const from = sector * SECTOR_WORDS + column;
        const to = sector * BLOCK_WORDS;
        for (let n = 0; n < BLOCK_WORDS; n++) {
          row.words[to + n] = words[from + n]! ^ before[to + n]!;
        }
      }
      before = wordsOf(this.#encrypt(used));
      for (let sector = 0; sector < sectors; sector++) {
        const to = sector * SECTOR_WORDS + column;
        const from = sector * BLOCK_WORDS;
        for (let n = 0; n < BLOCK_WORDS; n++) words[to + n] = before[from + n]!;
      }
    }
  }
}

/** Encrypted counters are XORed with the data: the same both ways. */
class Ctr implements Mode {
  readonly #vectors: InitialVectors;
  readonly #encrypt: Blocks;
  readonly #counters = new Words(MOST_SECTORS * SECTOR_WORDS);
  readonly #view = new DataView(this.#counters.words.buffer);

  constructor(key: CipherKey) {
    this.#vectors = new InitialVectors(key);
    this.#encrypt = encryptor(key.key);
  }

  encrypt(data: Words, sectors: number, first: number): void {
    this.decrypt(data, sectors, first);
  }

  decrypt({ words }: Words, sectors: number, first: number): void {
    const vectors = this.#vectors.of(sectors, first);
    for (let sector = 0; sector < sectors; sector++) {
      this.#count(vectors.subarray(sector * BLOCK_SIZE), sector * SECTOR_SIZE);
    }
    const pad = wordsOf(this.#encrypt(this.#counters.bytes.subarray(0, sectors * SECTOR_SIZE)));
    const end = sectors * SECTOR_WORDS;
    for (let at = 0; at < end; at++) words[at]! ^= pad[at]!;
  }

  /** The counters of one sector's blocks: 128-bit numbers, big-endian, from the vector up. */
  #count(vector: Buffer, to: number): void {
    let high = vector.readBigUInt64BE(0);
    let low = vector.readBigUInt64BE(8);
    for (let at = to; at < to + SECTOR_SIZE; at += BLOCK_SIZE) {
      this.#view.setBigUint64(at, high);
      this.#view.setBigUint64(at + 8, low);
      low = BigInt.asUintN(64, low + 1n);
      if (low === 0n) high = BigInt.asUintN(64, high + 1n);
    }
  }
}

class Ecb implements Mode {
  readonly #encrypt: Blocks;
  readonly #decrypt: Blocks;

  constructor({ key }: CipherKey) {
    this.#encrypt = encryptor(key);
    this.#decrypt = decryptor(key);
  }

  decrypt({ bytes }: Words, sectors: number): void {
    bytes.set(this.#decrypt(bytes.subarray(0, sectors * SECTOR_SIZE)));
  }

  encrypt({ bytes }: Words, sectors: number): void {
    bytes.set(this.#encrypt(bytes.subarray(0, sectors * SECTOR_SIZE)));
  }
}
