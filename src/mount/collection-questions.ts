/** What workers ask the main thread of a mount of many images. Questions and answers are plain data. */
import { describeError, type ErrnoName, type ErrorKind, ImageError, errorCode } from '../errors.js';
import type { DirectoryNode } from './node.js';
import type { ServedImage } from './served-image.js';
import type { ImageStatus } from './status.js';

/** A folder in a folder: one of the source's, or an image. */
export interface FoundFolder {
  readonly name: string;
  readonly node: DirectoryNode;
  /** The place in the listing behind it. */
  readonly next: number;
}

/** An image that is open. */
export interface OpenMember {
  /** Its state in `Members`, as long as it stays open. */
  readonly state: number;
  readonly image: ServedImage;
}

export interface CollectionQuestions {
  /** What a folder has by that name; null where there is nothing. */
  lookup(folder: number, name: string): FoundFolder | null;
  /** Some of what a folder has, from a place on, in order. None: that was all. */
  list(folder: number, from: number): readonly FoundFolder[];
  /** A folder, or the root of an image. */
  node(id: number): DirectoryNode;
  /** Opens an image. */
  open(member: number): OpenMember;
  /** What `errors.json` holds. */
  errors(): string;
  /** Of the images that are open. */
  status(): readonly ImageStatus[];
}

type Name = keyof CollectionQuestions;

interface Question {
  readonly name: Name;
  readonly words: readonly unknown[];
}

interface Failure {
  readonly kind: ErrorKind;
  readonly code: ErrnoName;
  readonly message: string;
}

type Answer = { readonly value: unknown } | { readonly failure: Failure };

/** The questions, asked by `ask`. They throw ImageErrors, of which the main thread tells what there is to tell. */
export function asking(ask: (question: unknown) => unknown): CollectionQuestions {
  const question =
    (name: Name) =>
    (...words: unknown[]): never => {
      const answer = ask({ name, words } satisfies Question) as Answer;
      if ('failure' in answer) {
        const { kind, code, message } = answer.failure;
        throw new ImageError(kind, code, message, { told: true });
      }
      return answer.value as never;
    };
  return {
    lookup: question('lookup'),
    list: question('list'),
    node: question('node'),
    open: question('open'),
    errors: question('errors'),
    status: question('status'),
  };
}

/** The answer to a question; `told` hears of errors that nobody expects. */
export function answering(
  answers: CollectionQuestions,
  told: (error: unknown) => void,
): (question: unknown) => unknown {
  return (question) => {
    const { name, words } = question as Question;
    try {
      const answer = answers[name] as (...words: unknown[]) => unknown;
      return { value: answer.apply(answers, [...words]) } satisfies Answer;
    } catch (error) {
      told(error);
      return { failure: failureOf(error) } satisfies Answer;
    }
  };
}

function failureOf(error: unknown): Failure {
  const message = describeError(error);
  if (error instanceof ImageError) return { kind: error.kind, code: error.code, message };
  return { kind: 'invalid', code: errorCode(error), message };
}
