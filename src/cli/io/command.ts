/** What a command of qemu-io is, for the table. */
import type { Arguments, Option } from '../getopt.js';
import type { IoImage } from './image.js';
import type { Session } from './session.js';

interface CommandFacts {
  readonly name: string;
  readonly alias?: string;
  /** Its words, as usage shows them. */
  readonly usage?: string;
  readonly summary: string;
  /** What `help NAME` says besides. */
  readonly help?: string;
  /** Words behind the name: at least, and at most. */
  readonly words: readonly [least: number, most: number];
  /** Undefined: the words are taken as they are. */
  readonly options?: readonly Option[];
}

export interface PlainCommand extends CommandFacts {
  readonly run: (session: Session, args: Arguments) => void | Promise<void>;
}

/** One that needs an open image. */
export interface ImageCommand extends CommandFacts {
  /** The image must be open for writing. */
  readonly writes?: true;
  readonly onImage: (session: Session, args: Arguments, image: IoImage) => void | Promise<void>;
}

/** All throw a Complaint, WrongWords, PlainError, ImageError or SysError where they fail. */
export type IoCommand = PlainCommand | ImageCommand;

/** More words than any line has. */
export const ANY = Number.POSITIVE_INFINITY;
