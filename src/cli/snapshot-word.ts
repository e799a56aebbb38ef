/** `-l` of the commands that read images: which snapshot is meant. */
import { ImageError } from '../errors.js';
import type { SnapshotChoice } from '../tools/snapshot-choice.js';
import { parseKeyValues } from './key-values.js';
import { programName } from './program.js';

const PREFIX = 'snapshot.';
const KEYS = ['id', 'name'].map((key) => PREFIX + key);

/** `snapshot.id=…,snapshot.name=…`, or the one or the other alone. Throws an ImageError. */
export function snapshotChoice(text: string): SnapshotChoice {
  if (!text.startsWith(PREFIX)) return { idOrName: text };
  const values = new Map<string, string>();
  for (const [key, value = 'on'] of parseKeyValues(text)) {
    if (!KEYS.includes(key)) {
      throw new ImageError('invalid', 'EINVAL', `Invalid parameter '${key}'`, {
        hint: `${programName()}: Failed in parsing snapshot param '${text}'`,
      });
    }
    values.set(key.slice(PREFIX.length), value);
  }
  return { id: values.get('id'), name: values.get('name') };
}
