/**
 * Node numbers in a mount of many images: those of an image's own tree, with the image's number in the bits
 * above. Number 0 is the folders that the images lie in: below 2^16 the slots of `node.ts`, and from there on
 * one number for each folder, which no other gets.
 */
import { MEMBER_LIMIT } from '../shared/members.js';
import { ROOT_ID } from './node.js';

/** Numbers of each image: 2^21 views. */
export const MEMBER_SIZE = 2 ** 53 / MEMBER_LIMIT;

/** The first number of a folder below the root. */
export const FIRST_FOLDER = 1 << 16;

export function memberOf(id: number): number {
  return Math.floor(id / MEMBER_SIZE);
}

/** The root of an image's tree. */
export function memberRoot(member: number): number {
  return member * MEMBER_SIZE + ROOT_ID;
}

/** Whether a node is the root of some image's tree, which is a folder among the others, too. */
export function isMemberRoot(id: number): boolean {
  return id >= MEMBER_SIZE && id % MEMBER_SIZE === ROOT_ID;
}
