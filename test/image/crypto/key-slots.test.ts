/** Key slots: each of them opens, here and for QEMU; and whatever a crash leaves of a change still opens. */
import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { alignUp } from '#src/codec/bits.js';
import { checkIterations } from '#src/image/crypto/iterations.js';
import { changeSlots, type SlotChange, slotsToChange } from '#src/image/crypto/key-slots.js';
import { LUKS_KEY_SLOTS, readLuksHeader } from '#src/image/crypto/luks-header.js';
import { openKeySlot } from '#src/image/crypto/luks-key.js';
import { luksPlace } from '#src/image/qcow2/encryption.js';
import { readHeader } from '#src/image/qcow2/header.js';
import { MemoryStorage } from '#src/storage/memory.js';
import type { IoBuffer } from '#src/sys/io-buffer.js';
import { makeLuksImage } from '../../helpers/encrypted.js';
import { expectImageError } from '../../helpers/errors.js';
import { encryptedName, PASSPHRASE, SECRET } from '../../helpers/image-words.js';
import { qemuImg } from '../../helpers/qemu.js';
import { useTempFolder } from '../../helpers/temp.js';

const CHANGE: SlotChange = {
  state: 'active',
  slot: undefined,
  newPassphrase: undefined,
  oldPassphrase: undefined,
  iterTime: 0,
  force: false,
};

/** Remembers the file as it was after each write, and in the middle of those that are of several sectors. */
class Crashing extends MemoryStorage {
  readonly states: Buffer[] = [];

  override write(source: IoBuffer, at: number, length: number, position: number): void {
    const middle = alignUp(position + (length >> 1), 512) - position;
    const half = Math.min(length, middle);
    super.write(source, at, half, position);
    this.states.push(Buffer.from(this.bytes));
    super.write(source, at + half, length - half, position + half);
    this.states.push(Buffer.from(this.bytes));
  }
}

describe('key slots', () => {
  const temp = useTempFolder();

  async function image(): Promise<Buffer> {
    const path = temp.at('image');
    await makeLuksImage(path, 1 << 20, 'encrypt.cipher-alg=aes-128,encrypt.iter-time=0');
    return readFileSync(path);
  }

  /** The slot that a passphrase opens, and the master key. */
  function open(storage: MemoryStorage, passphrase: string) {
    const place = luksPlace(readHeader(storage))!;
    const header = readLuksHeader(storage, place);
    return openKeySlot(storage, place.offset, header, Buffer.from(passphrase));
  }

  function change(storage: MemoryStorage, what: Partial<SlotChange>): void {
    const place = luksPlace(readHeader(storage))!;
    const whole = { ...CHANGE, ...what };
    const slots = slotsToChange(storage, place, whole);
    changeSlots(storage, place, slots, whole, open(storage, PASSPHRASE)!.key);
  }

  it('open with any of eight passphrases, and with none that is erased', async () => {
    const storage = new MemoryStorage(await image());
    const { key } = open(storage, PASSPHRASE)!;
    for (let slot = 1; slot < LUKS_KEY_SLOTS; slot++) {
      change(storage, { newPassphrase: Buffer.from(`p${slot}`) });
      expect(open(storage, `p${slot}`)).to.deep.equal({ key, slot });
    }
    expect(() => change(storage, { newPassphrase: Buffer.from('one more') })).to.throw(/in use/);
    const path = temp.write('all', storage.bytes);
    for (let slot = 1; slot < LUKS_KEY_SLOTS; slot++) {
      const secret = ['--object', `secret,id=s,data=p${slot}`];
      qemuImg('check', '-q', ...secret, '--image-opts', encryptedName(path));
    }
    qemuImg('check', '-q', ...SECRET, '--image-opts', encryptedName(path));
    change(storage, { state: 'inactive', iterTime: undefined, slot: 3 });
    expect(open(storage, 'p3')).to.equal(null);
    const oldPassphrase = Buffer.from('p5');
    change(storage, { state: 'inactive', iterTime: undefined, oldPassphrase });
    expect(open(storage, 'p5')).to.equal(null);
    expect(open(storage, 'p4')!.key.equals(key)).to.equal(true);
  });

  it('are not written over what lies behind the header, by one that stands in either', async () => {
    const bytes = await image();
    const storage = new MemoryStorage(Buffer.from(bytes));
    const place = luksPlace(readHeader(storage))!;
    const short = { ...place, length: readLuksHeader(storage, place).slots[1]!.keyOffset };
    const newPassphrase = Buffer.from('new');
    const over = { ...CHANGE, slot: 0, force: true, newPassphrase };
    expect(() => slotsToChange(storage, short, over)).to.throw(/key slot 1 ends behind/);
    expect(Buffer.from(storage.bytes).equals(bytes)).to.equal(true);
  });

  it('are not tried where that would take for ever, as an image may want it', () => {
    const slot = { iterations: 2 ** 31 - 1, keyBytes: 64 };
    const digest = { iterations: 2 ** 31 - 1, keyBytes: 20 };
    const all = Array.from({ length: LUKS_KEY_SLOTS }, () => [slot, digest]).flat();
    expectImageError('ENOTSUP', /34359738352 iterations of LUKS keys/, () =>
      checkIterations('sha512', all),
    );
    checkIterations('sha512', [{ iterations: 20_000_000, keyBytes: 64 }]);
  });

  it('open by another passphrase whenever a change ends in the middle', async () => {
    const start = await image();
    const storage = new Crashing(start);
    const { key } = open(storage, PASSPHRASE)!;
    const isOpen = (bytes: Buffer, ...passphrases: string[]) => {
      const found = passphrases.map((one) => open(new MemoryStorage(bytes), one)?.key);
      return found.some((one) => one?.equals(key) === true);
    };
    change(storage, { newPassphrase: Buffer.from('other'), slot: 6 });
    expect(storage.states.every((bytes) => isOpen(bytes, PASSPHRASE))).to.equal(true);
    storage.states.length = 0;
    change(storage, { state: 'inactive', iterTime: undefined, slot: 6 });
    expect(storage.states.every((bytes) => isOpen(bytes, PASSPHRASE))).to.equal(true);
    storage.states.length = 0;
    change(storage, { newPassphrase: Buffer.from('new'), slot: 0, force: true });
    expect(storage.states.every((bytes) => isOpen(bytes, PASSPHRASE, 'new'))).to.equal(true);
    expect(open(storage, PASSPHRASE)).to.equal(null);
    const header = readLuksHeader(storage, luksPlace(readHeader(storage))!);
    expect(header.slots.map(({ active }) => active).indexOf(true)).to.equal(0);
    expect(header.slots.filter(({ active }) => active).length).to.equal(1);
    const path = temp.write('changed', storage.bytes);
    const secret = ['--object', 'secret,id=s,data=new'];
    qemuImg('check', '-q', ...secret, '--image-opts', encryptedName(path));
  });
});
