/** A storage that fails on purpose, where a plan says so. */
import type { IoBuffer } from '../sys/io-buffer.js';
import { type FaultPlan, Faults } from './faults.js';
import type { MutableStorage } from './storage.js';

export class FaultyStorage implements MutableStorage {
  readonly name: string;
  readonly faults: Faults;
  readonly #whole: MutableStorage;

  constructor(whole: MutableStorage, plan: FaultPlan) {
    this.name = whole.name;
    this.faults = new Faults(plan);
    this.#whole = whole;
  }

  size(): number {
    return this.#whole.size();
  }

  read(target: IoBuffer, at: number, length: number, position: number): number {
    this.faults.check('read', position, length);
    return this.#whole.read(target, at, length, position);
  }

  nextData(position: number, end: number): number {
    return this.#whole.nextData(position, end);
  }

  nextHole(position: number, end: number): number {
    return this.#whole.nextHole(position, end);
  }

  write(source: IoBuffer, at: number, length: number, position: number): void {
    this.faults.check('write', position, length);
    this.#whole.write(source, at, length, position);
  }

  flush(): void {
    this.faults.happens('flush_to_disk');
    this.faults.check('flush', 0, 0);
    this.#whole.flush();
  }

  punch(position: number, length: number): boolean {
    this.faults.check('discard', position, length);
    return this.#whole.punch(position, length);
  }

  reserve(position: number, length: number): boolean {
    return this.#whole.reserve(position, length);
  }

  truncate(size: number): void {
    this.#whole.truncate(size);
  }
}
