/**
 * The inodes of the mounted tree. A node's number is made from what it is, so that every thread
 * makes the same number for the same file, nobody keeps a table of them, and FORGET has nothing to
 * do: view * 2^16 + slot, where view 0 is the disk, and each snapshot has a view of its own, from 1
 * on, which no other snapshot gets as long as the mount lives.
 */
import type { Content } from './content.js';

export interface Timestamp {
  readonly sec: number;
  readonly nsec: number;
}

/** What stat tells. */
export interface Attributes {
  readonly ino: number;
  readonly size: number;
  /** Units of 512 bytes. */
  readonly blocks: number;
  readonly mode: number;
  readonly nlink: number;
  readonly uid: number;
  readonly gid: number;
  readonly blksize: number;
  readonly atime: Timestamp;
  readonly mtime: Timestamp;
  readonly ctime: Timestamp;
  readonly btime: Timestamp;
}

/** For how long something of a node may be remembered: for ever, or not at all. */
export interface Lasting {
  readonly name: boolean;
  readonly attributes: boolean;
}

interface NodeBase {
  readonly id: number;
  readonly parent: number;
  readonly attributes: Attributes;
  readonly lasting: Lasting;
}

export interface DirectoryNode extends NodeBase {
  readonly kind: 'directory';
}

export interface FileNode extends NodeBase {
  readonly kind: 'file';
  readonly content: Content;
}

export type Node = DirectoryNode | FileNode;

export const ROOT_ID = 1;

/** The low 16 bits of a node's number. */
export const SLOT = {
  ROOT: ROOT_ID,
  INFO: 2,
  SNAPSHOTS: 3,
  BITMAPS: 4,
  /** The folder about the mount itself. */
  OWN: 5,
  RAW: 8,
  VMSTATE: 9,
  PARTITIONS: 10,
  /** Of a snapshot: what changed since. */
  CHANGED: 11,
  /** File n of that folder, from 0 on, has slot OWN_FILE + n. */
  OWN_FILE: 0x100,
  /** Partition n has slot PARTITION + n. */
  PARTITION: 0x1000,
  /** Bitmap n, from 1 on, has slot BITMAP + n, of view 0. */
  BITMAP: 0x8000,
} as const;

/** Files of the mount's own folder that have a slot. */
export const LAST_OWN_FILE = 0xff;

/** Bitmaps that have a slot. */
export const LAST_BITMAP = 0x7fff;

const SLOTS = 0x1_0000;

export function nodeId(view: number, slot: number): number {
  return view * SLOTS + slot;
}

export function viewOf(id: number): number {
  return Math.floor(id / SLOTS);
}

export function slotOf(id: number): number {
  return id % SLOTS;
}

/** The number of the partition that a node is; 0 where it is none. */
export function partitionOf(id: number): number {
  return isPartition(slotOf(id)) ? slotOf(id) - SLOT.PARTITION : 0;
}

/** Whether the file's bytes and size are found out when it is opened. */
export function isMadeOnReading(id: number): boolean {
  return slotOf(id) === SLOT.CHANGED || isOwnFile(id);
}

/** Whether it is a file of the folder about the mount itself. */
export function isOwnFile(id: number): boolean {
  return id >= SLOT.OWN_FILE && id <= SLOT.OWN_FILE + LAST_OWN_FILE;
}

export function isPartition(slot: number): boolean {
  return slot >= SLOT.PARTITION && slot < SLOT.BITMAP;
}
