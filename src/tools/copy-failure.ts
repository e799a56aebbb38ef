/** What went wrong in a copy, and where: it comes from any thread. */
import { describeError, errnoOf } from '../errors.js';

/** `status`: looking at what lies there. */
export type CopyStage = 'status' | 'read' | 'write';

/** Plain data, as it goes from thread to thread. */
export interface CopyFailureFacts {
  readonly stage: CopyStage;
  readonly offset: number;
  readonly errno: number;
  readonly text: string;
}

/** An expected error of an image or of the system. */
export class CopyFailure extends Error {
  readonly stage: CopyStage;
  /** Bytes of the disk that is copied. */
  readonly offset: number;
  readonly errno: number;

  constructor({ stage, offset, errno, text }: CopyFailureFacts) {
    super(text);
    this.stage = stage;
    this.offset = offset;
    this.errno = errno;
  }

  static of(stage: CopyStage, offset: number, error: unknown): CopyFailure {
    return new CopyFailure({ stage, offset, errno: errnoOf(error), text: describeError(error) });
  }

  get facts(): CopyFailureFacts {
    const { stage, offset, errno, message } = this;
    return { stage, offset, errno, text: message };
  }
}

/** Thrown where all threads are to stop: by an error of another one, or by the user. */
export class Stopped extends Error {}
