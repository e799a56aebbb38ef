/** What encrypts the sectors of an image: plain data, so that threads can be given it. Never shown to anybody. */

export type CipherMode = 'xts' | 'cbc' | 'ecb' | 'ctr';
export type IvGenerator = 'plain' | 'plain64' | 'essiv';

export interface CipherKey {
  /** As in a LUKS header. Only `aes` can be had of node:crypto. */
  readonly cipher: string;
  readonly mode: CipherMode;
  readonly ivGenerator: IvGenerator;
  /** Of `essiv`; null of the others. */
  readonly ivHash: string | null;
  /** All of it: XTS takes two keys of half its length. Bytes. */
  readonly key: Uint8Array;
}

/** The key of an image. */
export interface ImageKey extends CipherKey {
  /** Sectors are numbered as they lie in the file; else as they lie on the disk. */
  readonly byHostOffset: boolean;
}

/** One thread's use of a key. */
export interface SectorCipher {
  /**
   * Decrypts [at, at + length) of `bytes`, whole sectors of which the first has number `sector`, in
   * place.
   */
  decrypt(bytes: Buffer, at: number, length: number, sector: number): void;
  /** Encrypts it in place. */
  encrypt(bytes: Buffer, at: number, length: number, sector: number): void;
}
