/**
 * On-disk and wire structs, declared once as field tables. Size, offsets, reader, writer and dump
 * derive from the table; tests pin the offsets to the specification's numbers.
 *
 * A table's fields lie one behind the other, without padding: padding is declared as a field.
 */

import { TWO_32 } from './bits.js';

export type Endian = 'big' | 'little';

/** How one field lies in bytes and what it is in TypeScript. */
export interface FieldType<T> {
  readonly size: number;
  read(view: DataView, at: number, littleEndian: boolean): T;
  write(view: DataView, at: number, value: T, littleEndian: boolean): void;
}

export const u8: FieldType<number> = {
  size: 1,
  read: (view, at) => view.getUint8(at),
  write: (view, at, value) => view.setUint8(at, value),
};

export const u16: FieldType<number> = {
  size: 2,
  read: (view, at, le) => view.getUint16(at, le),
  write: (view, at, value, le) => view.setUint16(at, value, le),
};

export const u32: FieldType<number> = {
  size: 4,
  read: (view, at, le) => view.getUint32(at, le),
  write: (view, at, value, le) => view.setUint32(at, value, le),
};

export const i32: FieldType<number> = {
  size: 4,
  read: (view, at, le) => view.getInt32(at, le),
  write: (view, at, value, le) => view.setInt32(at, value, le),
};

/**
 * 64 bits as a number, read as two halves (no BigInt: this is the I/O path's type). Above 2^53 - 1
 * the number is not exact: whoever validates the field refuses it there.
 */
export const u64: FieldType<number> = {
  size: 8,
  read: (view, at, le) =>
    view.getUint32(le ? at + 4 : at, le) * TWO_32 + view.getUint32(le ? at : at + 4, le),
  write: (view, at, value, le) => {
    view.setUint32(le ? at + 4 : at, Math.floor(value / TWO_32), le);
    view.setUint32(le ? at : at + 4, value % TWO_32, le);
  },
};

/** 64 bits that are not a quantity: feature masks, lock owners. Never on the I/O path. */
export const bits64: FieldType<bigint> = {
  size: 8,
  read: (view, at, le) => view.getBigUint64(at, le),
  write: (view, at, value, le) => view.setBigUint64(at, value, le),
};

/** `size` raw bytes. */
export function bytes(size: number): FieldType<Uint8Array> {
  return {
    size,
    read: (view, at) => new Uint8Array(view.buffer, view.byteOffset + at, size).slice(),
    write: (view, at, value) => new Uint8Array(view.buffer, view.byteOffset + at, size).set(value),
  };
}

export type FieldTable = Readonly<Record<string, FieldType<unknown>>>;

/** The object that a table of fields reads into. */
export type ValuesOf<T extends FieldTable> = {
  [K in keyof T]: T[K] extends FieldType<infer V> ? V : never;
};

/** A struct's layout. `at` is where the struct begins in the view, in bytes. */
export interface Struct<T extends FieldTable> {
  readonly name: string;
  readonly size: number;
  readonly fields: T;
  /** Byte offset of each field from the struct's start. */
  readonly offsets: Readonly<Record<keyof T, number>>;
  read(view: DataView, at: number): ValuesOf<T>;
  /** Writes the fields given; the others become zero. */
  write(view: DataView, at: number, values: Partial<ValuesOf<T>>): void;
  /** Reads one field, for paths that need no object. */
  get<K extends keyof T>(view: DataView, at: number, field: K): ValuesOf<T>[K];
  set<K extends keyof T>(view: DataView, at: number, field: K, value: ValuesOf<T>[K]): void;
}

/** Declares a struct from its field table, in order. */
export function struct<T extends FieldTable>(name: string, endian: Endian, fields: T): Struct<T> {
  const le = endian === 'little';
  const offsets = {} as Record<keyof T, number>;
  let size = 0;
  for (const key of Object.keys(fields) as (keyof T)[]) {
    offsets[key] = size;
    size += fields[key]!.size;
  }
  const keys = Object.keys(fields) as (keyof T)[];
  return {
    name,
    size,
    fields,
    offsets,
    read(view, at) {
      const values = {} as Record<keyof T, unknown>;
      for (const key of keys) values[key] = fields[key]!.read(view, at + offsets[key], le);
      return values as ValuesOf<T>;
    },
    write(view, at, values) {
      new Uint8Array(view.buffer, view.byteOffset + at, size).fill(0);
      for (const key of keys) {
        const value = values[key];
        if (value !== undefined) fields[key]!.write(view, at + offsets[key], value, le);
      }
    },
    get(view, at, field) {
      return fields[field]!.read(view, at + offsets[field], le) as ValuesOf<T>[typeof field];
    },
    set(view, at, field, value) {
      fields[field]!.write(view, at + offsets[field], value, le);
    },
  };
}
