/** What the records of the opcode table are made of. */
import type { Operations } from '../mount/operations.js';
import type { Reply } from './reply.js';
import type { Request } from './request.js';

/** A struct, as far as it is the same for all. */
export interface Layout {
  readonly size: number;
  read(view: DataView, at: number): object;
}

export type Serve = (operations: Operations, request: Request, reply: Reply) => void;

export interface Opcode {
  readonly code: number;
  readonly name: string;
  /** What the request must at least hold behind its header. */
  readonly layout: Layout | null;
  /** Whether a name follows the layout. */
  readonly named: boolean;
  /** Whether the kernel waits for an answer. */
  readonly answered: boolean;
  /** Whether it works on an open file, so that opening it was the check of who may. */
  readonly byHandle: boolean;
  /** Whether it looks into the image and changes nothing: it is served within the image then. */
  readonly looks: boolean;
  /** Whether anybody can serve it of the folder that an image is, too: what is asked is all about that. */
  readonly ofFolder: boolean;
  /** By how many it changes how many files are open. */
  readonly files: -1 | 0 | 1;
  readonly serve: Serve;
}

export type Traits = Partial<Omit<Opcode, 'code' | 'name' | 'layout' | 'serve'>>;

const NO_TRAITS: Required<Traits> = {
  named: false,
  answered: true,
  byHandle: false,
  looks: false,
  ofFolder: false,
  files: 0,
};

export function opcode(
  code: number,
  name: string,
  layout: Layout | null,
  serve: Serve,
  traits: Traits = {},
): Opcode {
  return { ...NO_TRAITS, ...traits, code, name, layout, serve };
}

export const NAMED: Traits = { named: true };
export const UNANSWERED: Traits = { answered: false, byHandle: true };
export const BY_HANDLE: Traits = { byHandle: true };
